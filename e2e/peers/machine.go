package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond of the clock in /proc: 100 on every Linux that matters here.
const ticksPerSecond = 100

// machine is what a measurement ran on.
type machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
}

func currentMachine() machine {
	found := machine{Processor: "unknown", Processors: runtime.NumCPU()}
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			found.Processor = strings.TrimSpace(value)
			break
		}
	}
	return found
}

// watched are the processes that are measured, and their directories of data.
type watched struct {
	ids         []int
	directories []string
}

// reading is what was spent until one moment.
type reading struct {
	at              time.Time
	nodes, own, all float64
	diskBytes       int64
}

// spent is what was spent between two moments: processor seconds, cores of others, bytes.
type spent struct {
	nodes, own, otherCores float64
	diskBytes              int64
}

func (w watched) read() (reading, error) {
	now := reading{at: time.Now()}
	for _, id := range w.ids {
		seconds, err := processSeconds(strconv.Itoa(id))
		if err != nil {
			return now, err
		}
		now.nodes += seconds
	}
	for _, directory := range w.directories {
		bytes, err := allocatedBytes(directory)
		if err != nil {
			return now, err
		}
		now.diskBytes += bytes
	}
	var err error
	if now.own, err = processSeconds("self"); err != nil {
		return now, err
	}
	now.all, err = machineSeconds()
	return now, err
}

func (r reading) until(later reading) spent {
	seconds := max(later.at.Sub(r.at).Seconds(), 0.001)
	nodes, own := later.nodes-r.nodes, later.own-r.own
	return spent{
		nodes:      nodes,
		own:        own,
		otherCores: max(0, (later.all-r.all-nodes-own)/seconds),
		diskBytes:  max(0, later.diskBytes-r.diskBytes),
	}
}

// rssMaxMiB is the largest resident size that any of the processes ever had.
func (w watched) rssMaxMiB() (float64, error) {
	var largest float64
	for _, id := range w.ids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", id))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "VmHWM:")
		var kib float64
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			return 0, fmt.Errorf("failed to read the memory of process %d: %w", id, err)
		}
		largest = max(largest, kib/1024)
	}
	return largest, nil
}

// processSeconds is user and system time of a process with all its threads.
func processSeconds(id string) (float64, error) {
	text, err := os.ReadFile("/proc/" + id + "/stat")
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
	return sum(strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])), 11, 12)
}

// machineSeconds is the time that all processors were busy; waiting for the disk, and what the hypervisor took, are not.
func machineSeconds() (float64, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	// cpu, user, nice, system, (idle, iowait,) irq, softirq.
	return sum(strings.Fields(line), 1, 2, 3, 6, 7)
}

func sum(fields []string, indexes ...int) (float64, error) {
	var ticks float64
	for _, index := range indexes {
		if index >= len(fields) {
			return 0, errors.New("failed to read /proc: too few fields")
		}
		value, err := strconv.ParseFloat(fields[index], 64)
		if err != nil {
			return 0, fmt.Errorf("failed to read /proc: %w", err)
		}
		ticks += value
	}
	return ticks / ticksPerSecond, nil
}

// allocatedBytes is what the files below a directory take on disk.
func allocatedBytes(directory string) (int64, error) {
	var bytes int64
	err := filepath.WalkDir(directory, func(_ string, entry fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil && !entry.IsDir() {
			info, err = entry.Info()
		}
		// A file that its owner removed meanwhile.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || info == nil {
			return err
		}
		if status, ok := info.Sys().(*syscall.Stat_t); ok {
			bytes += status.Blocks * 512
		}
		return nil
	})
	return bytes, err
}
