package poller_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

// One RAE makes session UUIDs, events and dead letters without end. Twenty others
// get what they would get without it, soon, and the metric names the one.
func TestOneRAEOverItsBudgetsDelaysNobody(t *testing.T) {
	c, s := newFake(t, 2), newTables()
	s.delay.Store(int64(5 * time.Millisecond))
	r := start(t, c, s, func(o *poller.Options) {
		o.Window = 4
		o.Budgets = poller.Budgets{Sessions: 20, NewSessions: 20, Events: 2, DeadLetterBytes: 10_000}
	})
	const hostile = "hostile"
	var flood []*kgo.Record
	for i := range 4000 {
		id := uuid.NewString()
		e := device.Event{Type: device.Opened, RAE: hostile, Session: id, Seq: 1, Time: devicetest.Epoch, Attributes: map[string]device.Attribute{}}
		rec := record(t, c.topic, e)
		if i%4 == 0 {
			rec.Value = []byte(fmt.Sprintf("{%01000d", i))
		}
		flood = append(flood, rec)
	}
	c.produce(t, flood...)
	h := history{models: map[string]devicetest.Model{}}
	for i := range 20 {
		id := uuid.NewString()
		events := devicetest.History(fmt.Sprintf("lawful-%d", i), id, 4).Example(i)
		h.models[id] = devicetest.Of(events)
		for _, e := range events {
			h.records = append(h.records, record(t, c.topic, e))
		}
	}
	c.produce(t, h.records...)
	eventually(t, func() bool {
		for id, m := range h.models {
			if s.seqOf(id) != m.Seq {
				return false
			}
		}
		return true
	}, "the lawful ones' records are applied")
	eventually(t, func() bool { return c.left(t) == 0 }, "and all is done with")
	_, _, sessions := s.counts()
	require.LessOrEqual(t, sessions, len(h.models)+20, "the hostile one has its budget of sessions")
	eventually(t, func() bool {
		return r.hasSeries(t, "over_budget_rae_records") && r.metric(t, "over_budget_rae_records", "rae", hostile) > 0
	}, "it is named")
	for _, budget := range []string{"sessions", "events", "dead-letter-bytes"} {
		require.Positive(t, r.metric(t, "over_budget_records_total", "budget", budget), budget)
	}
	whole, reasons := 0, map[string]int{}
	for _, l := range c.letters(t, int(r.metric(t, "dead_letters_total"))) {
		whole += len(l.Value)
		reasons[kafka.Header(l, kafka.HeaderReason)]++
	}
	require.Less(t, whole, 20_000, "dead letters of its budget are whole, the others have no value")
	require.Positive(t, reasons[poller.OverBudget])
}
