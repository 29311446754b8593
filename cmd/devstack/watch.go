package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/view"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// group is the poller's default consumer group.
const group = "rollcall-poller"

// watch looks at the stack from outside: its metrics, Kafka's offsets and the
// database's tables.
type watch struct {
	stack *stack
	raes  []*rae
	begun time.Time
	kafka *kadm.Client
	last  atomic.Pointer[view.Status]
}

func newWatch(s *stack, raes []*rae, begun time.Time) *watch {
	w := &watch{stack: s, raes: raes, begun: begun, kafka: kadm.NewClient(s.kafka)}
	w.last.Store(&view.Status{Phase: "started", Links: w.links()})
	return w
}

// status is the newest look. It does not block.
func (w *watch) status() view.Status { return *w.last.Load() }

// run looks until ctx is cancelled.
func (w *watch) run(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		s := w.look(ctx)
		if ctx.Err() != nil {
			return
		}
		w.last.Store(&s)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look gathers a status. What cannot be had at the moment keeps its last value.
func (w *watch) look(ctx context.Context) view.Status {
	s := w.status()
	s.Up, s.Phase = time.Since(w.begun), w.phase()
	if lag, err := w.lag(ctx); err == nil {
		s.Lag = lag
	}
	if devices, err := w.devices(ctx); err == nil {
		s.Devices, s.Sessions = devices, len(devices)
	}
	s.Outbox = 0
	for _, r := range w.raes {
		s.Outbox += r.pending()
	}
	w.counters(&s)
	return s
}

func (w *watch) phase() string {
	if len(w.raes) == 0 {
		return "waiting for an edge"
	}
	var parts []string
	for _, r := range w.raes {
		parts = append(parts, r.phase())
	}
	return strings.Join(parts, ", ")
}

// lag counts the records that the poller has not committed as applied.
func (w *watch) lag(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ends, err := w.kafka.ListEndOffsets(ctx, device.KafkaEvents)
	if err != nil {
		return 0, err
	}
	committed, err := w.kafka.FetchOffsets(ctx, group)
	if err != nil {
		return 0, err
	}
	var lag int64
	ends.Each(func(o kadm.ListedOffset) {
		at := int64(0)
		if c, ok := committed.Lookup(o.Topic, o.Partition); ok && c.At > 0 {
			at = c.At
		}
		lag += o.Offset - at
	})
	return lag, nil
}

func (w *watch) devices(ctx context.Context) ([]view.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	page, err := w.stack.store.ListDevices(ctx, store.Filter{Limit: 500})
	if err != nil {
		return nil, err
	}
	edge := map[string]int64{}
	for _, r := range w.raes {
		for _, d := range r.edge.Devices() {
			edge[d.Session] = d.Seq
		}
	}
	out := make([]view.Device, 0, len(page.Devices))
	for _, d := range page.Devices {
		out = append(out, view.Device{
			RAE: d.RAE, Session: d.Session, MAC: d.MAC, Address: d.IPv4, Name: d.Name, Model: d.Model, Status: d.Status,
			EdgeSeq: edge[d.Session], CloudSeq: d.AsOf,
		})
	}
	slices.SortFunc(out, func(a, b view.Device) int {
		return cmp.Or(strings.Compare(a.RAE, b.RAE), strings.Compare(a.MAC, b.MAC), strings.Compare(a.Session, b.Session))
	})
	return out, nil
}

// counters reads the components' own metrics.
func (w *watch) counters(s *view.Status) {
	families, err := w.stack.registry.Gather()
	if err != nil {
		return
	}
	sum := map[string]int64{} // of counters; of histograms, the sum of what was observed
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch {
			case m.GetCounter() != nil:
				sum[f.GetName()] += int64(m.GetCounter().GetValue())
			case m.GetHistogram() != nil:
				sum[f.GetName()] += int64(m.GetHistogram().GetSampleSum())
			}
		}
	}
	s.EventsIn = sum["rollcall_bridge_forwarded_total"]
	s.Signals = sum["rollcall_poller_signals_total"]
	s.Upserts = sum["rollcall_store_apply_sessions"]
	s.DeadLetters = sum["rollcall_poller_dead_letters_total"]
}

func (w *watch) links() []view.Link {
	f := w.stack.flags
	return []view.Link{
		{Name: "Temporal UI", URL: fmt.Sprintf("http://%s/namespaces/default/workflows", loopback(f.UIPort))},
		{Name: "metrics", URL: w.stack.admin.URL() + "/metrics"},
		{Name: "temporal CLI", URL: "TEMPORAL_ADDRESS=" + loopback(f.TemporalPort)},
		{Name: "MQTT", URL: "mqtt://" + loopback(f.MQTTPort)},
		{Name: "Kafka", URL: w.stack.kafkaAddr},
		{Name: "database", URL: "URL in " + w.stack.dir(databaseURLFile)},
		{Name: "log", URL: w.stack.dir("devstack.log")},
	}
}

// awaitApplied returns nil when every capture has been replayed and everything that came
// of it is applied: nothing waits at an edge, and no record in Kafka is
// uncommitted. The poller commits only what is in the database. A capture that
// breaks off is an error at once.
func (w *watch) awaitApplied(ctx context.Context, most time.Duration) error {
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, r := range w.raes {
			if err := r.broken(); err != nil {
				return err
			}
		}
		if waits, err := w.waits(ctx); err == nil && waits == "" {
			last := w.look(ctx)
			w.last.Store(&last)
			return nil
		} else if ctx.Err() != nil {
			return errors.New("stopped before all was applied: nothing was compared")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		case <-timeout.C:
			waits, err := w.waits(ctx)
			return fmt.Errorf("not all was applied within --timeout %s: %s %w; see %s", most, waits, err, w.stack.dir("devstack.log"))
		}
	}
}

// waits says what is not finished yet, or nothing.
func (w *watch) waits(ctx context.Context) (string, error) {
	for _, r := range w.raes {
		if !r.ended() {
			return "the replay of " + r.capture + " goes on", nil
		}
		if n := r.pending(); n > 0 {
			return fmt.Sprintf("%d events wait at RAE %s", n, r.serial), nil
		}
	}
	lag, err := w.lag(ctx)
	if err != nil {
		return "Kafka's offsets", err
	}
	if lag > 0 {
		return fmt.Sprintf("%d records are not applied", lag), nil
	}
	return "", nil
}
