package main

import (
	"testing"
	"time"
)

// beginning of all schedules here; no test looks at the clock.
var beginning = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func after(milliseconds int) time.Time {
	return beginning.Add(time.Duration(milliseconds) * time.Millisecond)
}

// observation is one of a load of 10 transactions a second: one second of warm-up, two seconds measured.
func observation(t *testing.T) *observed {
	t.Helper()
	corpus, err := newCorpus(applicationKVStore, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := request{rate: 10, warmUp: time.Second, run: 2 * time.Second}
	if err := corpus.grow(r.transactions()); err != nil {
		t.Fatal(err)
	}
	schedule := schedule{start: beginning, rate: r.rate}
	return &observed{
		request:  r,
		schedule: schedule,
		from:     after(1_000),
		to:       after(3_000),
		load:     newLoad(schedule, corpus, r.transactions()),
		finality: &finality{at: make([]time.Time, r.transactions())},
	}
}

func TestPercentilesAreThoseOfTheNearestRank(t *testing.T) {
	var latencies []time.Duration
	for number := 200; number > 0; number-- {
		latencies = append(latencies, time.Duration(number)*time.Millisecond)
	}
	for name, c := range map[string]struct {
		latencies     []time.Duration
		p50, p95, p99 float64
	}{
		"many": {latencies, 100, 190, 198},
		"one":  {[]time.Duration{1_540 * time.Microsecond}, 1.5, 1.5, 1.5},
		"two":  {[]time.Duration{4 * time.Millisecond, time.Millisecond}, 1, 4, 4},
	} {
		found := percentilesOf(c.latencies)
		if *found.p50 != c.p50 || *found.p95 != c.p95 || *found.p99 != c.p99 {
			t.Errorf("%s: %v / %v / %v", name, *found.p50, *found.p95, *found.p99)
		}
	}
	if found := percentilesOf(nil); found.p50 != nil || found.p99 != nil {
		t.Error("there are percentiles of nothing")
	}
}

func TestATransactionIsDueFromItsMomentOn(t *testing.T) {
	for _, rate := range []int{1, 3, 7, 1_000, 13_500} {
		schedule := schedule{start: beginning, rate: rate}
		for index := range 3 * rate {
			due := schedule.due(index)
			if count := schedule.countDue(due); count != index+1 {
				t.Fatalf("at %d a second %d are due when transaction %d is", rate, count, index)
			}
			if count := schedule.countDue(due.Add(-1)); count != index {
				t.Fatalf("at %d a second %d are due before transaction %d is", rate, count, index)
			}
		}
	}
}

// A generator or node that stands still must not hide how long transactions waited.
func TestLatencyCountsFromTheIntendedTime(t *testing.T) {
	o := observation(t)
	// Everything becomes final at once, half a second after the window: as if all had left late.
	for index := range o.finality.at {
		o.finality.at[index] = after(3_500)
	}
	// Transactions 10 to 29 are due in the window, at 1,000 to 2,900 ms.
	latencies := o.latencies(o.finality.at)
	if len(latencies) != 20 {
		t.Fatalf("%d transactions were due in the window", len(latencies))
	}
	found := percentilesOf(latencies)
	if *found.p50 != 1_500 || *found.p99 != 2_500 {
		t.Errorf("P50 %v, P99 %v", *found.p50, *found.p99)
	}
}

func TestARateIsSustainedByTheRulesOfAlthing(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(o *observed)
		sustained bool
		late      int
	}{
		"all in time":          {func(*observed) {}, true, 0},
		"one never final":      {func(o *observed) { o.finality.at[10] = time.Time{} }, false, 1},
		"one after the grace":  {func(o *observed) { o.finality.at[29] = after(5_001) }, false, 1},
		"one within the grace": {func(o *observed) { o.finality.at[29] = after(5_000) }, false, 0},
		"the warm-up late":     {func(o *observed) { o.finality.at[0] = after(9_000) }, true, 0},
		"one refused":          {func(o *observed) { o.load.note(3, "the mempool is full", after(0)) }, false, 0},
		"a block with failure": {func(o *observed) { o.finality.failures = 1 }, false, 0},
	} {
		o := observation(t)
		for index := range o.finality.at {
			o.finality.at[index] = o.schedule.due(index).Add(50 * time.Millisecond)
		}
		c.change(o)
		made := o.trial()
		if made.Sustained != c.sustained || made.Late != c.late {
			t.Errorf("%s: sustained %v, late %d, %v tx/s", name, made.Sustained, made.Late, made.FinalisedTPS)
		}
	}
}

func TestTheSearchEndsBetweenWhatIsSustainedAndWhatIsTooMuch(t *testing.T) {
	for _, c := range []struct{ most, found, trialsMax int }{
		{3_300, 3_300, 9},
		{7_900, 7_500, 9},
		{50_000, 20_000, 9},
		{999, 0, 9},
		{16_500, 8_000, 4},
	} {
		trials := 0
		found, err := search{low: 1_000, high: 20_000, trialsMax: c.trialsMax}.run(func(rate int) (bool, error) {
			trials++
			return rate <= c.most, nil
		})
		if err != nil || found != c.found || trials > c.trialsMax {
			t.Errorf("of %d it finds %d in %d trials", c.most, found, trials)
		}
	}
}
