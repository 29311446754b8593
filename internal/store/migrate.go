package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// migrations are the steps of the schema, in the order of their numbers.
//
// When adding one:
//   - It is a new file, migrations/0000N_what.sql. A file that was released is
//     never changed.
//   - It begins with "-- +goose NO TRANSACTION". Each statement may run again
//     after a step that was cut short: IF NOT EXISTS, IF EXISTS.
//   - PostgreSQL and CockroachDB both run it; every table has a primary key.
//     TestStatementsArePortable says what does not do.
//   - The version before goes on working beside it, for `rollcall migrate` runs
//     while services do: add columns with a default, and remove what nothing reads
//     any more one release later.
//   - Down undoes Up (TestMigrationsCanBeUndone).
//   - Ping looks for what the newest one adds.
//   - A new table goes into the table of writers in the package's documentation.
//
//go:embed migrations/*.sql
var migrations embed.FS

// Migration is one step of the schema.
type Migration struct {
	Version   int64     `json:"version"`
	Name      string    `json:"name"`
	AppliedAt time.Time `json:"applied_at,omitzero"` // zero: pending
}

// Migrate brings the schema up to date and returns how many steps that took: 0
// when it was. Several processes may call it at the same time. One waits for
// the other by a row in a table (goose_lock), because CockroachDB has no
// advisory locks. If the process that holds it is killed, the others wait half
// a minute for its lease to end.
func Migrate(ctx context.Context, url string, logger *slog.Logger) (int, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	p, db, err := provider(url, logger)
	if err != nil {
		return 0, err
	}
	defer func() { _ = db.Close() }()
	done, err := p.Up(ctx)
	for _, r := range done {
		logger.InfoContext(ctx, "migrated the database", "version", r.Source.Version, "took", r.Duration)
	}
	if err != nil {
		return len(done), fmt.Errorf("migrate database: %w", err)
	}
	return len(done), nil
}

// MigrationStatus lists the steps of the schema and when each was applied.
func MigrationStatus(ctx context.Context, url string) ([]Migration, error) {
	p, db, err := provider(url, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }()
	status, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	out := make([]Migration, len(status))
	for i, s := range status {
		out[i] = Migration{Version: s.Source.Version, Name: s.Source.Path, AppliedAt: s.AppliedAt}
	}
	return out, nil
}

func provider(url string, logger *slog.Logger) (*goose.Provider, *sql.DB, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, nil, fmt.Errorf("database URL: %w", err)
	}
	configureConn(config, url)
	if !strings.Contains(url, execModeSetting) {
		config.DefaultQueryExecMode = pgx.QueryExecModeExec // each step runs once; a pooler keeps no statement
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, nil, err
	}
	locker, err := lock.NewPostgresTableLocker(
		lock.WithTableLeaseDuration(30*time.Second), lock.WithTableHeartbeatInterval(5*time.Second),
		lock.WithTableLockTimeout(500*time.Millisecond, 600), lock.WithTableLogger(logger))
	if err != nil {
		return nil, nil, err
	}
	db := stdlib.OpenDB(*config)
	p, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithLocker(locker), goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		_ = db.Close()
		return nil, nil, fmt.Errorf("read migrations: %w", err)
	}
	return p, db, nil
}
