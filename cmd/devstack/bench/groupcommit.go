package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-platform/rollcall/activities"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/groupcommit"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// groupCallers is how many sessions' workflows wait for their apply at a time:
// the poller's window when it is open.
const groupCallers = 64

// measureGroupCommit compares the two appliers of the session worker alone,
// without Temporal and Kafka: the same updates, by as many callers, each of
// which waits for its own before it brings the next. And it says what history
// costs.
func (b *bench) measureGroupCommit(ctx context.Context) error {
	one, err := b.applyRate(ctx, "apply-one", direct)
	if err != nil {
		return err
	}
	b.add("group-commit.one_a_transaction", one, "sessions/s", "")
	many, err := b.applyRate(ctx, "apply-many", grouped)
	if err != nil {
		return err
	}
	b.add("group-commit", many, "sessions/s", "")
	b.add("group-commit.vs_one", many/one, "times", ">= 2")
	cost, err := b.historyCost(ctx)
	if err != nil {
		return err
	}
	b.add("history.cost", cost, "of the write rate", "<= 0.3")
	return nil
}

// historyRounds is how often writing with history and without are measured, by
// turns: what else the machine does hits both.
const historyRounds = 7

// historyCost is the share of the write rate that history takes: 1 - on/off,
// the median of the rounds.
func (b *bench) historyCost(ctx context.Context) (float64, error) {
	with, err := b.newApplies(ctx, "history-on", store.Options{}, grouped)
	if err != nil {
		return 0, err
	}
	defer with.close()
	without, err := b.newApplies(ctx, "history-off", store.Options{NoHistory: true}, grouped)
	if err != nil {
		return 0, err
	}
	defer without.close()
	costs := make([]float64, 0, historyRounds)
	for range historyRounds {
		on, err := with.rate(ctx, b.size.groupCommit/4)
		if err != nil {
			return 0, err
		}
		off, err := without.rate(ctx, b.size.groupCommit/4)
		if err != nil {
			return 0, err
		}
		b.say("history on %.0f, off %.0f sessions/s", on, off)
		costs = append(costs, 1-on/off)
	}
	slices.Sort(costs)
	return costs[len(costs)/2], errors.Join(with.check(ctx), without.check(ctx))
}

// direct makes each update a transaction of its own.
func direct(db *store.Store) (activities.Applier, func(), error) {
	return activities.Direct{Store: db}, func() {}, nil
}

// grouped gathers updates, as the worker does.
func grouped(db *store.Store) (activities.Applier, func(), error) {
	c, err := groupcommit.New(groupcommit.Options{Store: db})
	if err != nil {
		return nil, nil, err
	}
	return c, func() {
		closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.Close(closing)
	}, nil
}

func (b *bench) applyRate(ctx context.Context, name string, applier func(*store.Store) (activities.Applier, func(), error)) (float64, error) {
	a, err := b.newApplies(ctx, name, store.Options{}, applier)
	if err != nil {
		return 0, err
	}
	defer a.close()
	if _, err := a.rate(ctx, b.size.groupCommit/4); err != nil { // warm
		return 0, err
	}
	rate, err := a.rate(ctx, b.size.groupCommit)
	return rate, errors.Join(err, a.check(ctx))
}

// applies are callers that each bring the updates of sessions of their own.
type applies struct {
	w     *world
	fleet *fleet
	to    activities.Applier
	end   []func() // in the order of what was opened
}

// newApplies opens every session, in a database of its own.
func (b *bench) newApplies(ctx context.Context, name string, o store.Options, applier func(*store.Store) (activities.Applier, func(), error)) (*applies, error) {
	w, err := b.newDatabase(ctx, name)
	if err != nil {
		return nil, err
	}
	a := &applies{w: w, fleet: newFleet("rae", sessionsMany/groupCallers*groupCallers, 4), end: []func(){w.close}}
	o.URL = w.url // 8 connections, as cmd/rollcall
	db, err := store.Open(ctx, o)
	if err != nil {
		a.close()
		return nil, err
	}
	a.end = append(a.end, db.Close)
	to, end, err := applier(db)
	if err != nil {
		a.close()
		return nil, err
	}
	a.to, a.end = to, append(a.end, end)
	if _, err := a.run(ctx, func(d *dut) bool { return d.seq > 0 }, (*dut).open); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *applies) close() {
	for _, end := range slices.Backward(a.end) {
		end()
	}
}

// rate is how many deltas are applied a second, in that time.
func (a *applies) rate(ctx context.Context, in time.Duration) (float64, error) {
	begun := time.Now()
	n, err := a.run(ctx, func(*dut) bool { return time.Since(begun) > in }, (*dut).delta)
	return float64(n) / time.Since(begun).Seconds(), err
}

// run has each caller bring one event after the other.
func (a *applies) run(ctx context.Context, until func(d *dut) bool, event func(*dut) device.Event) (int64, error) {
	var count atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, groupCallers)
	for i := range groupCallers {
		group.Go(func() {
			for n := 0; ; n++ {
				d := a.fleet.duts[n*groupCallers%len(a.fleet.duts)+i]
				if until(d) {
					return
				}
				if errs[i] = a.apply(ctx, d, event(d)); errs[i] != nil {
					return
				}
				count.Add(1)
			}
		})
	}
	group.Wait()
	return count.Load(), errors.Join(errs...)
}

func (a *applies) apply(ctx context.Context, d *dut, e device.Event) error {
	return a.to.Apply(ctx, store.Update{
		RAE: d.rae, Session: d.session, AsOf: e.Seq, Seen: device.SeqSet{{From: 1, To: e.Seq}},
		First: e.Time, Last: e.Time, Received: e.Time, Write: e.Attributes, Events: 1, Records: 1,
		Positions: []device.Position{{Topic: a.w.topic, Partition: int32(d.number % partitions), Next: e.Seq}}, //nolint:gosec // a remainder
	})
}

// check compares the tables with the model.
func (a *applies) check(ctx context.Context) error {
	wrong, err := a.w.wrong(ctx, a.fleet)
	if err == nil && wrong > 0 {
		err = errors.New(a.w.name + " left wrong rows")
	}
	return err
}
