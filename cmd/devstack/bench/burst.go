package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// burst is one run of new sessions that come all at once on top of steady load.
type burst struct {
	name  string
	plain bool          // the plain consumer takes it
	flags []string      // of the poller
	kill  time.Duration // after this long in the burst; 0: not
}

// aftermath is what came of it.
type aftermath struct {
	took            time.Duration // until everything up to the burst's end is committed
	before, during  latencies     // of the steady sessions
	leastShare      float64       // of the floor, over any five seconds
	leastRate, peak float64       // sessions a second; bytes
}

func (b *bench) burst(ctx context.Context, p burst) (aftermath, error) {
	var out aftermath
	w, err := b.newWorld(ctx, p.name, !p.plain)
	if err != nil {
		return out, err
	}
	defer w.close()
	steady, fresh := newFleet("rae", burstOver, 6), newFleet("burst", b.size.burstSessions, 7)
	steady.probes(mostProbes)
	records, err := encode(w.topic, fresh, b.size.burstRecords, someSnapshots)
	if err != nil {
		return out, err
	}
	if p.plain {
		err = w.startPlain(ctx, false)
	} else {
		err = w.startPlatform(ctx, p.flags...)
	}
	if err != nil {
		return out, err
	}
	if err := w.opened(ctx, steady); err != nil {
		return out, err
	}
	x := w.watch(ctx, steadyLook)
	l := &load{w: w, f: steady, rate: steadyRate, snapshots: someSnapshots, watch: x}
	begun := time.Now()
	l.begin(ctx)
	if _, err := w.observe(ctx, begun, begun, begun.Add(b.size.warm+b.size.burstAfter)); err != nil {
		return out, errors.Join(err, l.halt(ctx))
	}
	from := time.Now()
	err = b.flooded(ctx, w, p, records, &out)
	to := time.Now()
	out.took = to.Sub(from)
	if err = errors.Join(err, l.halt(ctx)); err != nil {
		return out, err
	}
	if err := w.awaitNoLag(ctx, 2*time.Minute); err != nil {
		return out, err
	}
	if err := x.finish(ctx, w, time.Minute); err != nil {
		return out, err
	}
	out.before, out.during = x.taken(between(begun.Add(b.size.warm), from)), x.taken(between(from, to))
	consumer := w.poller
	if p.plain {
		consumer = w.plain
	}
	if _, out.peak, err = consumer.memory(); err != nil {
		return out, err
	}
	b.say("%s: %.1f s; steady sessions before: %s; in it: %s; processor time: %s", p.name, out.took.Seconds(), out.before, out.during, w.spent())
	return out, b.tables(ctx, w, steady, fresh)
}

// flooded sends the burst and returns when all of it is committed.
func (b *bench) flooded(ctx context.Context, w *world, p burst, records []*kgo.Record, out *aftermath) error {
	sampling, stop := context.WithCancel(ctx)
	shares := make(chan []work, 1)
	go func() { shares <- w.sample(sampling) }()
	defer func() {
		stop()
		out.leastShare, out.leastRate = b.least(<-shares)
	}()
	begun := time.Now()
	if err := w.flood(ctx, records); err != nil {
		return err
	}
	b.say("%s: %d records of %d new sessions are in Kafka", p.name, len(records), b.size.burstSessions)
	ends, err := w.ends(ctx)
	if err != nil {
		return err
	}
	if p.kill > 0 {
		if _, err := w.observe(ctx, begun, begun, begun.Add(p.kill)); err != nil {
			return err
		}
		b.say("%s: the poller is killed after %.1f s and started again", p.name, time.Since(begun).Seconds())
		w.poller.kill()
		if err := w.startPoller(ctx, p.flags...); err != nil {
			return err
		}
	}
	return w.reached(ctx, ends, 10*time.Minute)
}

// work is what the worker had done at one moment, in all.
type work struct {
	at             time.Time
	loads, applies float64 // sessions that were new; all
}

// sample reads the worker's counters every half second.
func (w *world) sample(ctx context.Context) []work {
	var out []work
	for ctx.Err() == nil && w.worker != nil {
		if m, err := scrape(ctx, w.workerAdm); err == nil {
			out = append(out, work{
				time.Now(), matching(m, "rollcall_session_activity_seconds_count{", `activity="LoadSession"`, `outcome="ok"`),
				matching(m, "rollcall_session_activity_seconds_count{", `activity="ApplyBatch"`, `outcome="ok"`),
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return out
}

// least is the least share of the machine's floor, and the least sessions a
// second, over any five seconds of the burst (all of it, where it is shorter).
// A session that is new counts by the floor of starts, one that is known by the
// floor of signals.
func (b *bench) least(samples []work) (share, rate float64) {
	const window = 5 * time.Second
	share, rate = math.Inf(1), math.Inf(1)
	for i := range samples {
		for j := i + 1; j < len(samples); j++ {
			took := samples[j].at.Sub(samples[i].at)
			whole := i == 0 && j == len(samples)-1
			if took < window && !whole {
				continue
			}
			loads, applies := samples[j].loads-samples[i].loads, samples[j].applies-samples[i].applies
			share = min(share, (loads/b.startFloor+(applies-loads)/b.floor)/took.Seconds())
			rate = min(rate, applies/took.Seconds())
			break
		}
	}
	return share, rate
}

func (b *bench) measureBurst(ctx context.Context) error {
	p, err := b.burst(ctx, burst{name: "burst-plain", plain: true})
	if err != nil {
		return err
	}
	b.plainBurst = p.took.Seconds()
	b.add("burst-plain", b.plainBurst, "s to lag zero", "")
	b.add("burst-plain.peak_rss", p.peak/mib, "MiB", "")

	one, err := b.burst(ctx, burst{name: "burst"})
	if one.took > 0 && one.peak > 0 {
		b.burstTime = one.took.Seconds()
		b.add("burst", b.burstTime, "s to lag zero", "")
		b.add("burst.vs_plain", b.burstTime/b.plainBurst, "times", "<= 1")
		b.add("burst.least_of_floor", one.leastShare, "times", ">= 0.8")
		b.add("burst.least_rate", one.leastRate, "sessions/s", "")
		b.add("burst.peak_rss", one.peak/mib, "MiB", "<= 256")
	}
	if err != nil {
		return err
	}

	class, err := b.burst(ctx, burst{name: "burst-class", flags: []string{"--class", "burst-*=1"}})
	if class.took > 0 && class.peak > 0 {
		b.add("burst-class", class.took.Seconds(), "s to lag zero", "")
		b.add("burst-class.steady_p99_before", class.before.quantile(0.99), "ms", "")
		b.add("burst-class.steady_p99", class.during.quantile(0.99), "ms", "")
		b.add("burst-class.steady_p99_of_before", class.during.quantile(0.99)/class.before.quantile(0.99), "times", "<= 2")
	}
	return err
}

func (b *bench) measureKill(ctx context.Context) error {
	if b.burstTime == 0 {
		return errors.New("the burst was not measured")
	}
	after := time.Duration(0.4 * b.burstTime * float64(time.Second))
	out, err := b.burst(ctx, burst{name: "kill", kill: after})
	if out.took > 0 && out.peak > 0 {
		b.add("kill", out.took.Seconds(), "s to lag zero", "")
		b.add("kill.beyond_burst", out.took.Seconds()-b.burstTime, "s", "<= 10")
	}
	if err != nil {
		return fmt.Errorf("kill: %s", strings.TrimPrefix(err.Error(), "kill: "))
	}
	return nil
}
