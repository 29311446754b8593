package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// produce sends rounds events of every device of the fleet, as fast as Kafka
// takes them: round by round, so that the sessions are interleaved, which is
// worst for whoever folds. It returns when all are acknowledged.
func (w *world) produce(ctx context.Context, f *fleet, rounds int, snapshots float64) error {
	records := make(chan *kgo.Record, 1000)
	var failed atomic.Pointer[error]
	var sent sync.WaitGroup
	sent.Go(func() {
		for r := range records {
			w.bulk.Produce(ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(&err)
				}
			})
		}
	})
	told, n := time.Now(), 0
	var err error
	for range rounds {
		for _, d := range f.duts {
			var r *kgo.Record
			if r, err = record(w.topic, d, d.next(f.random, snapshots)); err != nil {
				break
			}
			records <- r
			if n++; time.Since(told) > 5*time.Second {
				told = time.Now()
				w.b.say("%s: %d of %d records are produced", w.name, n, rounds*len(f.duts))
			}
		}
		if err != nil || ctx.Err() != nil || failed.Load() != nil {
			break
		}
	}
	close(records)
	sent.Wait()
	err = errors.Join(err, w.bulk.Flush(ctx))
	if e := failed.Load(); e != nil {
		err = errors.Join(err, *e)
	}
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return nil
}

// encode makes records without sending them: rounds of every device.
func encode(topic string, f *fleet, rounds int, snapshots float64) ([]*kgo.Record, error) {
	out := make([]*kgo.Record, 0, rounds*len(f.duts))
	for range rounds {
		for _, d := range f.duts {
			r, err := record(topic, d, d.next(f.random, snapshots))
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, nil
}

// flood sends records at once.
func (w *world) flood(ctx context.Context, records []*kgo.Record) error {
	if err := w.bulk.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return nil
}

// load produces at a rate, open loop: what is slow behind Kafka does not slow
// it down. Each record is of a device drawn at random.
type load struct {
	w         *world
	f         *fleet
	rate      int
	snapshots float64
	watch     *watch // may be nil

	stop    context.CancelFunc
	done    chan struct{}
	failed  atomic.Pointer[error]
	records int64
	bytes   int64
	late    time.Duration // the most that the generator was behind its own clock
}

// begin starts producing. halt ends it.
func (l *load) begin(ctx context.Context) {
	ctx, l.stop = context.WithCancel(ctx)
	l.done = make(chan struct{})
	go func() {
		defer close(l.done)
		if err := l.run(ctx); err != nil {
			l.failed.Store(&err)
		}
	}()
}

func (l *load) run(ctx context.Context) error {
	begun := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due := int64(time.Since(begun).Seconds() * float64(l.rate))
		for ; l.records < due; l.records++ {
			d := l.f.any()
			e := d.next(l.f.random, l.snapshots)
			r, err := record(l.w.topic, d, e)
			if err != nil {
				return err
			}
			now := time.Now()
			planned := begun.Add(time.Duration(float64(l.records) / float64(l.rate) * float64(time.Second)))
			l.late = max(l.late, now.Sub(planned))
			l.bytes += int64(len(r.Value))
			if l.watch != nil && d.probe {
				l.watch.sent(d.session, e.Seq, now, e.Type == device.Snapshot)
			}
			// Not with ctx: what the model has taken must be produced.
			l.w.paced.Produce(context.WithoutCancel(ctx), r, func(_ *kgo.Record, err error) {
				if err != nil {
					l.failed.Store(&err)
				}
			})
		}
	}
}

// halt stops producing and waits until Kafka has all of it.
func (l *load) halt(ctx context.Context) error {
	l.stop()
	<-l.done
	err := l.w.paced.Flush(ctx)
	if e := l.failed.Load(); e != nil {
		err = errors.Join(err, *e)
	}
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return nil
}
