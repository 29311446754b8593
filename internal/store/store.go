// Package store keeps device sessions in SQL tables: the schema and its
// migrations, the transaction that applies what workflows computed, and the
// queries and decisions of people.
//
// Order is the seq, never time: what is older than what is stored changes
// nothing, so that any update may be applied again. Every statement is in a file
// statements_*.go, and PostgreSQL and CockroachDB both run it.
//
// These may write a table. Apply is a workflow's transaction (Store.Apply), with
// the group that shares it; people are the commands of the CLI; retention is
// Store.Expire. Migrate alone changes the schema, and writes goose's own tables.
// Nothing outside of this package writes any. TestWritersOfTables holds the
// statements to this list.
//
//	rae                apply, people (label)
//	device             apply, people (merge and split)
//	device_session     apply, people (merge and split), retention
//	device_attribute   apply, retention
//	attribute_change   apply, retention
//	ingest_position    apply, retention
//	session_gap        apply, retention
//	network_interface  apply, retention
//	identity_owner     apply, people (merge and split and label)
//	device_identity    apply, people (merge and split), retention
//	identity_conflict  apply (notes one), people (decide)
//	device_test_state  apply (merge), people
//	quarantined_batch  apply (notes one), people (decide), retention
//	retention_horizon  retention
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/identity"
)

// Options of Open.
type Options struct {
	// URL of the database: postgres://user:password@host:port/database?…
	// It may name several hosts, host:port,host:port; the first that takes
	// writes is used, unless target_session_attrs says otherwise.
	// default_query_exec_mode says how statements are executed; default: as
	// prepared statements, and through a pooler as statements without a name.
	// Required.
	URL string
	// Writer refuses a URL that may lead to a server that takes no writes
	// (target_session_attrs=any and the like). Default: it is the caller's word.
	Writer bool
	// MaxConns bounds the pool. Default: 8. More than twice the database's
	// cores gains nothing; a caller waits while all are taken.
	MaxConns int32
	// NoHistory leaves out what attributes were: writes are cheaper, and
	// History, AsOf and Explain know only what attributes are.
	NoHistory bool
	// Hold is for how long the present session of a device keeps it from sessions
	// of other RAEs. Default: DefaultHold. Longer, a device that was moved is two
	// for longer; shorter, a RAE can take one that only restarts.
	Hold identity.Hold
	// Tracer is told of every statement. Default: none.
	Tracer pgx.QueryTracer
	// Logger is told of retries at debug level. Default: discards.
	Logger *slog.Logger
	// Registerer takes the metrics, rollcall_store_*. Default: none.
	Registerer prometheus.Registerer
}

// DefaultHold outlasts a device that restarts, and a RAE whose one quiet device
// sends nothing but a snapshot every three hours.
var DefaultHold = identity.Hold{Offline: 10 * time.Minute, Silent: 7 * time.Hour}

// Store is the database. Its methods may be called concurrently.
type Store struct {
	pool    *pgxpool.Pool
	history bool
	hold    identity.Hold
	log     *slog.Logger
	m       *metrics
	reads   bool // the URL asks for a server that need take no writes
}

// Open prepares a pool of connections. It does not connect: a database that is
// down at start is waited for with Ping.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.URL == "" {
		return nil, errors.New("store: URL is required")
	}
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("store: database URL: %w", err)
	}
	if o.Writer && reads(config.ConnConfig, o.URL) {
		return nil, fmt.Errorf("store: database URL: %s must be read-write or primary, or not be set: a service needs the server that takes writes", targetSetting)
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 8
	}
	config.MaxConns = o.MaxConns
	config.ConnConfig.Tracer = o.Tracer
	c := &connector{}
	c.configure(config, o.URL)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Hold.Offline = cmp.Or(o.Hold.Offline, DefaultHold.Offline)
	o.Hold.Silent = cmp.Or(o.Hold.Silent, DefaultHold.Silent)
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	c.pool.Store(pool)
	return &Store{pool: pool, history: !o.NoHistory, hold: o.Hold, log: o.Logger, m: m, reads: reads(config.ConnConfig, o.URL)}, nil
}

// Close ends the connections, after those in use are given back.
func (s *Store) Close() { s.pool.Close() }

// Ping reports why the database cannot be used, or nil: it answers, it takes
// writes, and its schema is there. Where the URL asks for a server that need take
// no writes (target_session_attrs), it may be one that takes none.
func (s *Store) Ping(ctx context.Context) error {
	var n int
	var readOnly string
	if err := s.pool.QueryRow(ctx, sqlPing).Scan(&n, &readOnly); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if readOnly == "on" && !s.reads {
		s.pool.Reset() // the next connection may lead to one that does
		return errors.New("database takes no writes: it is a standby, or default_transaction_read_only is on")
	}
	if n == 0 {
		return errors.New("database has no schema, or an old one: run `rollcall migrate`")
	}
	return nil
}

type metrics struct {
	seconds  *prometheus.HistogramVec
	sessions prometheus.Histogram
	retries  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rollcall_store_apply_seconds", Help: "How long a group of updates took to apply, retries included, by outcome (ok, refused, error).",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14), // 1 ms to 8 s
		}, []string{"outcome"}),
		sessions: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_store_apply_sessions", Help: "Sessions in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 8), // 1 to 128
		}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_store_retries_total", Help: "Transactions tried again, by reason (SQLSTATE, or raced).",
		}, []string{"reason"}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.seconds), r.Register(m.sessions), r.Register(m.retries))
}
