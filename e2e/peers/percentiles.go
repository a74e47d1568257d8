package main

import (
	"slices"
	"time"
)

// percentiles of one latency, milliseconds with one decimal; nil of no latencies.
type percentiles struct {
	p50, p95, p99 *float64
}

// percentilesOf takes them by nearest rank, and sorts the latencies.
func percentilesOf(latencies []time.Duration) percentiles {
	slices.Sort(latencies)
	rank := func(percent int) *float64 {
		if len(latencies) == 0 {
			return nil
		}
		rank := max(1, (len(latencies)*percent+99)/100)
		value := rounded(float64(latencies[rank-1].Microseconds())/1_000, 10)
		return &value
	}
	return percentiles{rank(50), rank(95), rank(99)}
}
