package main

// search is a bounded search for the highest rate that is sustained: doubling, then halving the range that is left.
type search struct {
	low, high int
	trialsMax int
}

const (
	// searchPrecision: between two rates closer than this share of the lower one the search ends.
	searchPrecision = 0.08
	// searchStep: only multiples of it are tried after the first rates.
	searchStep = 100
)

// run returns the highest rate that was sustained, 0 when not even the lowest was.
func (s search) run(sustained func(rate int) (bool, error)) (int, error) {
	best, tooMuch := 0, 0
	for range s.trialsMax {
		rate := s.next(best, tooMuch)
		if rate == 0 {
			break
		}
		ok, err := sustained(rate)
		if err != nil {
			return best, err
		}
		if ok {
			best = rate
		} else {
			tooMuch = rate
		}
	}
	return best, nil
}

// next is the rate to try, 0 when there is nothing left to learn.
func (s search) next(best, tooMuch int) int {
	switch {
	case best == 0 && tooMuch == 0:
		return s.low
	case best == 0 || best >= s.high:
		return 0
	case tooMuch == 0:
		return min(2*best, s.high)
	case float64(tooMuch-best) <= searchPrecision*float64(best):
		return 0
	}
	middle := (best + tooMuch) / 2 / searchStep * searchStep
	if middle <= best {
		return 0
	}
	return middle
}

// defaultSearch covers what one machine can do.
var defaultSearch = search{low: 1_000, high: 32_000, trialsMax: 9}
