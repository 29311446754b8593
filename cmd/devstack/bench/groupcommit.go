package main

import (
	"context"
	"errors"
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
// which waits for its own before it brings the next.
func (b *bench) measureGroupCommit(ctx context.Context) error {
	one, err := b.applyRate(ctx, "apply-one", func(db *store.Store) (activities.Applier, func(), error) {
		return activities.Direct{Store: db}, func() {}, nil
	})
	if err != nil {
		return err
	}
	b.add("group-commit.one_a_transaction", one, "sessions/s", "")
	many, err := b.applyRate(ctx, "apply-many", func(db *store.Store) (activities.Applier, func(), error) {
		c, err := groupcommit.New(groupcommit.Options{Store: db})
		if err != nil {
			return nil, nil, err
		}
		return c, func() {
			closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = c.Close(closing)
		}, nil
	})
	if err != nil {
		return err
	}
	b.add("group-commit", many, "sessions/s", "")
	b.add("group-commit.vs_one", many/one, "times", ">= 2")
	return nil
}

func (b *bench) applyRate(ctx context.Context, name string, applier func(*store.Store) (activities.Applier, func(), error)) (float64, error) {
	w, err := b.newDatabase(ctx, name)
	if err != nil {
		return 0, err
	}
	defer w.close()
	db, err := store.Open(ctx, store.Options{URL: w.url}) // 8 connections, as cmd/rollcall
	if err != nil {
		return 0, err
	}
	defer db.Close()
	to, end, err := applier(db)
	if err != nil {
		return 0, err
	}
	defer end()
	f := newFleet("rae", sessionsMany/groupCallers*groupCallers, 4) // each caller has its own
	send := func(d *dut, e device.Event) error {
		u := store.Update{
			RAE: d.rae, Session: d.session, AsOf: e.Seq, Seen: device.SeqSet{{From: 1, To: e.Seq}},
			First: e.Time, Last: e.Time, Received: e.Time, Write: e.Attributes, Events: 1, Records: 1,
			Positions: []device.Position{{Topic: w.topic, Partition: int32(d.number % partitions), Next: e.Seq}}, //nolint:gosec // a remainder
		}
		return to.Apply(ctx, u)
	}
	var count atomic.Int64
	run := func(until func(d *dut) bool, event func(*dut) device.Event) error {
		var group sync.WaitGroup
		errs := make([]error, groupCallers)
		for i := range groupCallers {
			group.Go(func() {
				for n := 0; ; n++ {
					d := f.duts[n*groupCallers%len(f.duts)+i]
					if until(d) {
						return
					}
					if errs[i] = send(d, event(d)); errs[i] != nil {
						return
					}
					count.Add(1)
				}
			})
		}
		group.Wait()
		return errors.Join(errs...)
	}
	if err := run(func(d *dut) bool { return d.seq > 0 }, (*dut).open); err != nil {
		return 0, err
	}
	warm := time.Now().Add(b.size.groupCommit / 4)
	if err := run(func(*dut) bool { return time.Now().After(warm) }, (*dut).delta); err != nil {
		return 0, err
	}
	begun, from := time.Now(), count.Load()
	if err := run(func(*dut) bool { return time.Since(begun) > b.size.groupCommit }, (*dut).delta); err != nil {
		return 0, err
	}
	rate := float64(count.Load()-from) / time.Since(begun).Seconds()
	wrong, err := w.wrong(ctx, f)
	if err == nil && wrong > 0 {
		err = errors.New(name + " left wrong rows")
	}
	return rate, err
}
