package temporal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	sqliteschema "go.temporal.io/server/schema/sqlite"
)

// sqliteConfig is the persistence that measured best for a development stack
// that must survive kill -9: 470 signal-to-activity cycles a second on two
// cores, against 482 in memory, 272 with synchronous=FULL and 120 with SQLite's
// file defaults. A second connection halves it.
func sqliteConfig(file string) *config.SQL {
	return &config.SQL{
		PluginName: sqliteplugin.PluginName,
		// The plugin pastes this into a file: URI as it is.
		DatabaseName: (&url.URL{Path: file}).EscapedPath(),
		MaxConns:     1,
		MaxIdleConns: 1,
		ConnectAttributes: map[string]string{
			"mode":         "rwc",
			"journal_mode": "wal",
			"synchronous":  "normal",
		},
	}
}

// createSchema creates the server's tables in one transaction, so that a process
// killed in the middle leaves an empty file rather than half a schema, which the
// server's own set-up can neither finish nor recognise. It records the schema
// version, and refuses a file of another one: the server has no SQLite
// migrations.
func createSchema(ctx context.Context, file string) (err error) {
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: "_txlock=immediate&_pragma=journal_mode=wal"}
	db, err := sql.Open("sqlite", uri.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit

	const want = sqliteschema.Version + "/" + sqliteschema.VisibilityVersion
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS devstack_schema (version TEXT NOT NULL)`); err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	var have string
	switch err := tx.QueryRowContext(ctx, `SELECT version FROM devstack_schema`).Scan(&have); {
	case err == nil && have == want:
		return nil
	case err == nil:
		return fmt.Errorf("%s holds Temporal's SQLite schema %s and this build needs %s, for which there is no migration: start with an empty data directory", file, have, want)
	case !errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("read the schema version of %s: %w", file, err)
	}
	if err := sqliteschema.SetupSchemaOnDB(txAdminDB{tx: tx}); err != nil {
		return fmt.Errorf("create the schema in %s: %w", file, err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO devstack_schema (version) VALUES (?)`, want); err != nil {
		return err
	}
	return tx.Commit()
}

// txAdminDB is as much of an AdminDB as SetupSchemaOnDB calls, on a transaction.
type txAdminDB struct {
	sqlplugin.AdminDB
	tx *sql.Tx
}

func (a txAdminDB) Exec(statement string, args ...any) error {
	_, err := a.tx.Exec(statement, args...)
	return err
}
