package retry_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

func TestDelaysDoubleUpToTheBound(t *testing.T) {
	for _, c := range []struct {
		name    string
		backoff retry.Backoff
		want    []time.Duration
	}{
		{"the least of equal jitter", retry.Backoff{First: 2, Max: 13, Rand: func() float64 { return 0 }}, []time.Duration{1, 2, 4, 6, 6}},
		{"the middle of equal jitter", retry.Backoff{First: 8, Max: 40, Rand: func() float64 { return 0.5 }}, []time.Duration{6, 12, 24, 30, 30}},
		{"the least of full jitter", retry.Backoff{First: 2, Max: 13, Jitter: retry.Full, Rand: func() float64 { return 0 }}, []time.Duration{0, 0, 0, 0, 0}},
		{"the middle of full jitter", retry.Backoff{First: 8, Max: 40, Jitter: retry.Full, Rand: func() float64 { return 0.5 }}, []time.Duration{4, 8, 16, 20, 20}},
		{"a first delay beyond the bound", retry.Backoff{First: 100, Max: 10, Rand: func() float64 { return 0 }}, []time.Duration{5, 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n, want := range c.want {
				require.Equal(t, want, c.backoff.Delay(n), "after %d failures before", n)
			}
		})
	}
}

func TestDelayLiesWithinItsJitterHoweverOftenItFailed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := retry.Backoff{
			First: time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "first")),
			Max:   time.Duration(rapid.Int64Range(1, int64(24*time.Hour)).Draw(t, "max")),
		}
		if rapid.Bool().Draw(t, "full") {
			b.Jitter = retry.Full
		}
		n := rapid.IntRange(0, 1_000_000).Draw(t, "n")
		most := time.Duration(min(float64(b.First)*math.Pow(2, float64(n)), float64(b.Max)))
		least := most / 2
		if b.Jitter == retry.Full {
			least = 0
		}
		d := b.Delay(n)
		require.True(t, least <= d && d <= most, "%s is not from %s to %s", d, least, most)
	})
}

func TestSleepEndsWithTheCauseOfTheContext(t *testing.T) {
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	require.NoError(t, retry.Sleep(ctx, 0))
	cancel(stopped)
	require.ErrorIs(t, retry.Sleep(ctx, time.Hour), stopped)
	require.ErrorIs(t, retry.Backoff{First: time.Hour, Max: time.Hour}.Sleep(ctx, 0), stopped)
}
