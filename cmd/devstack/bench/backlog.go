package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

const mib = 1 << 20

// drained is how a consumer got through what waited for it.
type drained struct {
	rate, peak float64 // records a second; bytes
}

// plainBacklog is the plain consumer on a backlog. The clock runs from the
// start of its process to the commit of the last record.
func (b *bench) plainBacklog(ctx context.Context, name string, batched bool) (drained, error) {
	w, err := b.newWorld(ctx, name, false)
	if err != nil {
		return drained{}, err
	}
	defer w.close()
	f := newFleet("rae", min(sessionsMany, b.size.plainRecords/3), 1)
	if err := w.produce(ctx, f, b.size.plainRecords/len(f.duts), someSnapshots); err != nil {
		return drained{}, err
	}
	begun := time.Now()
	if err := w.startPlain(ctx, batched); err != nil {
		return drained{}, err
	}
	out, err := w.drain(ctx, begun, w.plain)
	if err != nil {
		return drained{}, err
	}
	return out, b.tables(ctx, w, f)
}

// drain waits for the end of the backlog.
func (w *world) drain(ctx context.Context, begun time.Time, consumer *process) (drained, error) {
	ends, err := w.ends(ctx)
	if err != nil {
		return drained{}, err
	}
	if err := w.reached(ctx, ends, 15*time.Minute); err != nil {
		return drained{}, err
	}
	took := time.Since(begun)
	_, peak, err := consumer.memory()
	w.b.say("%s: %d records in %.1f s; processor time: %s", w.name, ends.sum(), took.Seconds(), w.spent())
	return drained{float64(ends.sum()) / took.Seconds(), peak}, err
}

// spent is the processor time of each process since it started, and of this one
// since the world began. Of PostgreSQL it is that of the connections that are open.
func (w *world) spent() string {
	var parts []string
	for _, p := range []*process{w.poller, w.worker, w.plain, w.temporal, w.kafka} {
		if p != nil {
			parts = append(parts, fmt.Sprintf("%s %.1f s", p.name, p.cpu().Seconds()))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("postgres %.1f s, the benchmark itself %.1f s",
		childrenCPU(w.b.postgres.PID()).Seconds(), (cpuOf("self")-w.self).Seconds())), ", ")
}

func childrenCPU(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	var sum time.Duration
	for _, child := range strings.Fields(string(b)) {
		sum += cpuOf(child)
	}
	return sum
}

func (b *bench) measurePlain(ctx context.Context) error {
	one, err := b.plainBacklog(ctx, "plain", false)
	if err != nil {
		return err
	}
	b.plainRate = one.rate
	b.add("plain", one.rate, "records/s", "")
	b.add("plain.peak_rss", one.peak/mib, "MiB", "")
	batched, err := b.plainBacklog(ctx, "plain-batched", true)
	if err != nil {
		return err
	}
	b.batchedRate = batched.rate
	b.add("plain-batched", batched.rate, "records/s", "")
	b.add("plain-batched.peak_rss", batched.peak/mib, "MiB", "")
	return nil
}

func (b *bench) measureBacklog(ctx context.Context) error {
	for i, size := range b.size.backlogs {
		if err := b.backlogOf(ctx, size, i == len(b.size.backlogs)-1); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) backlogOf(ctx context.Context, size backlog, last bool) error {
	name := "backlog-" + short(size.records)
	w, err := b.newWorld(ctx, name, true)
	if err != nil {
		return err
	}
	defer w.close()
	f := newFleet("rae", size.sessions, 2)
	if err := w.produce(ctx, f, size.records/size.sessions, someSnapshots); err != nil {
		return err
	}
	if err := w.startWorker(ctx); err != nil {
		return err
	}
	begun := time.Now()
	if err := w.startPoller(ctx); err != nil {
		return err
	}
	out, err := w.drain(ctx, begun, w.poller)
	if err != nil {
		return err
	}
	b.add(name+".peak_rss", out.peak/mib, "MiB", "<= 256")
	b.add(name, out.rate, "records/s", "")
	if metrics, err := scrape(ctx, w.pollerAdmin); err == nil {
		signals, applied := matching(metrics, "rollcall_poller_signals_total{", `outcome="accepted"`), metrics["rollcall_poller_applied_records_total"]
		if signals == 0 || applied == 0 {
			return fmt.Errorf("%s: a poller that has drained tells of %v signals and %v applied records", name, signals, applied)
		}
		b.add(name+".records_per_signal", applied/signals, "records", "")
	}
	if last {
		b.add("backlog.vs_plain", out.rate/b.plainRate, "times", ">= 5")
		b.add("backlog.vs_plain_batched", out.rate/b.batchedRate, "times", ">= 1")
	}
	return b.tables(ctx, w, f)
}

// short is 100k or 1m.
func short(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dm", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}
