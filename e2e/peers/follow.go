package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/rpc/client/http"
	"github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/types"
)

const (
	// startTimeMax is how long a new testnet may take until all of its nodes announce blocks.
	startTimeMax = 60 * time.Second
	retryTime    = 100 * time.Millisecond
	// announcementsMax of one node that wait to be noted; more would be lost, which is an error.
	announcementsMax = 1_000
	subscriber       = "peers"
)

// follower hears every node announce its blocks. A node announces a block when it has committed and executed it. A block
// is final when every node has announced the same one: as in Althing's benchmark, but without a proof.
type follower struct {
	clients []*http.HTTP

	lock sync.Mutex
	// newest height that each node announced.
	newest []int64
	// first height that every node announced.
	first  int64
	blocks map[int64]*block
	// arrivals are when the first node announced each block.
	arrivals []time.Time
}

// block is one height as the nodes announced it.
type block struct {
	header *types.Header
	shown  int
	last   time.Time
}

// follow waits until every node announces blocks. Later problems end the context.
func follow(ctx context.Context, members []member, failed context.CancelCauseFunc) (*follower, error) {
	f := &follower{newest: make([]int64, len(members)), blocks: make(map[int64]*block)}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeMax, fmt.Errorf("the nodes make no blocks in %v", startTimeMax))
	defer cancel()
	for node, member := range members {
		client, err := connect(ctx, member)
		if err != nil {
			return nil, fmt.Errorf("failed to reach node %d: %w", node, err)
		}
		f.clients = append(f.clients, client)
		query := types.EventQueryNewBlockHeader.String()
		events, err := client.Subscribe(ctx, subscriber, query, announcementsMax)
		if err != nil {
			return nil, fmt.Errorf("failed to subscribe to blocks of node %d: %w", node, err)
		}
		go func() {
			for {
				select {
				case event := <-events:
					if err := f.note(node, event.Data, time.Now()); err != nil {
						failed(err)
						return
					}
				case <-client.Quit():
					return
				}
			}
		}()
	}
	for f.height() < 1 {
		if !sleepUntil(ctx, time.Now().Add(retryTime)) {
			return nil, context.Cause(ctx)
		}
	}
	return f, nil
}

// connect tries until the node listens.
func connect(ctx context.Context, member member) (*http.HTTP, error) {
	for {
		client, err := http.New("tcp://" + member.RPC)
		if err != nil {
			return nil, err
		}
		if client.Start() == nil {
			return client, nil
		}
		if !sleepUntil(ctx, time.Now().Add(retryTime)) {
			return nil, context.Cause(ctx)
		}
	}
}

func (f *follower) close() {
	for _, client := range f.clients {
		if client.IsRunning() {
			_ = client.Stop()
		}
	}
}

// note keeps one announcement. Nodes that announce different blocks, or leave one out, are an error.
func (f *follower) note(node int, data types.TMEventData, at time.Time) error {
	announced, ok := data.(types.EventDataNewBlockHeader)
	if !ok {
		return fmt.Errorf("node %d announces %T, not a block", node, data)
	}
	header := &announced.Header
	f.lock.Lock()
	defer f.lock.Unlock()
	if before := f.newest[node]; before != 0 && header.Height != before+1 {
		return fmt.Errorf("node %d announces block %d after block %d", node, header.Height, before)
	}
	if f.newest[node] == 0 {
		f.first = max(f.first, header.Height)
	}
	f.newest[node] = header.Height
	known := f.blocks[header.Height]
	if known == nil {
		known = &block{header: header}
		f.blocks[header.Height] = known
		f.arrivals = append(f.arrivals, at)
	}
	if !bytes.Equal(known.header.Hash(), header.Hash()) {
		return fmt.Errorf("node %d announces another block %d than the others", node, header.Height)
	}
	known.shown++
	known.last = at
	return nil
}

// height is the newest that every node announced.
func (f *follower) height() int64 {
	f.lock.Lock()
	defer f.lock.Unlock()
	newest := f.newest[0]
	for _, other := range f.newest {
		newest = min(newest, other)
	}
	return newest
}

// final gives a block that every node has announced.
func (f *follower) final(height int64) (header *types.Header, at time.Time, ok bool) {
	f.lock.Lock()
	defer f.lock.Unlock()
	known := f.blocks[height]
	if known == nil || known.shown < len(f.newest) {
		return nil, time.Time{}, false
	}
	return known.header, known.last, true
}

// longestGap is the longest time between two blocks in a row of which the second came after a moment.
func (f *follower) longestGap(from time.Time) time.Duration {
	f.lock.Lock()
	defer f.lock.Unlock()
	var longest time.Duration
	for number := 1; number < len(f.arrivals); number++ {
		if at := f.arrivals[number]; !at.Before(from) {
			longest = max(longest, at.Sub(f.arrivals[number-1]))
		}
	}
	return longest
}

// finality is what was found in final blocks.
type finality struct {
	// at is when each transaction of the corpus became final; zero when it did not.
	at []time.Time
	// count is how many did.
	count int
	// blocks with at least one transaction.
	blocks int
	// failures are blocks in which not every transaction was executed.
	failures int
}

// collect reads final blocks until the wanted number of transactions was found, or until the deadline. It begins after
// the load, so that reading costs the nodes nothing while they are measured.
func (f *follower) collect(ctx context.Context, load *load, deadline time.Time) (*finality, error) {
	found := &finality{at: make([]time.Time, load.count)}
	transactions := -1
	// The header after a block tells its results: one more than the last block that matters is looked at.
	for height := f.first; ; height++ {
		header, at, ok := f.final(height)
		for ; !ok; header, at, ok = f.final(height) {
			if time.Now().After(deadline) {
				return found, nil
			}
			if !sleepUntil(ctx, time.Now().Add(tick)) {
				return nil, context.Cause(ctx)
			}
		}
		if transactions > 0 && !bytes.Equal(header.LastResultsHash, allExecuted(transactions)) {
			found.failures++
		}
		_, refused := load.counts()
		if found.count+refused >= load.count {
			return found, nil
		}
		contents, err := f.read(ctx, header)
		if err != nil {
			return nil, err
		}
		transactions = len(contents)
		found.take(load.corpus, contents, at)
	}
}

// take notes the transactions of one final block.
func (found *finality) take(corpus *corpus, contents types.Txs, at time.Time) {
	if len(contents) > 0 {
		found.blocks++
	}
	for _, transaction := range contents {
		index, ok := corpus.index(transaction)
		if ok && index < len(found.at) && found.at[index].IsZero() {
			found.at[index] = at
			found.count++
		}
	}
}

// read fetches the transactions of a block from one of the nodes in turn, and checks that they are those of its header.
func (f *follower) read(ctx context.Context, header *types.Header) (types.Txs, error) {
	node := int(header.Height) % len(f.clients)
	answer, err := f.clients[node].Block(ctx, &header.Height)
	if err != nil {
		return nil, fmt.Errorf("failed to read block %d of node %d: %w", header.Height, node, err)
	}
	if !bytes.Equal(answer.Block.Data.Txs.Hash(), header.DataHash) {
		return nil, fmt.Errorf("node %d has other transactions in block %d than its header says", node, header.Height)
	}
	return answer.Block.Data.Txs, nil
}

// allExecuted is the hash of the results of so many transactions that all succeeded; both applications return nothing
// else that is hashed.
func allExecuted(transactions int) []byte {
	results := make([]*abci.ExecTxResult, transactions)
	for number := range results {
		results[number] = &abci.ExecTxResult{Code: abci.CodeTypeOK}
	}
	return state.TxResultsHash(results)
}
