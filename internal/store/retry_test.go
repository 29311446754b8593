package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/metrictest"
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

// rival is a transaction of somebody else who has locked the row of a session.
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

const touchSession = `UPDATE device_session SET applied_at = now() WHERE session_id = $1`

func touch(t *testing.T, tx pgx.Tx, session string) {
	t.Helper()
	_, err := tx.Exec(t.Context(), touchSession, session)
	require.NoError(t, err)
}

// awaitBlocks waits until somebody waits for tx, and awaitBlocked until tx waits
// for somebody.
func awaitBlocks(t *testing.T, url string, tx pgx.Tx) {
	t.Helper()
	awaitLock(t, url, tx, `SELECT count(*) FROM pg_locks WHERE NOT granted AND $1 = ANY (pg_blocking_pids(pid))`)
}

func awaitBlocked(t *testing.T, url string, tx pgx.Tx) {
	t.Helper()
	awaitLock(t, url, tx, `SELECT cardinality(pg_blocking_pids($1))`)
}

func awaitLock(t *testing.T, url string, tx pgx.Tx, count string) {
	t.Helper()
	pid := int32(tx.Conn().PgConn().PID())
	require.Eventually(t, func() bool { return query[int](t, url, count, pid) > 0 }, 30*time.Second, 5*time.Millisecond)
}

// withRival has Apply hold the first of three sessions and wait for the second,
// which gate has locked. It returns how often Apply was tried again for the
// reason, once meet has let it go on.
func withRival(t *testing.T, setting, reason string, meet func(t *testing.T, url string, gate pgx.Tx, first, last string)) float64 {
	t.Helper()
	opened, url := open(t)
	feeds := []*feed{newFeed(1), newFeed(2), newFeed(3)}
	slices.SortFunc(feeds, func(a, b *feed) int { return strings.Compare(a.id, b.id) })
	var updates []store.Update
	for _, f := range feeds {
		apply(t, opened, f.update(f.opened(nil)))
		updates = append(updates, f.update(f.delta(2, map[string]string{"x": `1`})))
	}
	registry := prometheus.NewPedanticRegistry()
	s, err := store.Open(t.Context(), store.Options{URL: url + "&" + setting, Registerer: registry})
	require.NoError(t, err)
	t.Cleanup(s.Close)

	gate := rival(t, url, feeds[1].id)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Apply(ctx, updates) }()
	awaitBlocks(t, url, gate)
	meet(t, url, gate, feeds[0].id, feeds[2].id)
	require.NoError(t, <-done)
	for _, f := range feeds {
		got, _ := load(t, s, f.id)
		sameState(t, f.state, got)
	}
	return metrictest.ValueOrZero(t, registry, "rollcall_store_retries_total", "reason", reason)
}

// PostgreSQL looks for a deadlock once in a wait: the other must wait for the
// first session before Apply begins to wait for the last.
func TestDeadlockIsRetried(t *testing.T) {
	retries := withRival(t, "deadlock_timeout=20ms", "40P01", func(t *testing.T, url string, gate pgx.Tx, first, last string) {
		other := rival(t, url, last)
		touched := make(chan struct{})
		go func() {
			defer close(touched)
			_, err := other.Exec(t.Context(), touchSession, first)
			assert.NoError(t, err)
		}()
		awaitBlocked(t, url, other)
		require.NoError(t, gate.Commit(t.Context())) // each now waits for the other
		<-touched
		require.NoError(t, other.Commit(t.Context()))
	})
	require.Positive(t, retries)
}

func TestSerializationFailureIsRetried(t *testing.T) {
	retries := withRival(t, "default_transaction_isolation=serializable", "40001", func(t *testing.T, _ string, gate pgx.Tx, _, _ string) {
		require.NoError(t, gate.Commit(t.Context()))
	})
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

// deadlocks is how many transactions the database has ended for one. It closes
// the stores: a server process reports its count late, and at the latest when it
// ends. CockroachDB does not count: 0.
func deadlocks(t testing.TB, url string, stores ...*store.Store) int {
	t.Helper()
	if isCockroach(t, url) {
		return 0
	}
	for _, s := range stores {
		s.Close()
	}
	require.Eventually(t, func() bool {
		return query[int](t, url, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`) == 0
	}, time.Minute, 10*time.Millisecond, "the stores' server processes end")
	return query[int](t, url, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
}

// What the tests require to be zero is counted.
func TestDeadlocksAreCounted(t *testing.T) {
	_, url := open(t)
	if isCockroach(t, url) {
		t.Skip("CockroachDB does not count them")
	}
	a, b := newFeed(1), newFeed(2)
	s := reopen(t, url)
	apply(t, s, a.update(a.opened(nil)), b.update(b.opened(nil)))
	s.Close()
	var conns [2]*pgx.Conn
	for i := range conns {
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		conns[i] = conn
		defer func() { _ = conn.Close(context.Background()) }()
		_, err = conn.Exec(t.Context(), `BEGIN`)
		require.NoError(t, err)
	}
	lock := func(i int, session string) error {
		_, err := conns[i].Exec(t.Context(), `SELECT 1 FROM device_session WHERE session_id = $1 FOR UPDATE`, session)
		return err
	}
	require.NoError(t, lock(0, a.id))
	require.NoError(t, lock(1, b.id))
	first := make(chan error, 1)
	go func() { first <- lock(0, b.id) }()
	err := errors.Join(lock(1, a.id), <-first) // one of them is chosen to lose
	require.True(t, store.Retryable(err), err)
	for _, conn := range conns {
		require.NoError(t, conn.Close(context.Background()))
	}
	require.Equal(t, 1, deadlocks(t, url))
}
