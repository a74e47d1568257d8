package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	// benchTimeMax is what a trial of Althing may take beside its load: keys, signatures, start, answers, end.
	benchTimeMax = 4 * time.Minute
	// benchStopTimeMax is how long it may take to end when it is asked to.
	benchStopTimeMax = 20 * time.Second
)

// althing measures by `althing-node bench`, one process for each trial. Its validators end with it.
type althing struct {
	program, data string
	accounts      int

	// Of the last report.
	commit        string
	conditions    json.RawMessage
	buildProblems []string
}

// benchReport is what is read of the report of `althing-node bench`.
type benchReport struct {
	Commit string `json:"commit"`
	Build  struct {
		Profile string `json:"profile"`
	} `json:"build"`
	Conditions json.RawMessage `json:"conditions"`
	// At10000 is the trial at that rate; all other rates are in Trials.
	At10000 json.RawMessage   `json:"at_10000"`
	Trials  []json.RawMessage `json:"trials"`
}

func (a *althing) measure(ctx context.Context, r request) (*trial, error) {
	if err := os.MkdirAll(a.data, 0o755); err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp(a.data, nameAlthing+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	ctx, cancel := context.WithTimeout(ctx, r.warmUp+r.run+benchTimeMax)
	defer cancel()
	out := filepath.Join(directory, "report.json")
	command := exec.CommandContext(ctx, a.program, "bench",
		"--rates", strconv.Itoa(r.rate),
		"--warm-up", strconv.Itoa(int(r.warmUp/time.Second)),
		"--run", strconv.Itoa(int(r.run/time.Second)),
		"--accounts", strconv.Itoa(a.accounts),
		"--data", filepath.Join(directory, "network"),
		"--out", out)
	command.Stderr = os.Stderr
	// Ctrl-C is for this process alone, which then ends the benchmark.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = benchStopTimeMax
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("failed to measure %s at %d tx/s: %w", nameAlthing, r.rate, err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return a.take(text)
}

// take reads the report of one trial.
func (a *althing) take(text []byte) (*trial, error) {
	var report benchReport
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("failed to read the report of %s: %w", nameAlthing, err)
	}
	a.commit, a.conditions, a.buildProblems = report.Commit, report.Conditions, nil
	if report.Build.Profile != "release" {
		a.buildProblems = []string{fmt.Sprintf("the build profile is %s, not release", report.Build.Profile)}
	}
	raw := report.At10000
	if len(report.Trials) > 0 {
		raw = report.Trials[0]
	}
	type plain trial
	made := &plain{}
	if err := json.Unmarshal(raw, made); err != nil {
		return nil, fmt.Errorf("failed to read the trial of %s: %w", nameAlthing, err)
	}
	if made.OfferedTPS == 0 {
		return nil, fmt.Errorf("the report of %s has no trial", nameAlthing)
	}
	made.raw = raw
	return (*trial)(made), nil
}
