package retention_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/retention"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type fake struct {
	mu  sync.Mutex
	at  []time.Time
	h   store.Horizons
	n   int
	err error
}

func (f *fake) Expire(_ context.Context, h store.Horizons, batch int) (store.Expired, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.h, f.n = append(f.at, time.Now()), h, batch
	return store.Expired{"attribute_change": 3, "session_gap": 0}, f.err
}

const day = 24 * time.Hour

func TestKeep(t *testing.T) {
	var k retention.Keep
	require.NoError(t, k.Check())
	require.Equal(t, retention.Keep{History: 90 * day, Tombstones: 30 * day, ClosedSessions: 180 * day, Kafka: 7 * day}, k)

	k = retention.Keep{Tombstones: 6 * day}
	require.EqualError(t, k.Check(), "tombstones of 6d is less than the 7d that Kafka keeps records: a replay could need what has been deleted")
	k = retention.Keep{Kafka: 365 * day}
	require.ErrorContains(t, k.Check(), "closed-sessions of 180d is less than the 365d")
	k = retention.Keep{Kafka: time.Hour, History: 90 * time.Minute}
	require.NoError(t, k.Check())
	k = retention.Keep{Kafka: -1}
	require.Error(t, k.Check())
}

func TestPass(t *testing.T) {
	f := &fake{}
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	registry := prometheus.NewRegistry()
	r, err := retention.New(retention.Options{Store: f, Now: func() time.Time { return now }, Registerer: registry, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	gone, err := r.Pass(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(3), gone["attribute_change"])
	require.Equal(t, store.Horizons{History: now.Add(-90 * day), Tombstones: now.Add(-30 * day), Closed: now.Add(-180 * day)}, f.h)
	require.Equal(t, 5000, f.n)
	families, err := registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Equal(t, []string{"rollcall_retention_deleted_rows_total", "rollcall_retention_last_success_timestamp_seconds", "rollcall_retention_pass_seconds", "rollcall_retention_passes_total"}, names)

	_, err = retention.New(retention.Options{})
	require.ErrorContains(t, err, "Store")
	_, err = retention.New(retention.Options{Store: f, Keep: retention.Keep{History: time.Hour}})
	require.ErrorContains(t, err, "history")
}

// A pass comes every so often, sooner after one that failed; readiness tells of
// that one.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{err: errors.New("connection refused")}
		r, err := retention.New(retention.Options{Store: f, Every: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		require.NoError(t, r.Ready())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		begun := time.Now()
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		require.ErrorContains(t, r.Ready(), "connection refused")
		f.mu.Lock()
		f.err = nil
		f.mu.Unlock()
		time.Sleep(61*time.Minute + time.Second)
		synctest.Wait()
		require.NoError(t, r.Ready())
		require.Equal(t, []time.Duration{0, time.Minute, 61 * time.Minute}, []time.Duration{f.at[0].Sub(begun), f.at[1].Sub(begun), f.at[2].Sub(begun)})
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}
