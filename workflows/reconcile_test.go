package workflows_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// whole is the snapshot of what delta events of "a" to "c" come to.
func whole(seq int64) device.Event {
	return snapshot(seq, map[string]device.Attribute{
		"a": attributeAt(5), "b": attributeAt(6), "c": attributeAt(3),
	})
}

// gapAt sends two batches between which seq 2 to 4 are missing.
func gapAt(h *harness, at time.Duration) {
	h.at(at, func() { h.signal(batch(1, delta(1, "a"))) })
	h.at(at+time.Second, func() { h.signal(batch(2, delta(5, "a"), delta(6, "b"))) })
}

func TestGapAsksForASnapshotWhichHealsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{search: true}
		h := newHarness(t, db)
		var syncs []string
		h.OnUpsertTypedSearchAttributes(anything()).Return(nil).Maybe().Run(func(a arguments) { syncs = append(syncs, fmt.Sprint(a[0])) })
		gapAt(h, 0)
		h.at(2900*time.Millisecond, func() {
			require.Equal(t, workflows.SyncGap, h.view().Sync, "what is late has two seconds at least")
			require.Empty(t, db.requests)
		})
		h.at(12*time.Second, func() { // ten seconds after the gap was seen
			v := h.view()
			require.Equal(t, workflows.SyncResync, v.Sync)
			require.Equal(t, 1, v.Repair.Sent)
			require.Len(t, db.requests, 1)
			require.Equal(t, rae, db.requests[0].RAE)
			require.Equal(t, session, db.requests[0].Session)
			require.Equal(t, "seq 2–4 missing", db.requests[0].Reason)
			h.signal(batch(4, delta(7, "d"))) // newer ones go on being applied
		})
		h.at(13*time.Second, func() {
			require.EqualValues(t, 7, h.view().AsOf)
			require.Equal(t, workflows.SyncResync, h.view().Sync)
			attributes := whole(8).Attributes
			attributes["d"] = attributeAt(7)
			h.signal(batch(5, snapshot(8, attributes)))
		})
		h.stop(time.Hour)
		h.run(input())
		v := h.view()
		require.Equal(t, workflows.SyncLive, v.Sync)
		require.Nil(t, v.Repair)
		require.Equal(t, map[string]string{"a": "5", "b": "6", "c": "3", "d": "7"}, values(v.Attributes))
		require.Equal(t, []string{"c"}, v.Check.Repaired)
		require.Empty(t, v.Check.Drift)
		require.Empty(t, v.Check.Cloud, "events were missing: there is nothing to compare")
		require.Equal(t, v.Hash, v.Check.Edge)
		require.Len(t, db.requests, 1)
		require.EqualValues(t, 1, v.Counters.Requests)
		require.Len(t, syncs, 4, "live, gap, resync, live: %v", syncs)
	})
}

func TestLateEventsNeedNoSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		gapAt(h, 0)
		h.at(2*time.Second, func() { h.signal(batch(4, delta(2, "a"), delta(3, "b"), delta(4, "c"))) })
		h.stop(time.Hour)
		h.run(input())
		require.Equal(t, workflows.SyncLive, h.view().Sync)
		require.Empty(t, db.requests)
	})
}

func TestRequestsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		db := &database{}
		h := newHarness(t, db)
		db.ask = func(workflows.SnapshotRequest) (workflows.SnapshotRequestResult, error) {
			at = append(at, h.Now())
			return workflows.SnapshotRequestResult{Outcome: workflows.RequestSent}, nil
		}
		gapAt(h, 0)
		h.stop(12 * time.Hour)
		h.run(input())
		require.Greater(t, len(at), 14)
		for i := 1; i < len(at); i++ {
			pause := at[i].Sub(at[i-1])
			most := min(30*time.Second<<(i-1), time.Hour)
			require.LessOrEqual(t, pause, most, "pause %d", i)
			require.GreaterOrEqual(t, pause, most/2, "pause %d", i)
			require.GreaterOrEqual(t, db.requests[i-1].Life, 15*time.Second)
			require.LessOrEqual(t, db.requests[i-1].Life, device.MaxCommandLife)
		}
		nonces := map[string]bool{}
		for _, r := range db.requests {
			nonces[r.Nonce] = true
		}
		require.Len(t, nonces, len(db.requests), "each is a command of its own")
		require.Equal(t, len(at), h.view().Repair.Sent)
	})
}

// A session that keeps losing events asks no more often than one whose
// snapshot does not come.
func TestASessionThatKeepsLosingEventsIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		offset := int64(1)
		send := func(e device.Event) { h.signal(batch(offset, e)); offset++ }
		h.at(0, func() { send(delta(1, "a")) })
		for i := range int64(60) { // each minute a gap, and its snapshot half a minute later
			h.at(time.Duration(i)*time.Minute+time.Second, func() { send(delta(3*i+3, "a")) })
			h.at(time.Duration(i)*time.Minute+31*time.Second, func() {
				send(snapshot(3*i+4, map[string]device.Attribute{"a": attributeAt(3*i + 3)}))
			})
		}
		h.stop(2 * time.Hour)
		in := input()
		in.Options.SignalsPerRun = 1000
		h.run(in)
		require.Equal(t, workflows.SyncLive, h.view().Sync)
		require.Less(t, len(db.requests), 12, "an hour of back-off from 30 s has no more")
		require.NotEmpty(t, db.requests)
	})
}

// Snapshots that people request while nothing is missing do not delay the request for a
// later gap.
func TestUpdatesDoNotDelayTheRequestForAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		for i := range 8 {
			h.at(time.Second+time.Duration(i)*100*time.Millisecond, func() { h.update(workflows.UpdateRequestSnapshot, workflows.SnapshotRequestArgs{Reason: "I wonder"}) })
		}
		h.at(5*time.Second, func() { h.signal(batch(2, delta(3, "a"))) })
		h.at(16*time.Second, func() { require.Equal(t, workflows.SyncResync, h.view().Sync) })
		h.stop(17 * time.Second)
		h.run(input())
		require.Len(t, db.requests, 9)
		nonces := map[string]bool{}
		for _, r := range db.requests {
			nonces[r.Nonce] = true
		}
		require.Len(t, nonces, 9)
	})
}

// A gap long after another begins its back-off anew.
func TestBackOffIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		gapAt(h, 0)
		h.at(6*time.Hour, func() { h.signal(batch(4, whole(7))) })
		var before int
		h.at(20*time.Hour, func() {
			before = len(db.requests)
			h.signal(batch(5, delta(9, "a")))
		})
		h.stop(20*time.Hour + 2*time.Minute)
		in := input()
		in.Options.SnapshotInterval = 24 * time.Hour
		h.run(in)
		require.Greater(t, before, 8)
		require.GreaterOrEqual(t, len(db.requests)-before, 3, "within 10, 40 and 100 seconds")
	})
}

func TestRequestsThatCannotBeSent(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer workflows.SnapshotRequestResult
		err    error
		least  int // tries in an hour
		most   int
	}{
		{"the worker's limit says when", workflows.SnapshotRequestResult{Outcome: workflows.RequestDeferred, Wait: 5 * time.Minute}, nil, 9, 12},
		{"Kafka does not answer", workflows.SnapshotRequestResult{}, errors.New("no brokers"), 6, 9},
		{"the worker has no Kafka", workflows.SnapshotRequestResult{Outcome: workflows.RequestDisabled, Detail: "no Kafka"}, nil, 1, 2},
	} {
		bubble(t, tc.name, func(t *testing.T) {
			db := &database{ask: func(workflows.SnapshotRequest) (workflows.SnapshotRequestResult, error) { return tc.answer, tc.err }}
			h := newHarness(t, db)
			gapAt(h, 0)
			h.at(50*time.Minute, func() { h.signal(batch(4, delta(7, "d"))) }) // nothing is blocked
			h.stop(time.Hour)
			h.run(input())
			v := h.view()
			require.Equal(t, workflows.SyncGap, v.Sync)
			require.EqualValues(t, 7, v.AsOf)
			require.GreaterOrEqual(t, len(db.requests), tc.least)
			require.LessOrEqual(t, len(db.requests), tc.most)
			require.Zero(t, v.Counters.Requests)
			require.NotEmpty(t, v.Repair.Outcome)
		})
	}
}

func TestOverdueSnapshotCountsAsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		in := input()
		in.Options.SnapshotInterval = time.Hour
		snap := func(seq int64) func() {
			return func() {
				h.signal(batch(seq, snapshot(seq, map[string]device.Attribute{"a": attributeAt(1)})))
			}
		}
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(2*time.Hour, snap(2))
		h.at(5*time.Hour-time.Minute, func() {
			require.Equal(t, workflows.SyncLive, h.view().Sync)
			require.Empty(t, db.requests)
		})
		h.at(5*time.Hour+31*time.Minute, func() {
			v := h.view()
			require.Equal(t, workflows.SyncResync, v.Sync)
			require.Empty(t, v.Missing)
			require.True(t, v.Repair.Overdue)
			require.NotEmpty(t, db.requests)
			require.Contains(t, db.requests[0].Reason, "a snapshot, the newest came before")
			h.signal(batch(3, delta(3, "a"))) // an event is no snapshot
		})
		h.at(5*time.Hour+32*time.Minute, func() { require.Equal(t, workflows.SyncResync, h.view().Sync) })
		h.at(6*time.Hour, func() {
			h.signal(batch(4, snapshot(4, map[string]device.Attribute{"a": attributeAt(3)})))
		})
		h.at(6*time.Hour+time.Minute, func() {
			v := h.view()
			require.Equal(t, workflows.SyncLive, v.Sync)
			require.Equal(t, v.Hash, v.Check.Cloud)
		})
		h.stop(7 * time.Hour)
		h.run(in)
	})
}

// The sessions of a RAE that is switched off ask less and less, until they end.
func TestSilentSessionHardlyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timers := 0
		db := &database{}
		h := newHarness(t, db)
		h.SetOnTimerScheduledListener(func(string, time.Duration) { timers++ })
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(input())
		result := h.result()
		require.True(t, result.Idle)
		require.Less(t, len(db.requests), 40, "in 72 hours")
		require.Less(t, timers, 45)
	})
}

// A run has one timer, however many events it sees.
func TestOneTimerARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timers := 0
		db := &database{}
		h := newHarness(t, db)
		h.SetOnTimerScheduledListener(func(string, time.Duration) { timers++ })
		for seq := int64(1); seq <= 90; seq++ {
			h.at(time.Duration(seq-1)*time.Minute, func() { h.signal(batch(seq, delta(seq, "a"))) })
		}
		h.stop(2 * time.Hour)
		h.run(input())
		require.EqualValues(t, 90, h.view().AsOf)
		require.Equal(t, 1, timers)
	})
}

func TestGapIsCarriedFromRunToRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		in := input()
		in.Options.SignalsPerRun = 3
		gapAt(h, 0)
		h.at(20*time.Second, func() { h.signal(batch(4, delta(7, "d"))) })
		h.run(in)
		next := h.next()
		require.Equal(t, workflows.SyncResync, next.Carried.Sync)
		require.Equal(t, workflows.Level, next.Carried.Level)
		require.Len(t, db.requests, 1)

		h = newHarness(t, db)
		h.SetStartTime(next.Carried.Repair.LastTryAt.Add(10 * time.Second))
		h.stop(2 * time.Minute)
		h.run(next)
		require.Equal(t, workflows.SyncResync, h.view().Sync)
		require.Len(t, db.requests, 3, "the back-off goes on where it was")
	})
}

func TestDrift(t *testing.T) {
	list := func(seqs map[string]int64) map[string]device.Attribute {
		out := map[string]device.Attribute{}
		for name, seq := range seqs {
			out[name] = attributeAt(seq)
		}
		return out
	}
	other := list(map[string]int64{"a": 1, "b": 2, "c": 3})
	other["b"] = device.Attribute{Value: []byte(`"other"`), Seq: 2, At: epoch}
	for _, tc := range []struct {
		name   string
		before []device.Event // applied one by one
		with   []device.Event // folded
		drift  []string
		cloud  bool // can be told
	}{
		{"none", nil, []device.Event{snapshot(4, list(map[string]int64{"a": 1, "b": 2, "c": 3}))}, nil, true},
		{"another value", nil, []device.Event{snapshot(4, other)}, []string{"b"}, true},
		{"another seq", nil, []device.Event{snapshot(4, list(map[string]int64{"a": 2, "b": 2, "c": 3}))}, []string{"a"}, true},
		{"one is not listed", nil, []device.Event{snapshot(4, list(map[string]int64{"a": 1, "c": 3}))}, []string{"b"}, true},
		{"one more is listed", nil, []device.Event{snapshot(4, list(map[string]int64{"a": 1, "b": 2, "c": 3, "d": 3}))}, []string{"d"}, true},
		{"all that changed came with it", nil, []device.Event{delta(4, "b", "d"), snapshot(5, list(map[string]int64{"a": 1, "b": 4, "c": 3, "d": 4}))}, nil, true},
		{"so did what is gone", nil, []device.Event{delta(4), snapshot(5, list(map[string]int64{"a": 1, "c": 3}))}, nil, true},
		{"but not what differs", nil, []device.Event{delta(4, "d"), snapshot(5, list(map[string]int64{"a": 2, "b": 2, "c": 3, "d": 4}))}, []string{"a"}, true},
		{"newer ones in the fold hide what they change", nil, []device.Event{snapshot(4, other), delta(5, "b")}, nil, false},
		{"newer ones that came first, too", []device.Event{delta(5, "b")}, []device.Event{snapshot(4, other)}, nil, false},
		{"events are missing", []device.Event{delta(5, "d")}, []device.Event{snapshot(6, list(map[string]int64{"a": 1, "d": 5}))}, nil, false},
	} {
		bubble(t, tc.name, func(t *testing.T) {
			db := &database{}
			h := newHarness(t, db)
			offset := int64(1)
			h.at(0, func() {
				for _, e := range slices.Concat([]device.Event{delta(1, "a"), delta(2, "b"), delta(3, "c")}, tc.before) {
					h.signal(batch(offset, e))
					offset++
				}
			})
			var own string
			h.at(time.Second, func() { own = h.view().Hash })
			h.at(2*time.Second, func() { h.signal(batch(offset, tc.with...)) })
			h.stop(2500 * time.Millisecond)
			h.run(input())
			v := h.view()
			require.NotNil(t, v.Check)
			require.Equal(t, tc.drift, v.Check.Drift)
			require.EqualValues(t, len(tc.drift), v.Counters.Drift)
			require.Equal(t, tc.cloud, v.Check.Cloud != "")
			require.Equal(t, values(v.Attributes), values(db.live()))
			if !tc.cloud {
				return
			}
			require.Equal(t, v.Check.Edge, v.Hash, "the snapshot's word is taken")
			require.Equal(t, v.Hash, device.Hash(db.live()))
			require.Equal(t, len(tc.drift) == 0, v.Check.Cloud == v.Check.Edge)
			if len(tc.with) == 1 {
				require.Equal(t, own, v.Check.Cloud, "the session's own state, hashed or not")
			}
		})
	}
}
