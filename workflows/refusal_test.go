package workflows_test

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

func TestDatabaseRefusalKeepsOutOnlyTheBatchAtFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		db.fail = func(_ context.Context, _ string, in *workflows.ApplyRequest) error {
			if in != nil {
				if _, bad := in.Write["bad"]; bad {
					return databaseRefusal()
				}
			}
			return nil
		}
		h := newHarness(t, db)
		h.at(0, func() {
			h.signal(batch(1, delta(1, "a")))
			h.signal(batch(2, delta(2, "bad")))
			h.signal(batch(3, delta(3, "c")))
			h.signal(batch(4, delta(4, "bad")))
		})
		h.stop(time.Hour)
		h.run(input())
		v := h.view()
		require.Equal(t, map[string]string{"a": "1", "c": "3"}, values(v.Attributes))
		require.Equal(t, position(5), db.positions, "the poller waits for the last position")
		require.EqualValues(t, 2, v.Counters.Refused)
		require.Len(t, v.RecentRefusals, 2)
		require.Equal(t, workflows.CauseDatabase, v.RecentRefusals[0].Cause)
		require.EqualValues(t, 2, v.RecentRefusals[0].First)
		require.Contains(t, v.RecentRefusals[0].Detail, "SQLSTATE 22021")
		require.Equal(t, workflows.SyncResync, v.Sync, "what was refused is missing")
		require.Equal(t, device.SeqSet{{From: 2, To: 2}}, v.Missing)
		require.Zero(t, v.Waiting)
	})
}

func TestFaultStopsTheTaskNotTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{fail: func(context.Context, string, *workflows.ApplyRequest) error {
			return temporal.NewNonRetryableApplicationError("no such thing", "Other", nil)
		}}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(input())
		var p *temporal.PanicError // which a worker answers by failing the task
		require.ErrorAs(t, h.GetWorkflowError(), &p)
		require.Contains(t, p.Error(), "no such thing")
	})
}

func TestOutageWhileQuarantiningIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		tries := 0
		db.fail = func(_ context.Context, _ string, in *workflows.ApplyRequest) error {
			if in == nil || !in.QuarantineOnly {
				return nil
			}
			if tries++; tries < 15 {
				return outage()
			}
			return nil
		}
		h := newHarness(t, db)
		b := batch(7, delta(1, "a"))
		b.Version = 99
		h.at(0, func() { h.signal(b) })
		h.at(6*time.Second, func() { require.Empty(t, h.view().Positions, "the database does not have it yet") })
		h.stop(time.Hour)
		h.run(input())
		require.Equal(t, position(8), db.positions)
		require.EqualValues(t, 1, h.view().Counters.Refused)
	})
}

func TestBadSignals(t *testing.T) {
	with := func(change func(*device.Batch)) device.Batch {
		b := batch(7, delta(2, "a"))
		change(&b)
		return b
	}
	raw := func(s string) converter.RawValue {
		p, err := converter.GetDefaultDataConverter().ToPayload(json.RawMessage(s))
		require.NoError(t, err)
		return converter.NewRawValue(p)
	}
	for _, tc := range []struct {
		name   string
		signal any
		cause  string
		passed bool // its position is passed
	}{
		{"unknown version", with(func(b *device.Batch) { b.Version = 99 }), workflows.CauseVersion, true},
		{"unknown version and shape", raw(`{"v":2,"topic":"` + topic + `","partition":3,"first":7,"last":7,"fold":["new"]}`), workflows.CauseVersion, true},
		{"no events", with(func(b *device.Batch) { b.Fold.Seqs = nil }), workflows.CauseInvalid, true},
		{"ranges out of order", with(func(b *device.Batch) { b.Fold.Seqs = device.SeqSet{{From: 5, To: 6}, {From: 2, To: 2}} }), workflows.CauseInvalid, true},
		{"ranges below one", raw(`{"v":1,"topic":"` + topic + `","partition":3,"first":7,"last":7,"records":1,"fold":{"seqs":[[-1,4]]}}`), workflows.CausePayload, true},
		{"snapshot past its events", with(func(b *device.Batch) { b.Fold.Snapshot = 9 }), workflows.CauseInvalid, true},
		{"another session", with(func(b *device.Batch) { b.Fold.Session = "11111111-3c6e-4f4e-9f3a-0c0f3f0a9b11" }), workflows.CauseForeign, true},
		{"another RAE", with(func(b *device.Batch) { b.Fold.RAE = "RAE-0666" }), workflows.CauseForeign, true},
		{"no coordinates", with(func(b *device.Batch) { b.Topic = "" }), workflows.CauseInvalid, false},
		{"a topic that is none", with(func(b *device.Batch) { b.Topic = "a\x00b" }), workflows.CauseInvalid, false},
		{"offsets backwards", with(func(b *device.Batch) { b.First = 9 }), workflows.CauseInvalid, false},
		{"no partition", with(func(b *device.Batch) { b.Partition = -1 }), workflows.CauseInvalid, false},
		{"offsets beyond all", with(func(b *device.Batch) { b.Last = math.MaxInt64 }), workflows.CauseInvalid, false},
		{"an attribute from beyond its events", with(func(b *device.Batch) {
			b.Fold.Attributes["z"] = device.Attribute{Value: []byte(`1`), Seq: 3}
		}), workflows.CauseInvalid, true},
		{"an attribute of no event", with(func(b *device.Batch) {
			b.Fold.Attributes["z"] = device.Attribute{Value: []byte(`1`)}
		}), workflows.CauseInvalid, true},
		{"a string", "hello", workflows.CausePayload, false},
		{"a number", 7, workflows.CausePayload, false},
		{"bytes", []byte{1, 2, 3}, workflows.CausePayload, false},
		{"null", nil, workflows.CausePayload, false},
		{"an array", []int{1}, workflows.CausePayload, false},
		{"an empty object", struct{}{}, workflows.CauseVersion, false},
	} {
		bubble(t, tc.name, func(t *testing.T) {
			db := &database{}
			h := newHarness(t, db)
			h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
			h.at(time.Second, func() { h.signal(tc.signal) })
			h.at(2*time.Second, func() { h.signal(batch(9, delta(2, "b"))) })
			h.stop(time.Minute)
			h.run(input())
			v := h.view()
			require.EqualValues(t, 2, v.AsOf, "the session goes on")
			require.EqualValues(t, 3, v.Counters.Signals)
			require.EqualValues(t, 1, v.Counters.Refused)
			require.Len(t, v.RecentRefusals, 1)
			require.Equal(t, tc.cause, v.RecentRefusals[0].Cause, v.RecentRefusals[0].Detail)
			require.Len(t, db.applies, 3)
			require.True(t, db.applies[1].QuarantineOnly)
			require.Equal(t, v.RecentRefusals[0].Detail, db.applies[1].Quarantined[0].Detail)
			if tc.passed {
				require.Equal(t, topic, v.RecentRefusals[0].Topic)
				want := position(8)
				if foreign := v.RecentRefusals[0].Foreign; foreign != "" {
					want[0] = want[0].Foreign(foreign)
				}
				require.Equal(t, want, db.applies[1].Positions)
			} else {
				require.Empty(t, db.applies[1].Positions)
			}
		})
	}
}

func TestRefusalsRememberedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, &database{})
		h.at(0, func() {
			for i := range 100 {
				h.signal(strings.Repeat("x", i))
			}
		})
		h.stop(time.Minute)
		h.run(input())
		require.EqualValues(t, 100, h.view().Counters.Refused)
		require.LessOrEqual(t, len(h.view().RecentRefusals), 16)
	})
}

func TestDatabaseRefusalIsQuarantinedWithItsPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{fail: func(_ context.Context, _ string, in *workflows.ApplyRequest) error {
			if in != nil && in.Write["bad"].Seq > 0 {
				return databaseRefusal()
			}
			return nil
		}}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() { h.signal(batch(2, delta(2, "bad"))) })
		h.stop(time.Minute)
		h.run(input())
		last := db.applies[len(db.applies)-1]
		require.Equal(t, position(3), last.Positions)
		require.Len(t, last.Quarantined, 1)
		require.Equal(t, workflows.CauseDatabase, last.Quarantined[0].Cause)
		require.EqualValues(t, 2, last.Quarantined[0].First)
		require.Equal(t, topic, last.Quarantined[0].Topic)
	})
}

func TestRefusalOfANewSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{fail: func(_ context.Context, _ string, in *workflows.ApplyRequest) error {
			if in != nil && len(in.Write) > 0 {
				return databaseRefusal()
			}
			return nil
		}}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "bad"))) })
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.Equal(t, workflows.SyncLive, v.Sync)
		require.EqualValues(t, 1, v.Counters.Refused)
		require.Equal(t, position(2), v.Positions)
		require.Zero(t, v.Waiting)
	})
}

func TestPositionsOnlyRowIsNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		b := batch(7, delta(1, "a"))
		b.Version = 99
		h.at(0, func() { h.signal(b) })
		h.stop(time.Minute)
		h.run(input())

		h = newHarness(t, db)
		h.at(0, func() { h.signal(batch(8, delta(1, "a"))) })
		h.stop(time.Minute)
		h.run(input())
		require.Equal(t, epoch.Add(time.Second), h.view().FirstObserved.UTC())
	})
}
