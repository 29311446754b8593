package store_test

import (
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

func TestMigrate(t *testing.T) {
	url := postgrestest.New(t)
	s := reopen(t, url)
	require.ErrorContains(t, s.Ping(t.Context()), "rollcall migrate")

	status, err := store.MigrationStatus(t.Context(), url)
	require.NoError(t, err)
	require.NotEmpty(t, status)
	require.Zero(t, status[0].AppliedAt)

	// Two processes at once: each step is applied once.
	var wg sync.WaitGroup
	var done [2]int
	var errs [2]error
	for i := range done {
		wg.Go(func() { done[i], errs[i] = store.Migrate(t.Context(), url, nil) })
	}
	wg.Wait()
	require.NoError(t, errs[0])
	require.NoError(t, errs[1])
	require.Equal(t, len(status), done[0]+done[1])
	require.NoError(t, s.Ping(t.Context()))

	again, err := store.Migrate(t.Context(), url, nil)
	require.NoError(t, err)
	require.Zero(t, again)
	status, err = store.MigrationStatus(t.Context(), url)
	require.NoError(t, err)
	require.NotZero(t, status[0].AppliedAt)

	// A step that was cut short, before its version was recorded, runs again.
	query[int64](t, url, `DELETE FROM goose_db_version WHERE version_id > 0 RETURNING version_id`)
	again, err = store.Migrate(t.Context(), url, nil)
	require.NoError(t, err)
	require.Equal(t, len(status), again)
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	_, err := store.Open(t.Context(), store.Options{})
	require.ErrorContains(t, err, "URL")
	_, err = store.Open(t.Context(), store.Options{URL: "postgres://%zz"})
	require.ErrorContains(t, err, "URL")
	s, err := store.Open(t.Context(), store.Options{URL: "postgres://nobody@127.0.0.1:1/x?connect_timeout=1"})
	require.NoError(t, err, "a database that is down is waited for")
	defer s.Close()
	require.Error(t, s.Ping(t.Context()))
}

// What the schema before held is carried over: who owns what, and where the
// timeline begins.
func TestMigrateIdentities(t *testing.T) {
	url := postgrestest.New(t)
	migrateTo(t, url, 2)
	const a, b = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	query[int](t, url, `
		WITH r AS (INSERT INTO rae VALUES ('rae-1', now()) RETURNING 1), d AS (INSERT INTO device VALUES ($1, now()), ($2, now()) RETURNING 1)
		SELECT count(*)::INT FROM r, d`, a, b)
	query[int](t, url, `
		WITH s AS (INSERT INTO device_session (session_id, rae, device_id, identified, applied_at) VALUES ($1, 'rae-1', $1, true, now()), ($2, 'rae-1', $2, true, now()) RETURNING 1),
		i AS (INSERT INTO device_identity (kind, value, device_id, session_id, attribute, first_seen, last_seen) VALUES
			('esn', 'NF-0001', $1, $1, 'netflix.esn', '2026-03-01', '2026-03-02'),
			('mac', '9c:b6:d0:00:00:02', $2, $2, 'network.mac', '2026-03-01', '2026-03-02') RETURNING 1)
		SELECT count(*)::INT FROM s, i`, a, b)
	for range 2 {
		_, err := store.Migrate(t.Context(), url, nil)
		require.NoError(t, err)
		require.Equal(t, 2, query[int](t, url, `SELECT count(*) FROM identity_owner o JOIN device_identity i USING (kind, value, device_id) WHERE i.valid_from = '2026-03-01' AND i.valid_to IS NULL`))
		require.Equal(t, a, query[string](t, url, `SELECT string_agg(session_id::TEXT, ',') FROM device_session WHERE identified`), "by strong evidence")
		query[int64](t, url, `DELETE FROM goose_db_version WHERE version_id > 0 RETURNING version_id`)
	}
	s := reopen(t, url)
	again := newFeed(1)
	require.Equal(t, a, deviceOf(t, s, again, map[string]string{"netflix.esn": `"NF-0001"`, "network.mac": `"9c:b6:d0:00:00:02"`}))
	d, err := s.GetDevice(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, a, d.Device, "what only had a MAC is absorbed")
}

// migrateTo applies the first steps alone.
func migrateTo(t *testing.T, url string, version int64) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	db := stdlib.OpenDB(*config)
	defer func() { require.NoError(t, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations"), goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	_, err = p.UpTo(t.Context(), version)
	require.NoError(t, err)
}
