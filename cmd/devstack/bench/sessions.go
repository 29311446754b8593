package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
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
		rate, err := w.round(ctx, f, round)
		if err != nil {
			return err
		}
		b.add(of.name, rate, "sessions/s", "")
		b.add(of.name+".of_floor", rate/of.floor, "times", ">= 0.8")
	}
	return b.tables(ctx, w, f)
}

// round gives every session of f one record and returns the sessions/s at which
// they were applied. Rounds count from 0.
func (w *world) round(ctx context.Context, f *fleet, round int) (float64, error) {
	records, err := encode(w.topic, f, 1, 0)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := w.flood(ctx, records); err != nil {
		return 0, err
	}
	if err := w.applied(ctx, int64(round+1), len(f.duts)); err != nil {
		return 0, err
	}
	rate := float64(len(f.duts)) / time.Since(begun).Seconds()
	w.b.say("%s: processor time: %s", w.name, w.spent())
	return rate, w.awaitNoLag(ctx, time.Minute)
}

// measurePaired is the rounds of sessions for two binaries by turns, so that
// both meet the same machine; the older one also makes its own tables.
func (b *bench) measurePaired(ctx context.Context) error {
	if b.Baseline == "" {
		b.say("left out: --baseline names no older binary")
		return nil
	}
	rates := map[string][]float64{}
	for turn := range 2 * pairs {
		old := (turn+turn/2)%2 == 0 // old new, new old, …
		if err := b.turn(ctx, old, rates); err != nil {
			return err
		}
	}
	for _, name := range []string{"sessions.new", "sessions"} {
		now, was := slices.Max(rates[name]), slices.Max(rates["old "+name])
		b.add("paired."+name, now, "sessions/s", "")
		b.add("paired."+name+".of_baseline", now/was, "times", ">= 0.95")
	}
	return nil
}

// pairs is how often each binary has its turn. The best of each are compared:
// what else the machine does only slows down.
const pairs = 3

func (b *bench) turn(ctx context.Context, old bool, rates map[string][]float64) error {
	w, err := b.newWorld(ctx, "paired", !old)
	if err != nil {
		return err
	}
	defer w.close()
	which := ""
	if old {
		which, w.rollcall = "old ", b.Baseline
		if w.temporal, w.temporalAddr, err = startTemporal(ctx, w.dir); err != nil {
			return err
		}
		migrate := exec.CommandContext(ctx, b.Baseline, "migrate", "up", "--database-url="+w.url)
		if out, err := migrate.CombinedOutput(); err != nil {
			return fmt.Errorf("%s migrate up: %w: %s", b.Baseline, err, out)
		}
	}
	if err := w.startPlatform(ctx); err != nil {
		return err
	}
	f := newFleet("rae", b.size.sessions, 3)
	for round, name := range []string{"sessions.new", "sessions", "sessions"} {
		rate, err := w.round(ctx, f, round)
		if err != nil {
			return err
		}
		b.say("paired: %s%s: %.0f sessions/s", which, name, rate)
		rates[which+name] = append(rates[which+name], rate)
	}
	return nil
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
