package main

import (
	"context"
	"errors"
	"time"
)

// measureOutage stops the database in steady load, then the worker. The
// database's server ends and comes back on the port it had; the worker drains
// on SIGTERM, and another one starts.
//
// What a backlog of that depth should take is measured first, in the same load:
// the poller is stopped for as long and started again, so that the records have
// only waited in Kafka.
func (b *bench) measureOutage(ctx context.Context) error {
	w, err := b.newWorld(ctx, "outage", true)
	if err != nil {
		return err
	}
	defer w.close()
	f := newFleet("rae", burstOver, 8)
	if err := w.startPlatform(ctx); err != nil {
		return err
	}
	if err := w.opened(ctx, f); err != nil {
		return err
	}
	l := &load{w: w, f: f, rate: steadyRate, snapshots: someSnapshots}
	l.begin(ctx)
	err = b.outages(ctx, w)
	if err = errors.Join(err, l.halt(ctx)); err != nil {
		return err
	}
	if err := w.awaitNoLag(ctx, 5*time.Minute); err != nil {
		return err
	}
	dead, err := w.dead(ctx)
	if err != nil {
		return err
	}
	b.add("outage.dead_letters", float64(dead), "records", "= 0")
	return b.tables(ctx, w, f)
}

func (b *bench) outages(ctx context.Context, w *world) error {
	begun := time.Now()
	if _, err := w.observe(ctx, begun, begun, begun.Add(b.size.warm+b.size.burstAfter)); err != nil {
		return err
	}
	for _, o := range []struct {
		name       string
		stop, back func() error
	}{
		{
			"outage-poller",
			func() error { w.poller.stop(); w.poller = nil; return nil },
			func() error { return w.startPoller(ctx) },
		},
		{
			"outage-database",
			func() error { b.postgres.Stop(); return nil },
			func() error { w.pool.Reset(); return b.startPostgres(ctx, b.postgres.Port()) },
		},
		{
			"outage-worker",
			func() error { w.worker.stop(); w.worker = nil; return nil },
			func() error { return w.startWorker(ctx) },
		},
	} {
		if err := b.outage(ctx, w, o.name, o.stop, o.back); err != nil {
			return err
		}
		begun := time.Now() // let it settle before the next
		if _, err := w.observe(ctx, begun, begun, begun.Add(b.size.warm)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) outage(ctx context.Context, w *world, name string, stop, back func() error) error {
	control := b.waited == 0
	_, before, err := w.poller.memory()
	if err != nil {
		return err
	}
	b.say("%s: stops for %.0f s", name, b.size.outage.Seconds())
	if err := stop(); err != nil {
		return err
	}
	stopped := time.Now()
	if _, err := w.observe(ctx, stopped, stopped, stopped.Add(b.size.outage)); err != nil {
		return err
	}
	if err := back(); err != nil {
		return err
	}
	returned := time.Now()
	ends, err := w.ends(ctx)
	if err != nil {
		return err
	}
	committed, err := w.committed(ctx)
	if err != nil {
		return err
	}
	lag := ends.sum() - committed.sum()
	b.say("%s: is back; lag %d records", name, lag)
	if err := w.reached(ctx, ends, 5*time.Minute); err != nil {
		return err
	}
	took := time.Since(returned)
	rate := float64(lag) / took.Seconds()
	b.add(name, took.Seconds(), "s to lag zero", "")
	b.add(name+".recovery", rate, "records/s", "")
	if control {
		b.waited = rate
		return nil
	}
	_, peak, err := w.poller.memory()
	if err != nil {
		return err
	}
	b.add(name+".recovery_of_backlog", rate/b.waited, "times", ">= 0.8")
	b.add(name+".peak_rss_growth", (peak-before)/mib, "MiB", "<= 32")
	return nil
}
