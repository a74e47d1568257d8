// Peers measures CometBFT, as a peer of Althing, under the same open-loop load and by the same rules as
// `althing-node bench` measures Althing: four validators on this machine, latency counted from the time at which a
// transaction is due.
//
//	peers run --app kvstore|ed25519 [options]      trials of one application
//	peers compare --althing PROGRAM [options]      Althing and both applications in turns
//	peers node --plan FILE --number N              one validator; `run` and `compare` start four of them
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: peers run --app kvstore|ed25519 [options]
       peers compare --althing PROGRAM [options]
       peers node --plan FILE --number N
Each has --help.`

func main() {
	// A second signal ends the process at once; its validators end when their standard input closes.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := dispatch(ctx, os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "peers: interrupted")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, arguments []string) error {
	if len(arguments) == 0 {
		return errors.New(usage)
	}
	switch arguments[0] {
	case "node":
		return nodeCommand(ctx, arguments[1:])
	case "run":
		return runCommand(ctx, arguments[1:])
	case "compare":
		return compareCommand(ctx, arguments[1:])
	default:
		return errors.New(usage)
	}
}
