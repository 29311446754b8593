package poller

import (
	"context"
	"time"
)

// tick keeps the gauges, lets stopped lanes try again, and has the valve look at
// ages.
func (p *consumer) tick(ctx context.Context) {
	t := time.NewTicker(min(time.Second, p.opts.StopRetry))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			p.sweep(now)
			p.updateGauges(now)
		}
	}
}

func (p *consumer) sweep(now time.Time) {
	stopped, filling, behind := 0, 0, int64(0)
	for _, a := range p.owned() {
		ready, s, f := a.sweep(now)
		p.sched.offer(ready...)
		p.valve.adjust(a)
		stopped, filling = stopped+s, filling+f
		l := a.load()
		behind += max(l.lag, int64(l.span))
		var age float64
		if l.span > 0 {
			age = max(0, now.Sub(l.written).Seconds())
		}
		p.showLag(a, float64(l.lag), age)
	}
	p.metrics.stopped.Set(float64(stopped))
	p.metrics.waiting.Set(float64(filling))
	p.noteIdle(now)
	p.behind.Store(behind)
	if behind == 0 {
		p.lastProgress.Store(now.UnixNano())
	}
}

// showLag sets a's gauges, unless it was let go meanwhile.
func (p *consumer) showLag(a *assignment, lag, age float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.assignments[a.partition] == a {
		p.metrics.lag.WithLabelValues(label(a.partition)).Set(lag)
		p.metrics.lagSeconds.WithLabelValues(label(a.partition)).Set(age)
	}
}

func (p *consumer) updateGauges(now time.Time) {
	st := p.sched.state()
	p.metrics.window.Set(float64(st.window))
	p.metrics.oldestUnacked.Set(0)
	if !st.oldest.IsZero() {
		p.metrics.oldestUnacked.Set(now.Sub(st.oldest).Seconds())
	}
	for _, c := range st.classes {
		p.metrics.inFlight.WithLabelValues(c.name).Set(float64(c.inFlight))
		p.metrics.ready.WithLabelValues(c.name).Set(float64(c.queued))
	}
	p.metrics.offenders.Reset()
	for rae, records := range p.ledger.offenders(now) {
		p.metrics.offenders.WithLabelValues(rae).Set(float64(records))
	}
	p.metrics.buffered.Set(float64(p.total.bytes.Load()))
}
