package poller

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

// positionsTimeout bounds one read of positions.
const positionsTimeout = 10 * time.Second

// ackCoalesceDelay is how long a flight that was not signalled waits for others,
// so that one read serves them all.
const ackCoalesceDelay = 2 * time.Millisecond

// acker reads the ingest positions of the sessions in flight, and of no other.
//
// Invariant: a flight is either with the acker or with a sender, never both. It
// leaves the acker by exactly one of land, drop and send.
type acker struct {
	acks     Acks
	min, max time.Duration
	timeout  time.Duration
	log      *slog.Logger
	metrics  *metrics

	land func(*flight) // it is applied
	drop func(*flight) // its partition is gone
	send func(*flight) // signal it (again); must not block

	mu      sync.Mutex
	flights map[*flight]struct{}
	wake    chan struct{} // holds one: there is something to look for soon
}

// watch takes f over until it is applied.
func (k *acker) watch(f *flight) {
	k.mu.Lock()
	k.flights[f] = struct{}{}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *acker) unwatch(f *flight) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.flights, f)
}

func (k *acker) watched() []*flight {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.flights))
}

// run reads until ctx ends. While reads find nothing they slow down to max; a
// new flight, or one that has landed, makes them quick again. A flight that was
// not signalled waits for the answer, and has it almost at once.
func (k *acker) run(ctx context.Context) {
	cadence, failures := k.min, 0
	for {
		flights := k.watched()
		if len(flights) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-k.wake:
				cadence = k.min
				continue
			}
		}
		pause := cadence
		if failures == 0 && slices.ContainsFunc(flights, func(f *flight) bool { return f.signalled.IsZero() }) {
			pause = min(pause, ackCoalesceDelay)
		}
		if retry.Sleep(ctx, pause) != nil {
			return
		}
		landed, err := k.readPositions(ctx, k.watched())
		if ctx.Err() != nil {
			return
		}
		select {
		case <-k.wake:
			landed++
		default:
		}
		switch {
		case err != nil:
			k.metrics.ackReads.WithLabelValues("error").Inc()
			if failures++; failures == 3 {
				k.log.Warn("cannot read ingest positions; nothing is committed until it can be", "err", err)
			}
			cadence = k.max
		case landed > 0:
			cadence, failures = k.min, 0
		default:
			cadence, failures = min(cadence*3/2, k.max), 0
		}
	}
}

// readPositions reads once, and ends or sends again every flight that the answer
// decides.
func (k *acker) readPositions(ctx context.Context, flights []*flight) (landed int, err error) {
	var sessions []string
	flights = slices.DeleteFunc(flights, func(f *flight) bool {
		gone := f.lane.a.ctx.Err() != nil
		if gone {
			k.unwatch(f)
			k.drop(f)
		} else {
			sessions = append(sessions, f.lane.session)
		}
		return gone
	})
	if len(flights) == 0 {
		return 0, nil
	}
	slices.Sort(sessions)
	ctx, cancel := context.WithTimeout(ctx, positionsTimeout)
	defer cancel()
	asked := time.Now()
	positions, err := k.acks.Positions(ctx, slices.Compact(sessions))
	if err != nil {
		return 0, err
	}
	k.metrics.ackReads.WithLabelValues("ok").Inc()
	for _, f := range flights {
		switch {
		case f.batch.DoneWith(positions[f.lane.session]):
			landed++
			k.unwatch(f)
			k.land(f)
		case f.signalled.IsZero():
			k.unwatch(f)
			k.send(f)
		case asked.Sub(f.signalled) > k.timeout:
			k.metrics.resignals.Inc()
			f.ticket.resent = true
			k.log.Warn("batch is not applied, signalling again", "session", f.lane.session, "partition", f.batch.Partition,
				"offset", f.batch.First, "after", asked.Sub(f.signalled))
			k.unwatch(f)
			k.send(f)
		}
	}
	return landed, nil
}
