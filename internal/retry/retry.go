// Package retry says how long to wait before the next try of what an outage, a
// race or a full disk made fail.
//
// Delays double up to a bound, and chance spreads them, so that those that
// failed together do not come back together. The two kinds of jitter are those
// of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
//
// The loop, its log lines and what counts as success stay with the caller: no
// two of them agree. That is why cenkalti/backoff, which brings the loop, is not
// used.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Jitter is which part of a delay is left to chance.
type Jitter int

const (
	// Equal draws from the upper half of the delay: nobody tries at once
	// again. It is for what an outage made fail.
	Equal Jitter = iota
	// Full draws from the whole delay: two that met come furthest apart. It
	// is for what a race made fail.
	Full
)

// Backoff is a sequence of delays: First, twice that, and so on up to Max.
// It has no state and is safe for concurrent use if Rand is.
type Backoff struct {
	First, Max time.Duration
	Jitter     Jitter         // default Equal
	Rand       func() float64 // returns numbers in [0, 1). Default math/rand/v2
}

// Delay returns how long to wait after n failures before this one (n is 0 after
// the first). Max bounds it, also if First is greater.
func (b Backoff) Delay(n int) time.Duration {
	d := b.First
	for ; n > 0 && d < b.Max; n-- {
		d *= 2
	}
	d = min(d, b.Max)
	random := b.Rand
	if random == nil {
		random = rand.Float64
	}
	floor := d / 2
	if b.Jitter == Full {
		floor = 0
	}
	return floor + time.Duration(random()*float64(d-floor))
}

// Sleep waits for Delay(n), or returns ctx's cause if ctx ends first.
func (b Backoff) Sleep(ctx context.Context, n int) error {
	return Sleep(ctx, b.Delay(n))
}

// Sleep waits for d, or returns ctx's cause if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
