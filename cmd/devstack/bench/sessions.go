package main

import (
	"context"
	"time"
)

// measureSessions has nothing to fold: every record is of another session. In
// the first round each is new and is compared with the floor of starts, in the
// second each is known and is compared with the floor of signals.
func (b *bench) measureSessions(ctx context.Context) error {
	w, err := b.newWorld(ctx, "sessions", true)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.startPlatform(ctx); err != nil {
		return err
	}
	f := newFleet("rae", b.size.sessions, 3)
	for round, of := range []struct {
		name  string
		floor float64
	}{{"sessions.new", b.startFloor}, {"sessions", b.floor}} {
		records, err := encode(w.topic, f, 1, 0)
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := w.flood(ctx, records); err != nil {
			return err
		}
		if err := w.applied(ctx, int64(round+1), len(f.duts)); err != nil {
			return err
		}
		rate := float64(len(f.duts)) / time.Since(begun).Seconds()
		b.say("%s: processor time: %s", of.name, w.spent())
		b.add(of.name, rate, "sessions/s", "")
		b.add(of.name+".of_floor", rate/of.floor, "times", ">= 0.8")
		if err := w.settled(ctx, time.Minute); err != nil {
			return err
		}
	}
	return b.tables(ctx, w, f)
}

// applied waits until n sessions have come to seq.
func (w *world) applied(ctx context.Context, seq int64, n int) error {
	last, told := time.Time{}, time.Now()
	return w.until(ctx, 5*time.Minute, "all sessions are applied", func(ctx context.Context) (bool, error) {
		if time.Since(last) < 100*time.Millisecond {
			return false, nil // the query reads every row
		}
		last = time.Now()
		var have int
		if err := w.pool.QueryRow(ctx, `SELECT count(*) FROM device_session WHERE as_of_seq >= $1`, seq).Scan(&have); err != nil {
			return false, err
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			w.b.say("%s: %d of %d sessions are applied", w.name, have, n)
		}
		return have >= n, nil
	})
}
