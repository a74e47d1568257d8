package main

import (
	"encoding/binary"

	"github.com/cometbft/cometbft/crypto/ed25519"
)

// transactionBytes is the size of every transaction here: that of a signed transfer of Althing, so that all move as
// many bytes.
const transactionBytes = 222

// A transfer of the ed25519 application: the sender's public key, nonce, the receiver's key, amount, filling, signature.
const (
	nonceAt     = ed25519.PubKeySize
	receiverAt  = nonceAt + 8
	amountAt    = receiverAt + ed25519.PubKeySize
	signatureAt = transactionBytes - ed25519.SignatureSize
)

// address names an account: its public key.
type address [ed25519.PubKeySize]byte

// transfer is the meaning of a transaction.
type transfer struct {
	from, to address
	nonce    uint64
	amount   uint64
}

// sign makes the transaction.
func (t transfer) sign(key ed25519.PrivKey) ([]byte, error) {
	transaction := make([]byte, signatureAt, transactionBytes)
	copy(transaction, t.from[:])
	binary.BigEndian.PutUint64(transaction[nonceAt:], t.nonce)
	copy(transaction[receiverAt:], t.to[:])
	binary.BigEndian.PutUint64(transaction[amountAt:], t.amount)
	signature, err := key.Sign(transaction)
	return append(transaction, signature...), err
}

// parseTransfer reads a transaction without verifying it. Bytes that are no transfer are refused.
func parseTransfer(transaction []byte) (transfer, bool) {
	if len(transaction) != transactionBytes {
		return transfer{}, false
	}
	return transfer{
		from:   address(transaction[:nonceAt]),
		nonce:  binary.BigEndian.Uint64(transaction[nonceAt:]),
		to:     address(transaction[receiverAt:amountAt]),
		amount: binary.BigEndian.Uint64(transaction[amountAt:]),
	}, true
}

// verifyTransfer says whether the sender signed the transaction, which must be one that parseTransfer reads. CometBFT's
// own verification: ZIP-215, as Althing's, and quicker than that of Go's library.
func verifyTransfer(transaction []byte) bool {
	key := ed25519.PubKey(transaction[:nonceAt])
	return key.VerifySignature(transaction[:signatureAt], transaction[signatureAt:])
}
