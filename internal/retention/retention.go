// Package retention deletes rows that have been kept long enough: what attributes
// were, tombstones, and sessions that are closed.
//
// Invariant: nothing is deleted that a record which Kafka may still hold could
// need. A replay of these records gives the same live tables. Ages are measured by
// the clocks of the database and of Kafka.
package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/retry"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// Store is the part of *store.Store that is used.
type Store interface {
	Expire(ctx context.Context, h store.Horizons, batch int) (store.Expired, error)
}

// Keep says how long each kind of row is kept. store.Horizons says which rows
// each covers.
type Keep struct {
	// History. Default 90 days.
	History time.Duration
	// Tombstones. Default 30 days.
	Tombstones time.Duration
	// ClosedSessions. Default 180 days.
	ClosedSessions time.Duration
	// Kafka is how long the events' topic keeps a record. None of the others
	// may be less. Default 7 days, Kafka's own.
	Kafka time.Duration
}

const day = 24 * time.Hour

// Check fills in the defaults, and reports what is too short.
func (k *Keep) Check() error {
	var errs []error
	for _, f := range []struct {
		name string
		to   *time.Duration
		or   time.Duration
	}{{"kafka-retention", &k.Kafka, 7 * day}, {"history", &k.History, 90 * day}, {"tombstones", &k.Tombstones, 30 * day}, {"closed-sessions", &k.ClosedSessions, 180 * day}} {
		if *f.to == 0 {
			*f.to = f.or
		}
		if *f.to < k.Kafka {
			errs = append(errs, fmt.Errorf("%s of %s is less than the %s that Kafka keeps records: a replay could need what has been deleted", f.name, days(*f.to), days(k.Kafka)))
		}
	}
	if k.Kafka < 0 {
		errs = append(errs, errors.New("kafka-retention is negative"))
	}
	return errors.Join(errs...)
}

// days is a duration as people say it.
func days(d time.Duration) string {
	if d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// Options of New.
type Options struct {
	Store Store // required
	Keep  Keep
	// Batch is how many rows of history one transaction deletes at most.
	// Default 5,000.
	Batch int
	// Every is how long Run waits between passes. Default 6 hours: a pass
	// reads the history of all sessions.
	Every      time.Duration
	Logger     *slog.Logger          // default slog.Default
	Registerer prometheus.Registerer // default none
	Now        func() time.Time      // default time.Now
}

// Retention runs passes.
type Retention struct {
	o       Options
	failing atomic.Pointer[error]

	deleted *prometheus.CounterVec
	passes  *prometheus.CounterVec
	success prometheus.Gauge
	took    prometheus.Histogram
}

// New validates the options.
func New(o Options) (*Retention, error) {
	if o.Store == nil {
		return nil, errors.New("retention: no Store")
	}
	if err := o.Keep.Check(); err != nil {
		return nil, fmt.Errorf("retention: %w", err)
	}
	if o.Batch == 0 {
		o.Batch = 5000
	}
	if o.Every == 0 {
		o.Every = 6 * time.Hour
	}
	if o.Batch < 1 || o.Every < 0 {
		return nil, errors.New("retention: Batch and Every must not be negative")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Retention{o: o}
	r.deleted = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rollcall_retention_deleted_rows_total", Help: "Rows that were deleted, by table.",
	}, []string{"table"})
	r.passes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rollcall_retention_passes_total", Help: "Passes over all sessions, by outcome (ok, error).",
	}, []string{"outcome"})
	r.success = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "rollcall_retention_last_success_timestamp_seconds", Help: "When the last pass that succeeded ended, in Unix time; 0: none yet.",
	})
	r.took = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "rollcall_retention_pass_seconds", Help: "How long a pass took.",
		Buckets: prometheus.ExponentialBuckets(0.1, 4, 10), // 100 ms to 7 h
	})
	if o.Registerer == nil {
		return r, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{r.deleted, r.passes, r.success, r.took} {
		errs = append(errs, o.Registerer.Register(c))
	}
	return r, errors.Join(errs...)
}

// Pass deletes everything that is old enough now. It returns how many rows of
// which table it deleted, also where it ends with an error.
func (r *Retention) Pass(ctx context.Context) (store.Expired, error) {
	start := r.o.Now()
	deleted, err := r.o.Store.Expire(ctx, store.Horizons{
		History: start.Add(-r.o.Keep.History), Tombstones: start.Add(-r.o.Keep.Tombstones), Closed: start.Add(-r.o.Keep.ClosedSessions),
	}, r.o.Batch)
	args := []any{"took", r.o.Now().Sub(start).Round(time.Millisecond)}
	for _, table := range slices.Sorted(maps.Keys(deleted)) {
		r.deleted.WithLabelValues(table).Add(float64(deleted[table]))
		if deleted[table] > 0 {
			args = append(args, table, deleted[table])
		}
	}
	r.took.Observe(r.o.Now().Sub(start).Seconds())
	if err != nil {
		r.passes.WithLabelValues("error").Inc()
		r.failing.Store(&err)
		return deleted, err
	}
	r.passes.WithLabelValues("ok").Inc()
	r.success.Set(float64(r.o.Now().Unix()))
	r.failing.Store(nil)
	r.o.Logger.InfoContext(ctx, "deleted old rows", args...)
	return deleted, nil
}

// retryAfter is how soon a pass that failed is tried again, if Every is longer.
const retryAfter = time.Minute

// Run makes a pass at once and then one each Every, until ctx is cancelled. A pass
// that fails is tried again soon; what it had deleted stays deleted.
func (r *Retention) Run(ctx context.Context) error {
	for {
		wait := r.o.Every
		if _, err := r.Pass(ctx); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			wait = min(wait, retryAfter)
			r.o.Logger.WarnContext(ctx, "a pass of retention ended early: it is tried again", "err", err, "retry_in", wait)
		}
		if retry.Sleep(ctx, wait) != nil {
			return ctx.Err()
		}
	}
}

// Ready reports why the last pass failed, or nil.
func (r *Retention) Ready() error {
	if err := r.failing.Load(); err != nil {
		return *err
	}
	return nil
}
