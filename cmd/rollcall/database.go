package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// databaseFlags say which database holds the tables.
type databaseFlags struct {
	URL      cli.URL        `name:"database-url" help:"PostgreSQL or CockroachDB: postgres://user@host:port/database?sslmode=verify-full&…" env:"ROLLCALL_DATABASE_URL,DATABASE_URL" placeholder:"URL"`
	Password cli.SecretFile `name:"database-password-file" help:"File that holds the password of the URL's user." env:"ROLLCALL_DATABASE_PASSWORD_FILE" placeholder:"FILE"`
}

// poolFlags bound what a service takes of the database.
type poolFlags struct {
	MaxConns int32 `name:"database-max-conns" help:"Most connections to hold. More than twice the database's cores gains nothing." default:"8" env:"ROLLCALL_DATABASE_MAX_CONNS" placeholder:"N"`
}

func (d *databaseFlags) validate() error {
	_, err := d.url()
	return err
}

// url is the URL with the password in it.
func (d *databaseFlags) url() (cli.URL, error) {
	if !d.URL.IsSet() {
		return cli.URL{}, errors.New("no database: set --database-url or ROLLCALL_DATABASE_URL")
	}
	if u := d.URL.Reveal(); !strings.HasPrefix(u, "postgres://") && !strings.HasPrefix(u, "postgresql://") {
		return cli.URL{}, errors.New("--database-url: not a postgres:// URL (CockroachDB's begins with it too)")
	}
	return d.URL.WithPassword(d.Password.Reveal())
}

// open returns the store for a command: it has one connection, and the database
// must answer now. Close the store after use.
func (d *databaseFlags) open(ctx context.Context, log *slog.Logger) (*store.Store, error) {
	url, err := d.url()
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Options{URL: url.Reveal(), MaxConns: 1, Logger: log})
	if err != nil {
		return nil, err
	}
	if err := db.Ping(ctx); err != nil {
		db.Close()
		if refused := (*pgconn.ConnectError)(nil); errors.As(err, &refused) {
			return nil, fmt.Errorf("%s: start the database, or correct --database-url: %w", url, err)
		}
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return db, nil
}

// openStore returns the store when the database answers and has the tables. From
// then on the service is ready while ask says so, by default the store's Ping.
func (s *service) openStore(ctx context.Context, flags *databaseFlags, pool poolFlags, ask func(context.Context, *store.Store) error, with ...func(*store.Options)) (*store.Store, error) {
	url, err := flags.url()
	if err != nil {
		return nil, err
	}
	o := store.Options{URL: url.Reveal(), MaxConns: pool.MaxConns, Logger: s.logger, Registerer: s.registry, Writer: true}
	for _, f := range with {
		f(&o)
	}
	db, err := store.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	if ask == nil {
		ask = func(ctx context.Context, db *store.Store) error { return db.Ping(ctx) }
	}
	err = s.await(ctx, dependency{
		name: "database", where: url.String(), try: db.Ping, ask: func(ctx context.Context) error { return ask(ctx, db) },
		hint: "start the database, or set ROLLCALL_DATABASE_URL; make its tables with: rollcall migrate up",
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// connect fails until the database takes a connection.
func connect(url cli.URL) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := pgx.Connect(ctx, url.Reveal())
		if err != nil {
			return err
		}
		defer func() { _ = c.Close(ctx) }()
		return c.Ping(ctx)
	}
}
