package poller_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
)

// RAE-2 sends RAE-1's session, in one poll with RAE-1's own records and in the
// same partition. Its batches are never applied while RAE-1's are, and never again:
// RAE-1 does not wait for them, and nothing that RAE-1 sends is passed over for
// them, not even by the next poller.
func TestForeignRecordsHoldNothingBack(t *testing.T) {
	c, s := newFake(t, 1), newTables()
	session := uuid.NewString()
	events := devicetest.History("RAE-1", session, 6).Example(1)
	h := history{models: map[string]devicetest.Model{session: devicetest.Of(events)}}
	forge := func(kind device.Type, seq int64) *kgo.Record {
		e := device.Event{Type: kind, RAE: "RAE-2", Session: session, Seq: seq, Time: events[0].Time,
			Attributes: map[string]device.Attribute{"system.name": {Value: []byte(`"forged"`), Seq: seq, At: events[0].Time}}}
		return record(t, c.topic, e)
	}
	first := record(t, c.topic, events[0])
	c.produce(t, first)
	s.own(session, "RAE-1")
	s.foreignDelay.Store(int64(time.Hour))
	start(t, c, s, short(time.Second))
	eventually(t, func() bool { return c.left(t) == 0 }, "the session is RAE-1's")

	records := []*kgo.Record{forge(device.Delta, 50)}
	for i, e := range events[1:] {
		records = append(records, record(t, c.topic, e))
		if i == len(events)/2 {
			records = append(records, forge(device.Snapshot, 51))
		}
	}
	records = append(records, forge(device.Delta, 52))
	c.produce(t, records...)
	eventually(t, func() bool { return s.seqOf(session) == events[len(events)-1].Seq }, "RAE-1 does not wait for RAE-2")
	s.equal(t, h)
	require.Positive(t, c.left(t), "what RAE-2 sent is not done yet")

	s.foreignDelay.Store(0)
	s.refuseForeign()
	eventually(t, func() bool { return c.left(t) == 0 }, "nor is it in the way for ever")
	s.equal(t, h)
	require.Equal(t, 3, s.foreignRecords())
}
