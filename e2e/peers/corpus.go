package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"

	"github.com/cometbft/cometbft/crypto/ed25519"
)

// corpus holds the transactions of trials, made before the load. Transaction i does not depend on the rate, and every
// trial has a chain of its own, so all trials of an application share one corpus that grows.
type corpus struct {
	make         func(index int) ([]byte, error)
	transactions [][]byte
	indexes      map[transactionID]int32
}

// transactionID is the beginning of a transaction's hash; whole transactions are compared where it is looked up.
type transactionID [8]byte

func idOf(transaction []byte) transactionID {
	hash := sha256.Sum256(transaction)
	return transactionID(hash[:8])
}

// newCorpus makes the keys of an application's accounts, if it has any.
func newCorpus(application string, accounts int) (*corpus, error) {
	c := &corpus{indexes: make(map[transactionID]int32)}
	switch application {
	case applicationKVStore:
		c.make = pair
	case applicationEd25519:
		keys := make([]ed25519.PrivKey, accounts)
		err := onAllCores(accounts, func(number int) error {
			keys[number] = ed25519.GenPrivKeyFromSecret(fmt.Appendf(nil, "althing peers account %d", number))
			return nil
		})
		if err != nil {
			return nil, err
		}
		c.make = func(index int) ([]byte, error) { return signed(keys, index) }
	default:
		return nil, fmt.Errorf("there is no application %q", application)
	}
	return c, nil
}

// grow makes sure that there are so many transactions.
func (c *corpus) grow(count int) error {
	first := len(c.transactions)
	if count <= first {
		return nil
	}
	made := make([][]byte, count-first)
	err := onAllCores(len(made), func(number int) (err error) {
		made[number], err = c.make(first + number)
		return err
	})
	if err != nil {
		return fmt.Errorf("failed to make transactions: %w", err)
	}
	for number, transaction := range made {
		id := idOf(transaction)
		if _, taken := c.indexes[id]; taken {
			return fmt.Errorf("transaction %d cannot be told from another one", first+number)
		}
		c.indexes[id] = int32(first + number)
	}
	c.transactions = append(c.transactions, made...)
	return nil
}

// index finds a transaction again.
func (c *corpus) index(transaction []byte) (int, bool) {
	index, ok := c.indexes[idOf(transaction)]
	return int(index), ok && bytes.Equal(c.transactions[index], transaction)
}

// pair is a new key with a value, as the kvstore takes it: with exactly one `=`.
func pair(index int) ([]byte, error) {
	transaction := make([]byte, 0, transactionBytes+sha256.Size)
	transaction = fmt.Appendf(transaction, "bench-%012d=", index)
	for block := 0; len(transaction) < transactionBytes; block++ {
		seed := binary.BigEndian.AppendUint64(nil, uint64(index))
		hash := sha256.Sum256(binary.BigEndian.AppendUint64(seed, uint64(block)))
		for _, value := range hash {
			transaction = append(transaction, 'a'+value%26)
		}
	}
	return transaction[:transactionBytes], nil
}

// signed is a transfer; accounts take turns, as in Althing's benchmark.
func signed(keys []ed25519.PrivKey, index int) ([]byte, error) {
	sender := index % len(keys)
	receiver := (sender*7_919 + 1) % len(keys)
	return transfer{
		from:   address(keys[sender].PubKey().Bytes()),
		to:     address(keys[receiver].PubKey().Bytes()),
		nonce:  uint64(index / len(keys)),
		amount: 1,
	}.sign(keys[sender])
}

// onAllCores calls work for 0 to count, and returns one of its errors.
func onAllCores(count int, work func(number int) error) error {
	threads := runtime.GOMAXPROCS(0)
	errs := make([]error, threads)
	var group sync.WaitGroup
	for thread := range threads {
		group.Go(func() {
			for number := thread; number < count && errs[thread] == nil; number += threads {
				errs[thread] = work(number)
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
