package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// lead is between the last preparation and the first transaction.
	lead = 500 * time.Millisecond
	// drainMax is how long transactions may take to become final after the last one has left.
	drainMax = 30 * time.Second
	// grace is how late a transaction of the window may become final and still count for a sustained rate.
	grace = 2 * time.Second
	// progressTime is how often a line says how it goes.
	progressTime = 5 * time.Second
	// otherCoresMax that something else may use before a trial is no comparison.
	otherCoresMax = 0.1
	// sustainedShare of what is due must become final in the measured time.
	sustainedShare = 0.99
	// keepsUpShare is the same for a search: in a short time, one block more or less is more than a hundredth of all.
	keepsUpShare = 0.97
)

// request is one rate for some time.
type request struct {
	rate        int
	warmUp, run time.Duration
}

func (r request) transactions() int {
	return r.rate * int((r.warmUp+r.run)/time.Second)
}

// trial is what was measured. Fields have the names and meaning that they have in the report of `althing-node bench`;
// `accepted` has no counterpart there: one mempool took the transaction, which promises nothing.
type trial struct {
	OfferedTPS         int      `json:"offered_tps"`
	RunS               int      `json:"run_s"`
	Offered            int      `json:"offered"`
	Finalised          int      `json:"finalised"`
	FinalisedTPS       float64  `json:"finalised_tps"`
	Sustained          bool     `json:"sustained"`
	AcceptedP50Ms      *float64 `json:"accepted_p50_ms"`
	AcceptedP95Ms      *float64 `json:"accepted_p95_ms"`
	AcceptedP99Ms      *float64 `json:"accepted_p99_ms"`
	FinalityP50Ms      *float64 `json:"finality_p50_ms"`
	FinalityP95Ms      *float64 `json:"finality_p95_ms"`
	FinalityP99Ms      *float64 `json:"finality_p99_ms"`
	CPUSPer1000Tx      float64  `json:"cpu_s_per_1000_tx"`
	GeneratorCPUSPer1k float64  `json:"generator_cpu_s_per_1000_tx"`
	RSSMaxMiB          float64  `json:"rss_max_mib"`
	BytesPerTxOnDisk   float64  `json:"bytes_per_tx_on_disk"`
	OtherCPUCores      float64  `json:"other_cpu_cores"`
	BlocksPerS         float64  `json:"blocks_per_s"`
	LongestGapMs       int64    `json:"longest_gap_ms"`
	Late               int      `json:"late"`
	Refused            int      `json:"refused"`
	Refusal            *string  `json:"refusal"`
	BlocksWithFailures int      `json:"blocks_with_failures"`
	TransactionBytes   int      `json:"transaction_bytes"`
	NotComparable      []string `json:"not_comparable"`
	// raw is the trial as Althing reported it.
	raw json.RawMessage
}

// MarshalJSON gives a trial of Althing as Althing wrote it, with what has no counterpart here.
func (t *trial) MarshalJSON() ([]byte, error) {
	if t.raw != nil {
		return t.raw, nil
	}
	type plain trial
	return json.Marshal((*plain)(t))
}

// setting is what all trials of an application have in common.
type setting struct {
	application string
	corpus      *corpus
	// directory below which each trial has one of its own: on the disk that is measured.
	directory  string
	commitWait time.Duration
}

// measure makes one trial with a testnet of its own.
func (s *setting) measure(ctx context.Context, r request) (*trial, error) {
	if err := s.corpus.grow(r.transactions()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.directory, 0o755); err != nil {
		return nil, err
	}
	parent, err := filepath.Abs(s.directory)
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp(parent, s.application+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	plan, err := makeTestnet(directory, s.application, s.commitWait)
	if err != nil {
		return nil, err
	}
	processes, err := startProcesses(directory, plan)
	if err != nil {
		return nil, err
	}
	defer processes.stop()
	ctx, cancel := processes.watch(ctx)
	defer cancel()
	observed, err := s.observe(ctx, r, plan, processes.ids())
	// Why a validator ended says more than what failed because of it.
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to measure %s at %d tx/s: %w", s.application, r.rate, err)
	}
	return observed.trial(), nil
}

// observe loads the running testnet.
func (s *setting) observe(ctx context.Context, r request, plan *plan, ids []int) (*observed, error) {
	ctx, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	follower, err := follow(ctx, plan.Members, failed)
	if err != nil {
		return nil, err
	}
	defer follower.close()
	watched := watched{ids: ids}
	for _, member := range plan.Members {
		watched.directories = append(watched.directories, filepath.Join(member.Home, "data"))
	}

	o := &observed{request: r, schedule: schedule{start: time.Now().Add(lead), rate: r.rate}}
	o.from = o.schedule.start.Add(r.warmUp)
	o.to = o.from.Add(r.run)
	o.load = newLoad(o.schedule, s.corpus, r.transactions())
	// Whatever was not sent when the transactions may take no longer stays unsent.
	sending, stop := context.WithDeadline(ctx, o.to.Add(drainMax))
	defer stop()
	loaded := make(chan struct{})
	go func() {
		o.load.run(sending, plan.Members)
		close(loaded)
	}()
	defer func() { stop(); <-loaded }()
	go report(sending, s.application, o.load, follower)

	before, err := readAt(ctx, watched, o.from)
	if err != nil {
		return nil, err
	}
	after, err := readAt(ctx, watched, o.to)
	if err != nil {
		return nil, err
	}
	o.spent = before.until(after)
	if o.finality, err = follower.collect(ctx, o.load, o.to.Add(drainMax)); err != nil {
		return nil, err
	}
	stop()
	<-loaded
	o.longestGap = follower.longestGap(o.schedule.start)
	o.rssMaxMiB, err = watched.rssMaxMiB()
	return o, err
}

func readAt(ctx context.Context, watched watched, at time.Time) (reading, error) {
	if !sleepUntil(ctx, at) {
		return reading{}, context.Cause(ctx)
	}
	return watched.read()
}

// report says how it goes until the context ends.
func report(ctx context.Context, application string, load *load, follower *follower) {
	for sleepUntil(ctx, time.Now().Add(progressTime)) {
		sent, refused := load.counts()
		progress("%s at %d tx/s: %d of %d sent, %d refused, height %d", application, load.schedule.rate, sent, load.count,
			refused, follower.height())
	}
}

func progress(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "peers: "+format+"\n", arguments...)
}

// observed is everything that a trial saw.
type observed struct {
	request    request
	schedule   schedule
	from, to   time.Time
	load       *load
	finality   *finality
	spent      spent
	longestGap time.Duration
	rssMaxMiB  float64
}

func (o *observed) inWindow(at time.Time) bool {
	return !at.Before(o.from) && at.Before(o.to)
}

// latencies are, of what was due in the window and happened, the times since it was due.
func (o *observed) latencies(at []time.Time) []time.Duration {
	var latencies []time.Duration
	for index, at := range at {
		if due := o.schedule.due(index); o.inWindow(due) && !at.IsZero() {
			latencies = append(latencies, max(0, at.Sub(due)))
		}
	}
	return latencies
}

// late counts what was due in the window and did not become final in time.
func (o *observed) late() int {
	late := 0
	for index, at := range o.finality.at {
		if o.inWindow(o.schedule.due(index)) && (at.IsZero() || at.After(o.to.Add(grace))) {
			late++
		}
	}
	return late
}

func (o *observed) trial() *trial {
	finalised := 0
	for _, at := range o.finality.at {
		if o.inWindow(at) {
			finalised++
		}
	}
	seconds := o.request.run.Seconds()
	perTransaction := func(value float64) float64 { return value / float64(max(1, finalised)) }
	_, refused := o.load.counts()
	late := o.late()
	accepted := percentilesOf(o.latencies(o.load.accepted))
	final := percentilesOf(o.latencies(o.finality.at))
	t := &trial{
		OfferedTPS:   o.request.rate,
		RunS:         int(seconds),
		Offered:      o.load.count,
		Finalised:    o.finality.count,
		FinalisedTPS: rounded(float64(finalised)/seconds, 10),
		Sustained: late == 0 && refused == 0 && o.finality.failures == 0 &&
			float64(finalised) >= sustainedShare*seconds*float64(o.request.rate),
		AcceptedP50Ms:      accepted.p50,
		AcceptedP95Ms:      accepted.p95,
		AcceptedP99Ms:      accepted.p99,
		FinalityP50Ms:      final.p50,
		FinalityP95Ms:      final.p95,
		FinalityP99Ms:      final.p99,
		CPUSPer1000Tx:      rounded(1_000*perTransaction(o.spent.nodes), 10_000),
		GeneratorCPUSPer1k: rounded(1_000*perTransaction(o.spent.own), 10_000),
		RSSMaxMiB:          rounded(o.rssMaxMiB, 10),
		BytesPerTxOnDisk:   rounded(perTransaction(float64(o.spent.diskBytes)/validators), 1),
		OtherCPUCores:      rounded(o.spent.otherCores, 100),
		BlocksPerS:         rounded(float64(o.finality.blocks)/(o.request.warmUp+o.request.run).Seconds(), 10),
		LongestGapMs:       o.longestGap.Milliseconds(),
		Late:               late,
		Refused:            refused,
		BlocksWithFailures: o.finality.failures,
		TransactionBytes:   transactionBytes,
		NotComparable:      []string{},
	}
	if o.load.refusal != "" {
		t.Refusal = &o.load.refusal
	}
	t.judge()
	return t
}

// judge says why a trial may not stand beside others.
func (t *trial) judge() {
	if t.Refused > 0 {
		t.NotComparable = append(t.NotComparable, fmt.Sprintf("%d transactions were refused", t.Refused))
	}
	if t.BlocksWithFailures > 0 {
		reason := fmt.Sprintf("in %d blocks not every transaction was executed", t.BlocksWithFailures)
		t.NotComparable = append(t.NotComparable, reason)
	}
	if t.OtherCPUCores > otherCoresMax {
		t.NotComparable = append(t.NotComparable, fmt.Sprintf("something else used %v cores", t.OtherCPUCores))
	}
}

// keepsUp is the rule of a search by short trials; a full trial has to confirm what it finds.
func (t *trial) keepsUp() bool {
	return t.Late == 0 && t.Refused == 0 && t.BlocksWithFailures == 0 &&
		t.FinalisedTPS >= keepsUpShare*float64(t.OfferedTPS)
}

func rounded(value, parts float64) float64 {
	return float64(int64(value*parts+0.5)) / parts
}
