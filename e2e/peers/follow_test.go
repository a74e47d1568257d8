package main

import (
	"bytes"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/types"
)

func announced(height int64, data string) types.EventDataNewBlockHeader {
	return types.EventDataNewBlockHeader{Header: types.Header{
		Height:         height,
		DataHash:       []byte(data),
		ValidatorsHash: []byte("validators"),
	}}
}

func newFollower() *follower {
	return &follower{newest: make([]int64, 2), blocks: make(map[int64]*block)}
}

func TestABlockIsFinalWhenTheLastNodeAnnouncesIt(t *testing.T) {
	f := newFollower()
	for _, step := range []struct {
		node   int
		height int64
		at     int
	}{{0, 4, 0}, {0, 5, 100}, {1, 5, 130}, {0, 6, 400}, {1, 6, 210}} {
		if err := f.note(step.node, announced(step.height, "same"), after(step.at)); err != nil {
			t.Fatal(err)
		}
	}
	if f.first != 5 {
		t.Errorf("the first block that both announced is %d", f.first)
	}
	if _, _, ok := f.final(4); ok {
		t.Error("a block of one node is final")
	}
	if _, at, ok := f.final(5); !ok || !at.Equal(after(130)) {
		t.Errorf("block 5 is final at %v", at)
	}
	if gap := f.longestGap(after(50)); gap != 300*time.Millisecond {
		t.Errorf("the longest gap is %v", gap)
	}
}

func TestNodesThatContradictEachOtherAreAnError(t *testing.T) {
	f := newFollower()
	if err := f.note(0, announced(5, "one"), beginning); err != nil {
		t.Fatal(err)
	}
	if f.note(1, announced(5, "other"), beginning) == nil {
		t.Error("two blocks of one height are accepted")
	}
	if f.note(0, announced(7, "one"), beginning) == nil {
		t.Error("a block that was left out is accepted")
	}
}

func TestTransactionsAreFoundInBlocksOnce(t *testing.T) {
	for _, application := range []string{applicationKVStore, applicationEd25519} {
		corpus, err := newCorpus(application, 4)
		if err != nil {
			t.Fatal(err)
		}
		// In two steps, as the corpus of a second trial is made.
		for _, count := range []int{3, 9} {
			if err := corpus.grow(count); err != nil {
				t.Fatal(err)
			}
		}
		found := &finality{at: make([]time.Time, 8)}
		changed := append([]byte(nil), corpus.transactions[0]...)
		changed[transactionBytes-1]++
		// One that is not ours, one of a longer trial, one twice.
		found.take(corpus, types.Txs{corpus.transactions[5], changed, corpus.transactions[8]}, after(10))
		found.take(corpus, types.Txs{corpus.transactions[5], corpus.transactions[7]}, after(20))
		found.take(corpus, nil, after(30))
		if found.count != 2 || found.blocks != 2 {
			t.Errorf("%s: %d transactions in %d blocks", application, found.count, found.blocks)
		}
		if !found.at[5].Equal(after(10)) || !found.at[7].Equal(after(20)) || !found.at[0].IsZero() {
			t.Errorf("%s: final at %v", application, found.at)
		}
	}
}

func TestAFailedTransactionChangesTheHashOfResults(t *testing.T) {
	results := []*abci.ExecTxResult{{Code: abci.CodeTypeOK, Events: []abci.Event{{Type: "app"}}}, {Code: abci.CodeTypeOK}}
	if !bytes.Equal(state.TxResultsHash(results), allExecuted(2)) {
		t.Error("results without failure have another hash")
	}
	results[1].Code = codeNonce
	if bytes.Equal(state.TxResultsHash(results), allExecuted(2)) {
		t.Error("a failure is not seen")
	}
}

func TestAnswersAreReadAsAListAndAlone(t *testing.T) {
	const good = `{"jsonrpc":"2.0","id":3,"result":{"code":0,"log":""}}`
	const full = `{"jsonrpc":"2.0","id":4,"error":{"code":-32603,"message":"Internal error","data":"mempool is full"}}`
	many, err := parseAnswers([]byte("[" + good + "," + full + "]"))
	if err != nil || len(many) != 2 || many[0].problem() != "" || many[1].problem() != "Internal error: mempool is full" {
		t.Errorf("%v %v", many, err)
	}
	one, err := parseAnswers([]byte(good))
	if err != nil || len(one) != 1 || one[0].ID != 3 {
		t.Errorf("%v %v", one, err)
	}
	if _, err := parseAnswers([]byte("too many requests")); err == nil {
		t.Error("text is taken for an answer")
	}
}
