package main

import (
	"context"
	"errors"
	"time"
)

// pace is what one run of paced load is.
type pace struct {
	name      string
	sessions  int
	rate      int
	snapshots float64
	probes    int
	every     time.Duration // between two looks at the database
	long      time.Duration
}

// paced is what came of it.
type paced struct {
	all, changes, snapshots latencies
	mostLag                 int64         // records, after the warm-up
	toZero                  time.Duration // from the last record to no lag
	commits                 float64       // bytes a second; -1: not known
	peak                    float64       // bytes
}

// pace opens the sessions, produces at the rate, and looks.
func (b *bench) pace(ctx context.Context, p pace) (paced, error) {
	w, err := b.newWorld(ctx, p.name, true)
	if err != nil {
		return paced{}, err
	}
	defer w.close()
	f := newFleet("rae", p.sessions, 5)
	f.probes(p.probes)
	if err := w.startPlatform(ctx); err != nil {
		return paced{}, err
	}
	if err := w.opened(ctx, f); err != nil {
		return paced{}, err
	}
	x := w.watch(ctx, p.every)
	l := &load{w: w, f: f, rate: p.rate, snapshots: p.snapshots, watch: x}
	begun := time.Now()
	l.begin(ctx)
	out, err := w.observe(ctx, begun, begun.Add(b.size.warm), begun.Add(b.size.warm+p.long))
	if err = errors.Join(err, l.halt(ctx)); err != nil {
		return out, err
	}
	halted := time.Now()
	if err := w.awaitNoLag(ctx, 2*time.Minute); err != nil {
		return out, err
	}
	out.toZero = time.Since(halted)
	if err := x.finish(ctx, w, time.Minute); err != nil {
		return out, err
	}
	chosen := between(begun.Add(b.size.warm), halted)
	out.all = x.taken(chosen)
	out.changes = x.taken(func(s sample) bool { return chosen(s) && !s.snapshot })
	out.snapshots = x.taken(func(s sample) bool { return chosen(s) && s.snapshot })
	if _, out.peak, err = w.poller.memory(); err != nil {
		return out, err
	}
	b.say("%s: %s; changes %s; snapshots %s", p.name, out.all, out.changes, out.snapshots)
	b.say("%s: events of %d bytes; the generator was at most %.0f ms late; processor time: %s",
		p.name, l.bytes/max(1, l.records), milliseconds(l.late), w.spent())
	return out, b.tables(ctx, w, f)
}

// opened opens the fleet's sessions and waits until they are there.
func (w *world) opened(ctx context.Context, f *fleet) error {
	if err := w.produce(ctx, f, 1, 0); err != nil {
		return err
	}
	if w.plain == nil {
		if err := w.applied(ctx, 1, len(f.duts)); err != nil {
			return err
		}
	}
	return w.awaitNoLag(ctx, 2*time.Minute)
}

// commitBytes is the poller's counter of the bytes of its offset commits.
const commitBytes = "rollcall_poller_commit_bytes_total"

// observe watches lag and commits from one moment to another.
func (w *world) observe(ctx context.Context, begun, from, to time.Time) (paced, error) {
	out := paced{commits: -1}
	bytes := func() (float64, error) {
		if w.poller == nil {
			return -1, nil
		}
		metrics, err := scrape(ctx, w.pollerAdmin)
		if err != nil {
			return -1, nil // the poller is busy: the figure is left out
		}
		n, ok := metrics[commitBytes]
		if !ok {
			return -1, errors.New("the poller has no metric " + commitBytes)
		}
		return n, nil
	}
	var before float64 = -1
	var since time.Time
	told := begun
	for now := time.Now(); now.Before(to); now = time.Now() {
		if err := w.alive(); err != nil {
			return out, err
		}
		if before < 0 && now.After(from) && since.IsZero() {
			var err error
			if before, err = bytes(); err != nil {
				return out, err
			}
			since = now
		}
		lag, err := w.lag(ctx)
		if err != nil {
			return out, err
		}
		if now.After(from) {
			out.mostLag = max(out.mostLag, lag)
		}
		if now.Sub(told) > 10*time.Second {
			told = now
			w.b.say("%s: %.0f s, lag %d records", w.name, now.Sub(begun).Seconds(), lag)
		}
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	after, err := bytes()
	if before >= 0 && after >= before {
		out.commits = (after - before) / time.Since(since).Seconds()
	}
	return out, err
}

func (b *bench) measureLight(ctx context.Context) error {
	out, err := b.pace(ctx, pace{
		name: "light", sessions: sessionsMany, rate: lightRate, snapshots: someSnapshots,
		probes: sessionsMany, every: 2 * time.Millisecond, long: b.size.lightFor,
	})
	if out.all != nil {
		b.add("light.p50", out.all.quantile(0.5), "ms", "<= 40")
		b.add("light.p99", out.all.quantile(0.99), "ms", "<= 150")
	}
	return err
}

func (b *bench) measureSteady(ctx context.Context) error {
	var errs []error
	for _, p := range []pace{
		{name: "steady-300", sessions: 300, snapshots: someSnapshots},
		{name: "steady-1000", sessions: 1000, snapshots: someSnapshots},
	} {
		p.rate, p.probes, p.every, p.long = steadyRate, mostProbes, steadyLook, b.size.steadyFor
		out, err := b.pace(ctx, p)
		errs = append(errs, err)
		if out.all == nil {
			continue
		}
		bound := float64(p.sessions) / b.floor * 1000 // ms to go once around all of them
		b.add(p.name+".p50", out.all.quantile(0.5), "ms", "")
		b.add(p.name+".p99", out.all.quantile(0.99), "ms", "")
		b.add(p.name+".bound", bound, "ms", "")
		b.add(p.name+".p99_of_bound", out.all.quantile(0.99)/bound, "times", "<= 1.5")
		b.add(p.name+".most_lag", float64(out.mostLag)/steadyRate, "seconds' worth", "<= 2")
		b.add(p.name+".lag_to_zero", out.toZero.Seconds(), "s", "<= 5")
		b.add(p.name+".peak_rss", out.peak/mib, "MiB", "<= 256")
		if out.commits >= 0 {
			b.add(p.name+".commits", out.commits, "bytes/s", "")
		}
	}
	out, err := b.pace(ctx, pace{
		name: "steady-mixed", sessions: 1000, rate: steadyRate, snapshots: 0.9,
		probes: 2 * mostProbes, every: steadyLook, long: b.size.steadyFor,
	})
	if out.all != nil {
		b.add("steady-mixed.changes_p99", out.changes.quantile(0.99), "ms", "")
		b.add("steady-mixed.snapshots_p99", out.snapshots.quantile(0.99), "ms", "")
		b.add("steady-mixed.changes_of_snapshots", out.changes.quantile(0.99)/out.snapshots.quantile(0.99), "times", "<= 0.3333")
	}
	return errors.Join(append(errs, err)...)
}
