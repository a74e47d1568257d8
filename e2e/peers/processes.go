package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	// stopTimeMax is how long a validator may take to end before it is killed.
	stopTimeMax = 10 * time.Second
	// logTailBytes of a validator's log are shown when it ends by itself.
	logTailBytes = 2_000
)

// processes are the running validators of a testnet.
type processes struct {
	ended    chan error
	children []*child
}

type child struct {
	command *exec.Cmd
	// lifeline is the validator's standard input: it ends when this closes, also when this process is killed.
	lifeline io.Closer
	gone     chan struct{}
}

// startProcesses starts the validators of the testnet in the directory.
func startProcesses(directory string, plan *plan) (*processes, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	started := &processes{ended: make(chan error, len(plan.Members))}
	for number, member := range plan.Members {
		path := filepath.Join(member.Home, "log")
		begun, err := startChild(program, filepath.Join(directory, planFile), number, path)
		if err != nil {
			started.stop()
			return nil, fmt.Errorf("failed to start node %d: %w", number, err)
		}
		started.children = append(started.children, begun)
		go func() {
			err := begun.command.Wait()
			close(begun.gone)
			started.ended <- fmt.Errorf("node %d ended (%v):\n%s", number, err, tail(path))
		}()
	}
	return started, nil
}

func startChild(program, planPath string, number int, logPath string) (*child, error) {
	output, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	command := exec.Command(program, "node", "--plan", planPath, "--number", strconv.Itoa(number))
	command.Stdout, command.Stderr = output, output
	// Ctrl-C is for this process alone, which then ends its children in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	lifeline, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		lifeline.Close()
		return nil, err
	}
	return &child{command: command, lifeline: lifeline, gone: make(chan struct{})}, nil
}

// watch gives a context that ends, with the reason, when a validator ends by itself.
func (p *processes) watch(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		select {
		case err := <-p.ended:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

func (p *processes) ids() []int {
	var ids []int
	for _, child := range p.children {
		ids = append(ids, child.command.Process.Pid)
	}
	return ids
}

// stop ends all validators and returns when none is left.
func (p *processes) stop() {
	for _, child := range p.children {
		child.lifeline.Close()
	}
	deadline := time.After(stopTimeMax)
	for _, child := range p.children {
		select {
		case <-child.gone:
			continue
		case <-deadline:
		}
		// Whoever did not end in time, and all who are waited for after it.
		for _, other := range p.children {
			_ = other.command.Process.Kill()
		}
		<-child.gone
	}
}

func tail(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(text[max(0, len(text)-logTailBytes):])
}
