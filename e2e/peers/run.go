package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// applicationReport is what `run` writes: of one application, with the names of Althing's report.
type applicationReport struct {
	Application   string     `json:"application"`
	Version       string     `json:"version"`
	Go            string     `json:"go"`
	Machine       machine    `json:"machine"`
	Conditions    conditions `json:"conditions"`
	MaxSustained  *trial     `json:"max_sustained"`
	Trials        []*trial   `json:"trials"`
	NotComparable []string   `json:"not_comparable"`
}

// conditions under which the nodes run.
type conditions struct {
	Nodes            int  `json:"nodes"`
	Accounts         int  `json:"accounts"`
	VerifySignatures bool `json:"verify_signatures"`
	MTLS             bool `json:"mtls"`
	// Fsync: CometBFT syncs its log of consensus and its block store; only the ed25519 application syncs its state, too.
	Fsync        string `json:"fsync"`
	CommitWaitMs int64  `json:"commit_wait_ms"`
}

// loadOptions are those that `run` and `compare` share.
type loadOptions struct {
	accounts   int
	commitWait time.Duration
	data       string
	warmUp     time.Duration
	run        time.Duration
	out        string
}

func (o *loadOptions) register(flags *flag.FlagSet, warmUp, run time.Duration, out string) {
	flags.IntVar(&o.accounts, "accounts", 100_000, "accounts of the ed25519 application that take turns")
	flags.DurationVar(&o.commitWait, "commit-wait", 100*time.Millisecond,
		"CometBFT's timeout_commit; 0 makes the next block as soon as possible")
	flags.StringVar(&o.data, "data", "target/bench/peers", "`DIRECTORY` for the nodes, on the disk that is to be measured")
	flags.DurationVar(&o.warmUp, "warm-up", warmUp, "load before the measured time, whole seconds")
	flags.DurationVar(&o.run, "run", run, "measured time, whole seconds")
	flags.StringVar(&o.out, "out", out, "write the report to this `FILE`")
}

func (o *loadOptions) check() error {
	for name, value := range map[string]time.Duration{"warm-up": o.warmUp, "run": o.run} {
		if value < 0 || value > time.Hour || value%time.Second != 0 {
			return fmt.Errorf("--%s is %v: it must be whole seconds, an hour at most", name, value)
		}
	}
	if o.run == 0 || o.commitWait < 0 || o.accounts < validators || o.accounts%validators != 0 {
		return errors.New("--run must be positive, --commit-wait must not be negative, --accounts a multiple of 4")
	}
	return nil
}

func (o *loadOptions) setting(application string) (*setting, error) {
	corpus, err := newCorpus(application, o.accounts)
	if err != nil {
		return nil, err
	}
	return &setting{application: application, corpus: corpus, directory: o.data, commitWait: o.commitWait}, nil
}

// runCommand makes trials of one application: at the rates that are given, or a search.
func runCommand(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("peers run", flag.ContinueOnError)
	application := flags.String("app", "", "kvstore or ed25519")
	list := flags.String("rates", "1000", "transactions a second, separated by commas; `search` searches the most sustained")
	var options loadOptions
	options.register(flags, 10*time.Second, 30*time.Second, "")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if err := options.check(); err != nil {
		return err
	}
	setting, err := options.setting(*application)
	if err != nil {
		return err
	}
	report := options.report(*application)
	measure := func(rate int) (*trial, error) {
		made, err := setting.measure(ctx, request{rate: rate, warmUp: options.warmUp, run: options.run})
		if err == nil {
			report.Trials = append(report.Trials, made)
			progress("%s at %d tx/s: %v tx/s final, sustained: %v", *application, rate, made.FinalisedTPS, made.Sustained)
		}
		return made, err
	}
	if *list == "search" {
		_, err := defaultSearch.run(func(rate int) (bool, error) {
			made, err := measure(rate)
			if err != nil || !made.Sustained {
				return false, err
			}
			report.MaxSustained = made
			return true, nil
		})
		if err != nil {
			return err
		}
	} else {
		rates, err := parseRates(*list)
		if err != nil {
			return err
		}
		for _, rate := range rates {
			if _, err := measure(rate); err != nil {
				return err
			}
		}
	}
	report.judge()
	return write(report, options.out)
}

func (o *loadOptions) report(application string) *applicationReport {
	report := &applicationReport{
		Application: application,
		Version:     cometbftVersion(),
		Go:          runtime.Version(),
		Machine:     currentMachine(),
		Conditions: conditions{
			Nodes:        validators,
			Fsync:        "consensus and blocks",
			CommitWaitMs: o.commitWait.Milliseconds(),
		},
		Trials:        []*trial{},
		NotComparable: []string{},
	}
	if application == applicationEd25519 {
		report.Conditions.Accounts = o.accounts
		report.Conditions.VerifySignatures = true
		report.Conditions.Fsync = "consensus, blocks and state"
	}
	return report
}

func (r *applicationReport) judge() {
	for _, made := range r.Trials {
		for _, reason := range made.NotComparable {
			r.NotComparable = append(r.NotComparable, fmt.Sprintf("at %d tx/s: %s", made.OfferedTPS, reason))
		}
	}
}

func parseRates(list string) ([]int, error) {
	var rates []int
	for word := range strings.SplitSeq(list, ",") {
		rate, err := strconv.Atoi(word)
		if err != nil || rate < 1 || rate > 1_000_000 {
			return nil, fmt.Errorf("%q is no rate: it must be 1 to 1000000 transactions a second", word)
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

// cometbftVersion is that of the module that was built in.
func cometbftVersion() string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/cometbft/cometbft" {
				return module.Version
			}
		}
	}
	return "unknown"
}

// write prints a report, and writes it to the file if one is named.
func write(report any, path string) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if path == "" {
		_, err := os.Stdout.Write(text)
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
