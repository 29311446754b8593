package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

// watch measures produced → committed in the database: from just before a
// record is handed to the producer until a reader's own transaction first sees
// its seq applied. It reads the sessions that it waits for, by key, every so
// often: so a latency is overstated by at most one such pause and one query, and
// never understated. Timestamps in the rows would not do: now() is when their
// transaction began.
type watch struct {
	pool  *pgxpool.Pool
	every time.Duration

	mu      sync.Mutex
	waiting map[uuid.UUID][]sample
	samples []sample
	failed  error

	stop context.CancelFunc
	done chan struct{}
}

// sample is one record that was produced and then seen.
type sample struct {
	seq      int64
	sent     time.Time
	took     time.Duration
	snapshot bool
}

func (w *world) watch(ctx context.Context, every time.Duration) *watch {
	ctx, stop := context.WithCancel(ctx)
	x := &watch{pool: w.pool, every: every, waiting: map[uuid.UUID][]sample{}, stop: stop, done: make(chan struct{})}
	go x.run(ctx)
	return x
}

// sent tells of a record. A session's come in the order of seq.
func (x *watch) sent(session string, seq int64, at time.Time, snapshot bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	id := uuid.MustParse(session)
	x.waiting[id] = append(x.waiting[id], sample{seq: seq, sent: at, snapshot: snapshot})
}

func (x *watch) run(ctx context.Context) {
	defer close(x.done)
	tick := time.NewTicker(x.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// An error is the database's outage. One that lasts shows in finish.
		if err := x.look(ctx); err != nil && ctx.Err() == nil {
			x.mu.Lock()
			x.failed = err
			x.mu.Unlock()
		}
	}
}

func (x *watch) look(ctx context.Context) error {
	x.mu.Lock()
	ids := make([]uuid.UUID, 0, len(x.waiting))
	for id := range x.waiting {
		ids = append(ids, id)
	}
	x.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	rows, err := x.pool.Query(ctx, `SELECT session_id, as_of_seq FROM device_session WHERE session_id = ANY($1::UUID[])`, ids)
	if err != nil {
		return err
	}
	applied := make(map[uuid.UUID]int64, len(ids))
	var id uuid.UUID
	var seq int64
	for rows.Next() {
		if err := rows.Scan(&id, &seq); err != nil {
			rows.Close()
			return err
		}
		applied[id] = seq
	}
	if rows.Err() != nil {
		return rows.Err()
	}
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, seq := range applied {
		queue := x.waiting[id]
		n := 0
		for n < len(queue) && queue[n].seq <= seq {
			queue[n].took = now.Sub(queue[n].sent)
			n++
		}
		x.samples = append(x.samples, queue[:n]...)
		if x.waiting[id] = queue[n:]; n == len(queue) {
			delete(x.waiting, id)
		}
	}
	return nil
}

// finish waits until all that was sent is seen.
func (x *watch) finish(ctx context.Context, w *world, most time.Duration) error {
	err := w.until(ctx, most, "every watched record is seen in the database", func(context.Context) (bool, error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.waiting) == 0, nil
	})
	x.stop()
	<-x.done
	if err != nil {
		return errors.Join(err, x.failed)
	}
	return nil
}

// taken are the latencies of samples that are chosen, sorted.
func (x *watch) taken(choose func(sample) bool) latencies {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out latencies
	for _, s := range x.samples {
		if choose(s) {
			out = append(out, s.took)
		}
	}
	slices.Sort(out)
	return out
}

// between chooses the samples that were sent from one moment to another.
func between(from, to time.Time) func(sample) bool {
	return func(s sample) bool { return !s.sent.Before(from) && s.sent.Before(to) }
}

// latencies are sorted.
type latencies []time.Duration

// quantile is the nearest rank, in milliseconds; -1 where there are no samples.
func (l latencies) quantile(q float64) float64 {
	if len(l) == 0 {
		return -1
	}
	return milliseconds(l[min(len(l)-1, int(q*float64(len(l))))])
}

func (l latencies) String() string {
	return fmt.Sprintf("p50 %.0f ms, p99 %.0f ms of %d records", l.quantile(0.5), l.quantile(0.99), len(l))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
