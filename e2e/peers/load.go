package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// tick is how often the transactions that are due leave, as in Althing's benchmark.
	tick = 5 * time.Millisecond
	// connectionsPerNode that wait for answers at the same time.
	connectionsPerNode = 4
	// answerTimeMax is how long one answer may take; then its transactions count as refused.
	answerTimeMax  = 20 * time.Second
	answerBytesMax = 1 << 20
)

// schedule says when each transaction is due.
type schedule struct {
	start time.Time
	rate  int
}

func (s schedule) due(index int) time.Time {
	return s.start.Add(time.Duration(int64(index) * int64(time.Second) / int64(s.rate)))
}

// countDue is how many are due at a moment: those for which due is not later.
func (s schedule) countDue(now time.Time) int {
	elapsed := int64(now.Sub(s.start))
	if elapsed < 0 {
		return 0
	}
	return int(((elapsed+1)*int64(s.rate)-1)/int64(time.Second)) + 1
}

// load sends the first `count` transactions of a corpus, transaction i to node i modulo the number of nodes. A node that
// takes no more makes later ones leave late, which counts as their latency.
type load struct {
	schedule schedule
	corpus   *corpus
	count    int

	lock     sync.Mutex
	sent     int
	accepted []time.Time
	refusals int
	// refusal is the reason of the first one.
	refusal string
}

func newLoad(schedule schedule, corpus *corpus, count int) *load {
	return &load{
		schedule: schedule,
		corpus:   corpus,
		count:    count,
		accepted: make([]time.Time, count),
	}
}

// run returns when everything was sent and answered, or the context ends.
func (l *load) run(ctx context.Context, members []member) {
	client := &http.Client{
		Timeout:   answerTimeMax,
		Transport: &http.Transport{MaxIdleConnsPerHost: connectionsPerNode, DisableCompression: true},
	}
	defer client.CloseIdleConnections()
	var group sync.WaitGroup
	for number, member := range members {
		share := &share{load: l, next: number, step: len(members)}
		for range connectionsPerNode {
			group.Go(func() {
				for indexes := share.take(ctx); len(indexes) > 0; indexes = share.take(ctx) {
					l.send(ctx, client, "http://"+member.RPC, indexes)
				}
			})
		}
	}
	group.Wait()
}

// share is the part of the load that goes to one node; its connections take from it in turns.
type share struct {
	load       *load
	lock       sync.Mutex
	next, step int
	left       time.Time
}

// take waits for the next transactions that are due: none when all have left or the context has ended.
func (s *share) take(ctx context.Context) []int {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.next >= s.load.count {
		return nil
	}
	at := s.load.schedule.due(s.next)
	if earliest := s.left.Add(tick); at.Before(earliest) {
		at = earliest
	}
	if !sleepUntil(ctx, at) {
		return nil
	}
	s.left = time.Now()
	due := min(s.load.schedule.countDue(s.left), s.load.count)
	var indexes []int
	for ; s.next < due && len(indexes) < batchMax; s.next += s.step {
		indexes = append(indexes, s.next)
	}
	return indexes
}

// send makes one JSON-RPC batch of transactions and notes the answers.
func (l *load) send(ctx context.Context, client *http.Client, url string, indexes []int) {
	l.lock.Lock()
	l.sent += len(indexes)
	l.lock.Unlock()
	answers, err := post(ctx, client, url, batch(l.corpus, indexes))
	now := time.Now()
	l.lock.Lock()
	defer l.lock.Unlock()
	waiting := make(map[int]struct{}, len(indexes))
	for _, index := range indexes {
		waiting[index] = struct{}{}
	}
	for _, answer := range answers {
		if _, asked := waiting[answer.ID]; asked {
			delete(waiting, answer.ID)
			l.note(answer.ID, answer.problem(), now)
		}
	}
	for index := range waiting {
		l.note(index, fmt.Sprintf("no answer: %v", err), now)
	}
}

// note keeps what became of one transaction; the lock is held.
func (l *load) note(index int, problem string, now time.Time) {
	if problem == "" {
		l.accepted[index] = now
		return
	}
	l.refusals++
	if l.refusal == "" {
		l.refusal = problem
	}
}

// counts are how many were sent and how many were refused until now.
func (l *load) counts() (sent, refused int) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.sent, l.refusals
}

// answer is that of a node to one transaction.
type answer struct {
	ID     int `json:"id"`
	Result struct {
		Code uint32 `json:"code"`
		Log  string `json:"log"`
	} `json:"result"`
	Error *struct {
		Message string `json:"message"`
		Data    string `json:"data"`
	} `json:"error"`
}

// problem is why the transaction was refused, empty if it was not.
func (a answer) problem() string {
	switch {
	case a.Error != nil:
		return a.Error.Message + ": " + a.Error.Data
	case a.Result.Code != 0:
		return fmt.Sprintf("code %d %s", a.Result.Code, a.Result.Log)
	default:
		return ""
	}
}

func batch(corpus *corpus, indexes []int) []byte {
	body := []byte{'['}
	for number, index := range indexes {
		if number > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"jsonrpc":"2.0","id":`...)
		body = strconv.AppendInt(body, int64(index), 10)
		body = append(body, `,"method":"broadcast_tx_sync","params":{"tx":"`...)
		body = base64.StdEncoding.AppendEncode(body, corpus.transactions[index])
		body = append(body, `"}}`...)
	}
	return append(body, ']')
}

func post(ctx context.Context, client *http.Client, url string, body []byte) ([]answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return nil, err
	}
	return parseAnswers(text)
}

// parseAnswers reads a list of answers, or the one that CometBFT gives instead of a list of one.
func parseAnswers(text []byte) ([]answer, error) {
	if len(text) > 0 && text[0] == '{' {
		var one answer
		err := json.Unmarshal(text, &one)
		return []answer{one}, err
	}
	var many []answer
	err := json.Unmarshal(text, &many)
	return many, err
}

// sleepUntil says whether the moment came before the context ended.
func sleepUntil(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
