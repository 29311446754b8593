package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-platform/rollcall/edge/registry"
)

const (
	ackEvery = 64                    // acknowledged events that make a transaction worth while
	ackDelay = 20 * time.Millisecond // and how long fewer wait for more
)

// pump moves events from the outbox to the MQTT session. Not safe for concurrent use.
type pump struct {
	u       *Uplink
	session *mqttSession

	unsent []registry.Entry // read and not sent
	cursor uint64           // key of the newest event that was sent
	more   bool             // the outbox may hold events behind those in unsent

	through  uint64    // all up to it are acknowledged by the broker
	removed  uint64    // and removed from the outbox up to here
	ackSince time.Time // when through began to differ from removed

	refusals       int       // in a row
	outboxFailures int       // of the outbox, in a row
	sendAfter      time.Time // nothing is sent before it
}

// run pumps until ctx is done.
func (p *pump) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.wait(ctx, p.step(ctx))
	}
}

// drain pumps until all is published, there is no connection, the broker
// refuses, or ctx is done.
func (p *pump) drain(ctx context.Context) {
	for ctx.Err() == nil {
		next := p.step(ctx)
		st := p.session.peek()
		if !st.up || p.refusals > 0 || !p.more && len(p.unsent) == 0 && st.flights == 0 && p.removed == p.through {
			break
		}
		p.wait(ctx, next)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	p.removeAcked(last)
}

// step does what can be done now and returns when it wants to be called again
// without anything having happened; zero: not.
func (p *pump) step(ctx context.Context) time.Time {
	st := p.session.poll()
	p.noteAnswers(st)
	if st.lost {
		p.rewind()
	}
	if st.refused != nil && (st.unanswered == 0 || st.lost || !st.up) {
		if !st.up {
			// The broker hung up on us for it. What paho would repeat at
			// once on the next connection is ours to repeat, later.
			p.u.startClean()
		}
		p.retryRefused(st.refused)
		st = p.session.peek()
	}
	now := time.Now()
	if p.through > p.removed && (p.through-p.removed >= ackEvery || now.Sub(p.ackSince) >= ackDelay || st.flights == 0) {
		p.removeAcked(ctx)
	}
	if st.up && st.refused == nil && !now.Before(p.sendAfter) {
		if st.unusable != "" {
			p.u.setRefusal(errors.New(st.unusable))
		} else {
			if p.refusals == 0 {
				p.u.setRefusal(nil)
			}
			p.fill(ctx, st)
		}
	}
	var next time.Time
	if p.through > p.removed {
		next = p.ackSince.Add(ackDelay)
	}
	if p.sendAfter.After(now) && (next.IsZero() || p.sendAfter.Before(next)) {
		next = p.sendAfter
	}
	return next
}

// noteAnswers takes note of acknowledgements.
func (p *pump) noteAnswers(st status) {
	for _, f := range st.answered {
		p.u.metrics.published.WithLabelValues(resultAcked).Inc()
		p.u.metrics.puback.Observe(f.took.Seconds())
		if p.through == p.removed {
			p.ackSince = time.Now()
		}
		p.through = f.key
	}
	if len(st.answered) > 0 && p.refusals > 0 && st.refused == nil {
		p.refusals = 0
		p.u.setRefusal(nil)
		p.u.o.Logger.Info("broker takes events again", "url", p.u.url.String())
	}
}

// retryRefused starts again at the oldest event without an acknowledgement, later.
func (p *pump) retryRefused(f *flight) {
	p.session.reset()
	p.rewind()
	p.refusals++
	p.sendAfter = time.Now().Add(p.u.backoff(p.refusals + 2))
	result, why := resultRefused, fmt.Sprintf("PUBACK with reason 0x%02x", f.reason)
	if f.reason < 0x80 {
		result, why = resultUnheard, "no one is subscribed to the events (PUBACK with reason 0x10): is the bridge running?"
	}
	p.u.metrics.published.WithLabelValues(result).Inc()
	err := fmt.Errorf("broker refuses event %d: %s", f.key, why)
	if p.refusals == 1 {
		p.u.o.Logger.Warn("broker refuses an event; retrying with back-off, nothing is dropped", "url", p.u.url.String(), "key", f.key, "err", err)
	}
	p.u.setRefusal(err)
}

// rewind goes back to the oldest event without an acknowledgement.
func (p *pump) rewind() {
	p.unsent, p.cursor, p.more = nil, p.through, true
}

// removeAcked takes what is acknowledged out of the outbox.
func (p *pump) removeAcked(ctx context.Context) {
	if p.through == p.removed {
		return
	}
	if err := p.u.o.Outbox.Ack(ctx, p.through); err != nil {
		p.outboxFailed(ctx, err)
		return
	}
	p.outboxFailures, p.removed = 0, p.through
}

// outboxFailed backs off from an outbox that cannot be read or written.
func (p *pump) outboxFailed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	p.outboxFailures++
	p.sendAfter = time.Now().Add(p.u.backoff(p.outboxFailures + 2))
	p.ackSince = p.sendAfter
	p.u.o.Logger.Error("outbox failed; trying again", "err", err)
}

// fill sends events until the window is full or the outbox is exhausted.
func (p *pump) fill(ctx context.Context, st status) {
	window := min(p.u.o.Window, st.window)
	if p.refusals > 0 {
		window = 1 // so that no later event overtakes the one that is refused
	}
	for n := st.flights; n < window && ctx.Err() == nil; n++ {
		if len(p.unsent) == 0 && p.more {
			var err error
			if p.unsent, err = p.u.o.Outbox.Read(p.cursor, max(window, ackEvery)); err != nil {
				p.outboxFailed(ctx, err)
				return
			}
			p.more = len(p.unsent) > 0
		}
		if len(p.unsent) == 0 {
			return
		}
		e := p.unsent[0]
		err := p.session.send(ctx, st.epoch, e.Key, e.Topic, e.Payload)
		if p.session.inFlight(e.Key) {
			// Written or not: the MQTT session repeats it, or says it is lost.
			p.unsent, p.cursor = p.unsent[1:], e.Key
		}
		if err != nil {
			return // the connection is going; what follows wakes us up
		}
	}
}

// wait returns when something happened, at next, or when ctx is done.
func (p *pump) wait(ctx context.Context, next time.Time) {
	var timer <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-timer:
	case <-p.session.changed:
	case <-p.u.o.Outbox.Appended():
		p.more = true
	}
}
