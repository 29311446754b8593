package poller

import (
	"time"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

// launch takes l's head into flight. Where an earlier owner of the partition
// may have sent it, the positions are read first: after a restart most of what
// is fetched again was applied, and needs no signal.
func (p *consumer) launch(l *lane, t *ticket) bool {
	f := l.a.take(l, t)
	if f == nil {
		return false
	}
	if f.fresh {
		p.workers.Go(func() { p.send(f) })
	} else {
		p.acks.watch(f)
	}
	return true
}

// send signals f until it is accepted, refused for good, or its partition is
// no longer ours. A signal that an outage fails keeps its place in the window:
// that is what closes the window, and what then pauses the partitions.
func (p *consumer) send(f *flight) {
	a := f.lane.a
	for n := 0; ; n++ {
		start := time.Now()
		err := p.signaller.signal(a.ctx, f.batch)
		if a.ctx.Err() != nil {
			p.drop(f)
			return
		}
		v := classify(err)
		p.metrics.signals.WithLabelValues(string(v)).Inc()
		switch v {
		case accepted:
			p.metrics.foldRecords.Observe(float64(f.batch.Records))
			p.metrics.signalSeconds.Observe(time.Since(start).Seconds())
			f.signalled = time.Now()
			p.acks.watch(f)
			return
		case refused:
			p.log.Error("lane stopped: Temporal refused the signal; look at the workflow, continue it as new or terminate it",
				"session", f.lane.session, "rae", f.batch.Fold.RAE, "partition", a.partition, "offset", f.batch.First,
				"retry_in", p.opts.StopRetry, "err", err)
			a.refused(f, time.Now().Add(p.opts.StopRetry))
			p.sched.release(f.ticket, false)
			return
		}
		f.ticket.resent = true
		if v != conflict && p.sched.cut() {
			p.metrics.windowCuts.WithLabelValues(string(v)).Inc()
		}
		if n == 3 {
			p.log.Warn("signals do not get through; partitions pause until they do",
				"session", f.lane.session, "partition", a.partition, "err", err)
		}
		backoff := retry.Backoff{First: 50 * time.Millisecond, Max: 10 * time.Second}
		if v != outage {
			backoff.First = 100 * time.Millisecond
		}
		if backoff.Sleep(a.ctx, n) != nil {
			p.drop(f)
			return
		}
	}
}

// drop ends a flight whose partition is no longer ours.
func (p *consumer) drop(f *flight) {
	f.lane.a.dropped()
	p.sched.release(f.ticket, false)
}

// land ends a flight whose batch is in the database.
func (p *consumer) land(f *flight) {
	a := f.lane.a
	records, again := a.applied(f)
	if records > 0 {
		if f.signalled.IsZero() {
			p.metrics.duplicates.Add(float64(records))
		} else {
			p.metrics.ackSeconds.Observe(time.Since(f.signalled).Seconds())
			p.metrics.applied.Add(float64(records))
		}
		p.completed(a, records)
	}
	if again {
		p.sched.offer(f.lane)
	}
	p.sched.release(f.ticket, records > 0 && !f.signalled.IsZero())
}

// completed is called after records of a were done.
func (p *consumer) completed(a *assignment, records int) {
	p.lastProgress.Store(time.Now().UnixNano())
	p.valve.adjust(a)
	p.commits.completed(records)
}
