package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

const nameAlthing = "althing"

// system is one that is compared: Althing, or CometBFT with one of the applications.
type system interface {
	measure(ctx context.Context, r request) (*trial, error)
}

// comparison is what `compare` writes.
type comparison struct {
	Machine machine `json:"machine"`
	// Commit of Althing.
	Commit   string         `json:"commit"`
	CometBFT string         `json:"cometbft"`
	Go       string         `json:"go"`
	RunS     int            `json:"run_s"`
	Rounds   int            `json:"rounds"`
	Althing  *systemReport  `json:"althing"`
	KVStore  *systemReport  `json:"kvstore"`
	Ed25519  *systemReport  `json:"ed25519"`
	systems  []namedSystem  // in the order of the turns
	options  compareOptions // how they are measured
	started  time.Time      // to say how long it took
}

// systemReport is what one system reached.
type systemReport struct {
	Conditions any `json:"conditions"`
	// AtCommon are full trials at the rate that all were given, one a round.
	AtCommon []*trial `json:"at_common"`
	// MaxSustained is the full trial at the highest rate that was sustained; none if no full trial was.
	MaxSustained *trial `json:"max_sustained"`
	// Full are all full trials near that rate, one a round.
	Full []*trial `json:"full"`
	// Search are the short trials that found the rate.
	Search        []*trial `json:"search"`
	NotComparable []string `json:"not_comparable"`
	// candidate is the rate of the next full trial, 0 for none.
	candidate int
}

type namedSystem struct {
	name   string
	system system
	report *systemReport
}

type compareOptions struct {
	loadOptions
	althing     string
	common      int
	rounds      int
	shortWarmUp time.Duration
	shortRun    time.Duration
	quick       bool
	search      search
}

// stepDown is what is left of a rate that a short trial sustained and a full one did not.
const stepDown = 0.92

func (o *compareOptions) parse(arguments []string) error {
	flags := flag.NewFlagSet("peers compare", flag.ContinueOnError)
	o.search = defaultSearch
	flags.StringVar(&o.althing, "althing", "", "`PROGRAM` althing-node, built for release")
	flags.IntVar(&o.common, "common", 2_000, "transactions a second that all are given")
	flags.IntVar(&o.rounds, "rounds", 2, "full trials of each, in turns")
	flags.IntVar(&o.search.low, "low", 2_000, "the search begins with this rate")
	flags.IntVar(&o.search.high, "high", 20_000, "the highest rate that is tried")
	flags.IntVar(&o.search.trialsMax, "trials", 7, "short trials of each search, at most")
	flags.DurationVar(&o.shortWarmUp, "short-warm-up", 4*time.Second, "load before the measured time of a short trial")
	flags.DurationVar(&o.shortRun, "short-run", 10*time.Second, "measured time of a short trial")
	flags.BoolVar(&o.quick, "quick", false, "the common rate only, once, for short times")
	o.register(flags, 8*time.Second, 30*time.Second, "target/bench/peers.json")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if o.althing == "" {
		return errors.New("--althing is missing")
	}
	if o.common < 1 || o.rounds < 1 || o.rounds > 20 || o.search.low < 1 || o.search.high < o.search.low || o.search.trialsMax > 20 {
		return errors.New("rates, rounds and trials must be positive, rounds and trials 20 at most")
	}
	short := loadOptions{warmUp: o.shortWarmUp, run: o.shortRun, accounts: o.accounts}
	if err := short.check(); err != nil {
		return err
	}
	if o.quick {
		o.rounds, o.warmUp, o.run = 1, o.shortWarmUp, o.shortRun
	}
	return o.check()
}

// compareCommand measures all systems in one run: figures of different hours are no comparison.
func compareCommand(ctx context.Context, arguments []string) error {
	var options compareOptions
	if err := options.parse(arguments); err != nil {
		return err
	}
	c, err := newComparison(options)
	if err != nil {
		return err
	}
	if !options.quick {
		for _, s := range c.systems {
			if err := c.findCandidate(ctx, s); err != nil {
				return err
			}
		}
	}
	// In turns, so that an hour in which the machine is slower is one for all.
	for round := range options.rounds {
		for _, s := range c.systems {
			progress("round %d of %d: %s", round+1, options.rounds, s.name)
			if err := c.fullTrials(ctx, s); err != nil {
				return err
			}
		}
	}
	c.finish()
	if err := write(c, options.out); err != nil {
		return err
	}
	return c.table(os.Stdout)
}

func newComparison(options compareOptions) (*comparison, error) {
	c := &comparison{
		Machine: currentMachine(),
		RunS:    int(options.run / time.Second),
		Rounds:  options.rounds,
		options: options,
		started: time.Now(),
	}
	add := func(name string, system system, conditions any) {
		report := &systemReport{
			Conditions:    conditions,
			AtCommon:      []*trial{},
			Full:          []*trial{},
			Search:        []*trial{},
			NotComparable: []string{},
		}
		c.systems = append(c.systems, namedSystem{name, system, report})
	}
	add(nameAlthing, &althing{program: options.althing, data: options.data, accounts: options.accounts}, nil)
	for _, name := range []string{applicationKVStore, applicationEd25519} {
		setting, err := options.setting(name)
		if err != nil {
			return nil, err
		}
		about := options.report(name)
		c.CometBFT, c.Go = about.Version, about.Go
		add(name, setting, about.Conditions)
	}
	c.Althing, c.KVStore, c.Ed25519 = c.systems[0].report, c.systems[1].report, c.systems[2].report
	return c, nil
}

// findCandidate searches by short trials. One that fails for other reasons than its rate ends the comparison.
func (c *comparison) findCandidate(ctx context.Context, s namedSystem) error {
	best, err := c.options.search.run(func(rate int) (bool, error) {
		r := request{rate: rate, warmUp: c.options.shortWarmUp, run: c.options.shortRun}
		made, err := s.system.measure(ctx, r)
		if err != nil {
			return false, err
		}
		s.report.Search = append(s.report.Search, made)
		progress("%s at %d tx/s: keeps up: %v", s.name, rate, made.keepsUp())
		return made.keepsUp(), nil
	})
	s.report.candidate = best
	return err
}

// fullTrials makes those of one round: at the common rate, and at the highest that is thought to be sustained.
func (c *comparison) fullTrials(ctx context.Context, s namedSystem) error {
	full := func(rate int) (*trial, error) {
		return s.system.measure(ctx, request{rate: rate, warmUp: c.options.warmUp, run: c.options.run})
	}
	made, err := full(c.options.common)
	if err != nil {
		return err
	}
	s.report.AtCommon = append(s.report.AtCommon, made)
	if s.report.candidate == 0 {
		return nil
	}
	if made, err = full(s.report.candidate); err != nil {
		return err
	}
	s.report.Full = append(s.report.Full, made)
	switch {
	case !made.Sustained:
		s.report.candidate = int(stepDown * float64(s.report.candidate))
	case s.report.MaxSustained == nil || made.OfferedTPS >= s.report.MaxSustained.OfferedTPS:
		s.report.MaxSustained = made
	}
	return nil
}

// finish completes the report.
func (c *comparison) finish() {
	for _, s := range c.systems {
		for _, made := range slices.Concat(s.report.AtCommon, s.report.Full) {
			for _, reason := range made.NotComparable {
				s.report.NotComparable = append(s.report.NotComparable, fmt.Sprintf("at %d tx/s: %s", made.OfferedTPS, reason))
			}
		}
		if measured, ok := s.system.(*althing); ok {
			c.Commit = measured.commit
			s.report.Conditions = measured.conditions
			s.report.NotComparable = append(s.report.NotComparable, measured.buildProblems...)
		}
	}
}

// table shows full trials, or the reasons why they are no comparison.
func (c *comparison) table(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "system\toffered\tfinal tx/s\tsustained\tfinality P50/P95/P99 ms\tCPU s/1,000 tx\tRSS max MiB\tgap ms")
	for _, s := range c.systems {
		for _, made := range slices.Concat(s.report.AtCommon, s.report.Full) {
			fmt.Fprintf(table, "%s\t%d\t%.0f\t%v\t%s / %s / %s\t%.3f\t%.0f\t%d\n", s.name, made.OfferedTPS, made.FinalisedTPS,
				made.Sustained, shown(made.FinalityP50Ms), shown(made.FinalityP95Ms), shown(made.FinalityP99Ms),
				made.CPUSPer1000Tx, made.RSSMaxMiB, made.LongestGapMs)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, s := range c.systems {
		for _, reason := range s.report.NotComparable {
			fmt.Fprintf(out, "not comparable: %s %s\n", s.name, reason)
		}
	}
	_, err := fmt.Fprintf(out, "%d s; the report is in %s\n", int(time.Since(c.started).Seconds()), c.options.out)
	return err
}

func shown(milliseconds *float64) string {
	if milliseconds == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *milliseconds)
}
