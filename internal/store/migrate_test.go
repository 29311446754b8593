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
	for attrs, refused := range map[string]bool{"": false, "?target_session_attrs=primary": false, "?target_session_attrs=any": true, "?target_session_attrs=standby": true} {
		s, err := store.Open(t.Context(), store.Options{URL: "postgres://nobody@127.0.0.1:1/x" + attrs, Writer: true})
		if refused {
			require.ErrorContains(t, err, "target_session_attrs")
			continue
		}
		require.NoError(t, err)
		s.Close()
	}
	_, err = store.Open(t.Context(), store.Options{URL: "postgres://%zz"})
	require.ErrorContains(t, err, "URL")
	s, err := store.Open(t.Context(), store.Options{URL: "postgres://nobody@127.0.0.1:1/x?connect_timeout=1"})
	require.NoError(t, err, "a database that is down is waited for")
	defer s.Close()
	require.Error(t, s.Ping(t.Context()))
}

// The migrations backwards leave nothing but goose's own table, and may be
// applied again.
func TestMigrationsCanBeUndone(t *testing.T) {
	url := postgrestest.New(t)
	_, err := store.Migrate(t.Context(), url, nil)
	require.NoError(t, err)
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	db := stdlib.OpenDB(*config)
	defer func() { require.NoError(t, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations"), goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	_, err = p.DownTo(t.Context(), 0)
	require.NoError(t, err)
	require.Empty(t, query[[]string](t, url, `SELECT COALESCE(array_agg(tablename::TEXT), '{}') FROM pg_catalog.pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'goose%'`))
	done, err := store.Migrate(t.Context(), url, nil)
	require.NoError(t, err)
	require.Positive(t, done)
}
