package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/cometbft/cometbft/abci/example/kvstore"
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/libs/cli/flags"
	"github.com/cometbft/cometbft/libs/log"
	"github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
)

// Names of the applications.
const (
	applicationKVStore = "kvstore"
	applicationEd25519 = "ed25519"
)

// nodeCommand runs one validator until a signal, or until its standard input closes: so none outlives the process
// that started it, however that one ended.
func nodeCommand(ctx context.Context, arguments []string) error {
	options := flag.NewFlagSet("peers node", flag.ContinueOnError)
	path := options.String("plan", "", "`FILE` that describes the testnet")
	number := options.Int("number", 0, "which of its validators this is")
	if err := options.Parse(arguments); err != nil {
		return err
	}
	plan, err := readPlan(*path)
	if err != nil {
		return err
	}
	if *number < 0 || *number >= len(plan.Members) {
		return fmt.Errorf("there is no validator %d", *number)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return runValidator(ctx, plan.Application, plan.settings(*number))
}

func runValidator(ctx context.Context, application string, settings *config.Config) error {
	app, err := openApplication(application, settings.DBDir())
	if err != nil {
		return err
	}
	logger, err := flags.ParseLogLevel(settings.LogLevel, log.NewTMLogger(os.Stderr), config.DefaultLogLevel)
	if err != nil {
		return err
	}
	key, err := p2p.LoadNodeKey(settings.NodeKeyFile())
	if err != nil {
		return fmt.Errorf("failed to read the node's key: %w", err)
	}
	// Both applications need no lock around calls: the kvstore checks transactions without its state, ours has its own.
	validator, err := node.NewNode(ctx, settings,
		privval.LoadFilePV(settings.PrivValidatorKeyFile(), settings.PrivValidatorStateFile()),
		key, proxy.NewUnsyncLocalClientCreator(app), node.DefaultGenesisDocProviderFunc(settings),
		config.DefaultDBProvider, node.DefaultMetricsProvider(settings.Instrumentation), logger)
	if err != nil {
		return fmt.Errorf("failed to make the node: %w", err)
	}
	if err := validator.Start(); err != nil {
		return fmt.Errorf("failed to start the node: %w", err)
	}
	<-ctx.Done()
	if err := validator.Stop(); err != nil {
		return fmt.Errorf("failed to stop the node: %w", err)
	}
	validator.Wait()
	return nil
}

func openApplication(name, directory string) (abci.Application, error) {
	switch name {
	case applicationKVStore:
		return kvstore.NewPersistentApplication(directory), nil
	case applicationEd25519:
		return openLedger(directory)
	default:
		return nil, fmt.Errorf("there is no application %q", name)
	}
}
