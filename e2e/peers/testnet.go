package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/types"
)

const (
	validators      = 4
	validatorPower  = 10
	chainID         = "peers"
	planFile        = "plan.json"
	directoryMode   = 0o700
	fileMode        = 0o600
	blockBytesMax   = 16 << 20
	messageBytesMax = 64 << 10
	bandwidthMax    = 200_000_000
	batchMax        = 200

	mempoolTransactionsMax = 100_000
	mempoolBytesMax        = 128 << 20
)

// plan is what every process of a testnet knows of it, in one file.
type plan struct {
	Application string        `json:"application"`
	CommitWait  time.Duration `json:"commit_wait"`
	Members     []member      `json:"members"`
}

// member is one validator of a testnet.
type member struct {
	Home string `json:"home"`
	ID   string `json:"id"`
	P2P  string `json:"p2p"`
	RPC  string `json:"rpc"`
}

// makeTestnet writes keys, genesis and plan of four validators into the directory.
func makeTestnet(directory, application string, commitWait time.Duration) (*plan, error) {
	addresses, err := freeAddresses(2 * validators)
	if err != nil {
		return nil, fmt.Errorf("failed to find free ports: %w", err)
	}
	made := &plan{Application: application, CommitWait: commitWait}
	genesis := types.GenesisDoc{ChainID: chainID, GenesisTime: time.Now(), ConsensusParams: types.DefaultConsensusParams()}
	genesis.ConsensusParams.Block.MaxBytes = blockBytesMax
	for number := range validators {
		home := filepath.Join(directory, fmt.Sprintf("node-%d", number))
		settings := config.DefaultConfig().SetRoot(home)
		for _, folder := range []string{config.DefaultConfigDir, config.DefaultDataDir} {
			if err := os.MkdirAll(filepath.Join(home, folder), directoryMode); err != nil {
				return nil, err
			}
		}
		key, err := p2p.LoadOrGenNodeKey(settings.NodeKeyFile())
		if err != nil {
			return nil, fmt.Errorf("failed to make the key of node %d: %w", number, err)
		}
		signer, err := privval.GenFilePV(settings.PrivValidatorKeyFile(), settings.PrivValidatorStateFile(), nil)
		if err != nil {
			return nil, fmt.Errorf("failed to make the key of validator %d: %w", number, err)
		}
		signer.Save()
		genesis.Validators = append(genesis.Validators, genesisValidator(signer.Key.PubKey, number))
		made.Members = append(made.Members, member{
			Home: home,
			ID:   string(key.ID()),
			P2P:  addresses[2*number],
			RPC:  addresses[2*number+1],
		})
	}
	if err := genesis.ValidateAndComplete(); err != nil {
		return nil, fmt.Errorf("failed to make genesis: %w", err)
	}
	for _, member := range made.Members {
		if err := genesis.SaveAs(config.DefaultConfig().SetRoot(member.Home).GenesisFile()); err != nil {
			return nil, fmt.Errorf("failed to write genesis: %w", err)
		}
	}
	text, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		return nil, err
	}
	return made, os.WriteFile(filepath.Join(directory, planFile), text, fileMode)
}

func genesisValidator(key crypto.PubKey, number int) types.GenesisValidator {
	return types.GenesisValidator{
		Address: key.Address(),
		PubKey:  key,
		Power:   validatorPower,
		Name:    fmt.Sprintf("node-%d", number),
	}
}

// readPlan reads the file that makeTestnet wrote.
func readPlan(path string) (*plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	read := &plan{}
	if err := json.Unmarshal(text, read); err != nil {
		return nil, fmt.Errorf("failed to read %s: %w", path, err)
	}
	return read, nil
}

// settings are CometBFT's defaults with what lets four validators on one machine go faster. The defaults sustain a
// quarter of this.
func (p *plan) settings(number int) *config.Config {
	own := p.Members[number]
	var peers []string
	for other, member := range p.Members {
		if other != number {
			peers = append(peers, member.ID+"@"+member.P2P)
		}
	}
	settings := config.DefaultConfig().SetRoot(own.Home)
	settings.Moniker = fmt.Sprintf("node-%d", number)
	settings.LogLevel = "error"

	// Blocks follow each other as quickly as votes do, or after a fixed wait, which makes fewer and larger ones.
	settings.Consensus.TimeoutCommit = p.CommitWait
	settings.Consensus.SkipTimeoutCommit = p.CommitWait == 0
	settings.Consensus.PeerGossipSleepDuration = 5 * time.Millisecond

	// Room for seconds of load. Without a second check of waiting transactions after every block.
	settings.Mempool.Size = mempoolTransactionsMax
	settings.Mempool.CacheSize = 2 * mempoolTransactionsMax
	settings.Mempool.MaxTxsBytes = mempoolBytesMax
	settings.Mempool.Recheck = false

	// Loopback has neither a limit of bandwidth nor peers to find.
	settings.P2P.ListenAddress = "tcp://" + own.P2P
	settings.P2P.PersistentPeers = strings.Join(peers, ",")
	settings.P2P.SendRate = bandwidthMax
	settings.P2P.RecvRate = bandwidthMax
	settings.P2P.MaxPacketMsgPayloadSize = messageBytesMax
	settings.P2P.FlushThrottleTimeout = 5 * time.Millisecond
	settings.P2P.PexReactor = false
	settings.P2P.AddrBookStrict = false
	settings.P2P.AllowDuplicateIP = true

	settings.RPC.ListenAddress = "tcp://" + own.RPC
	settings.RPC.MaxRequestBatchSize = batchMax

	// Nobody asks for transactions by hash, or for results again.
	settings.TxIndex.Indexer = "null"
	settings.Storage.DiscardABCIResponses = true
	return settings
}

// freeAddresses finds ports on which nobody listens. All are taken before the first is given back, so they differ.
func freeAddresses(count int) ([]string, error) {
	var addresses []string
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}
