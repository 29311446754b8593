// Package commitload puts the load of a busy session worker on what commits
// updates: many callers, each with one session's update at a time, that wait
// for it before they send the next. It is for benchmarks.
package commitload

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// Applier is activities.Applier.
type Applier interface {
	Apply(ctx context.Context, u store.Update) error
}

// Options of Run.
type Options struct {
	Sessions   int // that there are. Default 1000.
	Callers    int // at a time. Default 64, a poller's usual window.
	Attributes int // that each update writes. Default 20.
	Updates    int // in all. Default 10,000.
}

// Result says how fast the updates were committed.
type Result struct {
	Updates  int
	Elapsed  time.Duration
	P50, P99 time.Duration // from call to return
}

// PerSecond is the throughput, in sessions a second.
func (r Result) PerSecond() float64 { return float64(r.Updates) / r.Elapsed.Seconds() }

// Load is sessions that exist, and go on from where they are.
type Load struct {
	o        Options
	sessions []string
	seq      atomic.Int64 // of the newest event of any session
}

// New makes the sessions, by applying one update of each.
func New(ctx context.Context, a Applier, o Options) (*Load, error) {
	set := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	set(&o.Sessions, 1000)
	set(&o.Callers, 64)
	set(&o.Attributes, 20)
	set(&o.Updates, 10_000)
	l := &Load{o: o}
	for range o.Sessions {
		l.sessions = append(l.sessions, uuid.NewString())
	}
	_, err := l.run(ctx, a, o.Sessions)
	return l, err
}

// Run applies Updates updates to the sessions in turn.
func (l *Load) Run(ctx context.Context, a Applier) (Result, error) { return l.run(ctx, a, l.o.Updates) }

func (l *Load) run(ctx context.Context, a Applier, updates int) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([]time.Duration, updates)
	var next atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	for range l.o.Callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= updates {
					return
				}
				called := time.Now()
				if err := a.Apply(ctx, l.update(l.sessions[i%len(l.sessions)])); err != nil {
					cancel(fmt.Errorf("update %d: %w", i, err))
				}
				took[i] = time.Since(called)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	r := Result{Updates: updates, Elapsed: time.Since(begun)}
	slices.Sort(took)
	r.P50, r.P99 = took[updates/2], took[updates*99/100]
	return r, nil
}

// update is what a workflow writes when a delta has come: new values, of
// about 40 bytes each.
func (l *Load) update(session string) store.Update {
	seq := l.seq.Add(1)
	now := time.Now().UTC().Truncate(time.Microsecond)
	u := store.Update{
		RAE: "RAE-LOAD-1", Session: session, AsOf: seq, Seen: device.SeqSet{{From: 1, To: seq}},
		First: now, Last: now, Received: now, Events: 1, Records: 1,
		Positions: []device.Position{{Topic: device.KafkaEvents, Partition: 3, Next: seq}},
		Write:     make(map[string]device.Attribute, l.o.Attributes),
	}
	for i := range l.o.Attributes {
		u.Write[fmt.Sprintf("load.attribute_%d", i)] = device.Attribute{
			Value: fmt.Appendf(nil, `"the value as of event %016d"`, seq), Seq: seq, At: now,
		}
	}
	return u
}
