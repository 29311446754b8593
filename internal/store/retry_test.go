package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/store"
)

func TestRetryable(t *testing.T) {
	for code, want := range map[string]bool{
		"40001": true, "40P01": true, "55P03": true, "23503": true,
		"40003": false, // statement_completion_unknown: the caller applies again
		"22021": false, "23505": false, "57P01": false, "08006": false,
	} {
		err := fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code})
		require.Equal(t, want, store.Retryable(err), code)
	}
	require.False(t, store.Retryable(nil))
	require.False(t, store.Retryable(errors.New("connection reset by peer")))
	require.False(t, store.Retryable(context.Canceled))
}

// rival is a connection of somebody else who has locked the row of a session.
func rival(t *testing.T, url, session string) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), `SET deadlock_timeout = '1h'`) // never the one to find it
	require.NoError(t, err)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	touch(t, tx, session)
	return tx
}

func touch(t *testing.T, tx pgx.Tx, session string) {
	t.Helper()
	_, err := tx.Exec(t.Context(), `UPDATE device_session SET applied_at = now() WHERE session_id = $1`, session)
	require.NoError(t, err)
}

func awaitBlocked(t *testing.T, url string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return query[int](t, url, `SELECT count(*) FROM pg_locks WHERE NOT granted`) > 0
	}, 10*time.Second, 5*time.Millisecond)
}

// withRival has Apply meet another transaction, and returns how often it was
// tried again for the reason.
func withRival(t *testing.T, setting, reason string, meet func(t *testing.T, url string, other pgx.Tx)) float64 {
	t.Helper()
	first, url := open(t)
	a, b := newFeed(1), newFeed(2)
	if a.id > b.id {
		a, b = b, a
	}
	apply(t, first, a.update(a.opened(nil)), b.update(b.opened(nil)))
	registry := prometheus.NewPedanticRegistry()
	s, err := store.Open(t.Context(), store.Options{URL: url + "&" + setting, Registerer: registry})
	require.NoError(t, err)
	t.Cleanup(s.Close)

	other := rival(t, url, b.id)
	updates := []store.Update{b.update(b.delta(2, map[string]string{"x": `2`})), a.update(a.delta(2, map[string]string{"x": `1`}))}
	done := make(chan error, 1)
	go func() { done <- s.Apply(ctx, updates) }()
	awaitBlocked(t, url) // Apply holds a and waits for b
	meet(t, a.id, other)
	require.NoError(t, other.Commit(t.Context()))
	require.NoError(t, <-done)
	for _, f := range []*feed{a, b} {
		got, _ := load(t, s, f.id)
		sameState(t, f.state, got)
	}
	n := 0.0
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "rollcall_store_retries_total" && m.GetLabel()[0].GetValue() == reason {
				n = m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestDeadlockIsRetried(t *testing.T) {
	retries := withRival(t, "deadlock_timeout=20ms", "40P01", func(t *testing.T, session string, other pgx.Tx) {
		touch(t, other, session) // each now waits for the other
	})
	require.Positive(t, retries)
}

func TestSerializationFailureIsRetried(t *testing.T) {
	retries := withRival(t, "default_transaction_isolation=serializable", "40001", func(*testing.T, string, pgx.Tx) {})
	require.Positive(t, retries)
}

// A group that cannot be applied now is the caller's to wait for: ctx ends it.
func TestContextEndsTheWait(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(nil)))
	other := rival(t, url, f.id)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	u := f.update(f.delta(2, map[string]string{"a": `1`}))
	err := s.Apply(ctx, []store.Update{u})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, store.ErrRefused)
	require.NoError(t, other.Commit(t.Context()))
	apply(t, s, u)
	got, _ := load(t, s, f.id)
	sameState(t, f.state, got)
}

func TestMetricNames(t *testing.T) {
	_, url := open(t)
	registry := prometheus.NewPedanticRegistry()
	s, err := store.Open(t.Context(), store.Options{URL: url, Registerer: registry})
	require.NoError(t, err)
	defer s.Close()
	f := newFeed(1)
	apply(t, s, f.update(f.opened(nil)))
	require.Error(t, s.Apply(t.Context(), []store.Update{{Session: "x"}}))
	families, err := registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Equal(t, []string{"rollcall_store_apply_seconds", "rollcall_store_apply_sessions"}, names,
		"and rollcall_store_retries_total, once there is one")
	_, err = store.Open(t.Context(), store.Options{URL: url, Registerer: registry})
	require.Error(t, err, "registered twice")
}
