package main

import (
	"context"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
)

func executeBlock(t *testing.T, l *ledger, height int64, transactions ...[]byte) []uint32 {
	t.Helper()
	ctx := context.Background()
	answer, err := l.FinalizeBlock(ctx, &abci.FinalizeBlockRequest{Height: height, Txs: transactions})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(ctx, &abci.CommitRequest{}); err != nil {
		t.Fatal(err)
	}
	var codes []uint32
	for _, result := range answer.TxResults {
		codes = append(codes, result.Code)
	}
	return codes
}

func TestTheLedgerExecutesWhatIsSignedAndInOrderAndKeepsIt(t *testing.T) {
	directory := t.TempDir()
	l, err := openLedger(directory)
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.GenPrivKeyFromSecret([]byte("one"))
	sender := address(key.PubKey().Bytes())
	receiver := address(ed25519.GenPrivKeyFromSecret([]byte("two")).PubKey().Bytes())
	sign := func(nonce, amount uint64) []byte {
		transaction, err := transfer{from: sender, to: receiver, nonce: nonce, amount: amount}.sign(key)
		if err != nil {
			t.Fatal(err)
		}
		return transaction
	}
	forged := sign(1, 5)
	forged[amountAt]++
	codes := executeBlock(t, l, 1, sign(0, 5), sign(0, 5), forged, []byte("short"), sign(1, beginningBalance), sign(1, 7))
	for number, code := range []uint32{0, codeNonce, codeSignature, codeMalformed, codeBalance, 0} {
		if codes[number] != code {
			t.Errorf("transaction %d has code %d, not %d", number, codes[number], code)
		}
	}
	for name, transaction := range map[string][]byte{"forged": forged, "short": []byte("short"), "repeated": sign(0, 5)} {
		answer, err := l.CheckTx(context.Background(), &abci.CheckTxRequest{Tx: transaction})
		if err != nil || answer.Code == 0 {
			t.Errorf("%s: %v %v", name, answer, err)
		}
	}
	hash := l.hash
	if err := l.db.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := openLedger(directory)
	if err != nil {
		t.Fatal(err)
	}
	defer again.db.Close()
	if again.height != 1 || again.hash != hash {
		t.Errorf("it comes back at height %d with hash %x", again.height, again.hash)
	}
	kept, err := again.account(sender)
	if err != nil || kept != (account{balance: beginningBalance - 12, nonce: 2}) {
		t.Errorf("the sender has %v", kept)
	}
}
