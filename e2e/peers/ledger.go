package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	dbm "github.com/cometbft/cometbft-db"
	abci "github.com/cometbft/cometbft/abci/types"
)

const (
	// beginningBalance is what every account has before its first transfer, so that genesis names none.
	beginningBalance = 1_000_000_000
	// verifiedMax bounds the memory for signatures that were verified and wait for their block: twice the mempool.
	verifiedMax = 2 * mempoolTransactionsMax
)

// Codes of refused transactions.
const (
	codeMalformed uint32 = iota + 1
	codeSignature
	codeNonce
	codeBalance
)

// ledger is the small ed25519 application: signed transfers between accounts with nonces. A node verifies each
// signature once, when it first sees the transaction. Its state hash is a chain over executed transactions: there is
// no tree, and nothing can be proved from it. Commit is durable: one synced batch a block.
type ledger struct {
	abci.BaseApplication
	db dbm.DB

	// CometBFT calls the connections of mempool and consensus at the same time.
	lock     sync.Mutex
	verified map[[sha256.Size]byte]struct{}
	accounts map[address]account
	changed  map[address]struct{}
	height   int64
	hash     [sha256.Size]byte
}

type account struct {
	balance, nonce uint64
}

var stateKey = []byte("state")

func openLedger(directory string) (*ledger, error) {
	db, err := dbm.NewPebbleDB("ledger", directory)
	if err != nil {
		return nil, fmt.Errorf("failed to open the database in %s: %w", directory, err)
	}
	l := &ledger{
		db:       db,
		verified: make(map[[sha256.Size]byte]struct{}),
		accounts: make(map[address]account),
		changed:  make(map[address]struct{}),
	}
	state, err := db.Get(stateKey)
	if err != nil {
		return nil, fmt.Errorf("failed to read the state in %s: %w", directory, err)
	}
	if len(state) == 8+sha256.Size {
		l.height = int64(binary.BigEndian.Uint64(state))
		l.hash = [sha256.Size]byte(state[8:])
	}
	return l, nil
}

func (l *ledger) Info(context.Context, *abci.InfoRequest) (*abci.InfoResponse, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return &abci.InfoResponse{LastBlockHeight: l.height, LastBlockAppHash: l.hash[:]}, nil
}

func (l *ledger) InitChain(context.Context, *abci.InitChainRequest) (*abci.InitChainResponse, error) {
	return &abci.InitChainResponse{AppHash: make([]byte, sha256.Size)}, nil
}

func (l *ledger) CheckTx(_ context.Context, request *abci.CheckTxRequest) (*abci.CheckTxResponse, error) {
	t, ok := parseTransfer(request.Tx)
	if !ok {
		return &abci.CheckTxResponse{Code: codeMalformed}, nil
	}
	if !l.verify(request.Tx) {
		return &abci.CheckTxResponse{Code: codeSignature}, nil
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	sender, err := l.account(t.from)
	if err != nil {
		return nil, err
	}
	if t.nonce < sender.nonce {
		return &abci.CheckTxResponse{Code: codeNonce}, nil
	}
	return &abci.CheckTxResponse{GasWanted: 1}, nil
}

func (l *ledger) ProcessProposal(_ context.Context, request *abci.ProcessProposalRequest) (*abci.ProcessProposalResponse, error) {
	for _, transaction := range request.Txs {
		if _, ok := parseTransfer(transaction); !ok || !l.verify(transaction) {
			return &abci.ProcessProposalResponse{Status: abci.PROCESS_PROPOSAL_STATUS_REJECT}, nil
		}
	}
	return &abci.ProcessProposalResponse{Status: abci.PROCESS_PROPOSAL_STATUS_ACCEPT}, nil
}

func (l *ledger) FinalizeBlock(_ context.Context, request *abci.FinalizeBlockRequest) (*abci.FinalizeBlockResponse, error) {
	results := make([]*abci.ExecTxResult, len(request.Txs))
	chain := sha256.New()
	chain.Write(l.hash[:])
	for number, transaction := range request.Txs {
		code, err := l.execute(transaction)
		if err != nil {
			return nil, err
		}
		results[number] = &abci.ExecTxResult{Code: code}
		chain.Write(binary.BigEndian.AppendUint32(nil, code))
		chain.Write(transaction)
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	chain.Sum(l.hash[:0])
	l.height = request.Height
	return &abci.FinalizeBlockResponse{TxResults: results, AppHash: append([]byte(nil), l.hash[:]...)}, nil
}

func (l *ledger) Commit(context.Context, *abci.CommitRequest) (*abci.CommitResponse, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	batch := l.db.NewBatch()
	defer batch.Close()
	for key := range l.changed {
		changed := l.accounts[key]
		value := binary.BigEndian.AppendUint64(nil, changed.balance)
		if err := batch.Set(accountKey(key), binary.BigEndian.AppendUint64(value, changed.nonce)); err != nil {
			return nil, err
		}
	}
	state := append(binary.BigEndian.AppendUint64(nil, uint64(l.height)), l.hash[:]...)
	if err := batch.Set(stateKey, state); err != nil {
		return nil, err
	}
	if err := batch.WriteSync(); err != nil {
		return nil, err
	}
	clear(l.changed)
	return &abci.CommitResponse{}, nil
}

// verify looks a well-formed transaction up among those verified before, and remembers it.
func (l *ledger) verify(transaction []byte) bool {
	id := sha256.Sum256(transaction)
	l.lock.Lock()
	_, known := l.verified[id]
	l.lock.Unlock()
	if known {
		return true
	}
	if !verifyTransfer(transaction) {
		return false
	}
	l.lock.Lock()
	if len(l.verified) < verifiedMax {
		l.verified[id] = struct{}{}
	}
	l.lock.Unlock()
	return true
}

// execute moves the amount, or says with a code why not. The error is one of the database.
func (l *ledger) execute(transaction []byte) (uint32, error) {
	t, ok := parseTransfer(transaction)
	if !ok {
		return codeMalformed, nil
	}
	if !l.verify(transaction) {
		return codeSignature, nil
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	// It has its block: from here its nonce keeps it out.
	delete(l.verified, sha256.Sum256(transaction))
	sender, err := l.account(t.from)
	if err != nil {
		return 0, err
	}
	if t.nonce != sender.nonce {
		return codeNonce, nil
	}
	if sender.balance < t.amount {
		return codeBalance, nil
	}
	sender.nonce++
	sender.balance -= t.amount
	l.accounts[t.from] = sender
	// Read after the sender is written: both may be the same.
	receiver, err := l.account(t.to)
	if err != nil {
		return 0, err
	}
	receiver.balance += t.amount
	l.accounts[t.to] = receiver
	l.changed[t.from], l.changed[t.to] = struct{}{}, struct{}{}
	return abci.CodeTypeOK, nil
}

// account reads one through the cache; the lock is held.
func (l *ledger) account(key address) (account, error) {
	if known, ok := l.accounts[key]; ok {
		return known, nil
	}
	value, err := l.db.Get(accountKey(key))
	if err != nil {
		return account{}, err
	}
	found := account{balance: beginningBalance}
	if len(value) == 16 {
		found = account{balance: binary.BigEndian.Uint64(value), nonce: binary.BigEndian.Uint64(value[8:])}
	}
	return found, nil
}

func accountKey(key address) []byte {
	return append([]byte("account/"), key[:]...)
}
