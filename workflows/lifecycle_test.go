package workflows_test

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

func TestIdleSessionEndsAndIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		var ended time.Time
		begun := time.Time{}
		h.at(0, func() { begun = h.Now(); h.signal(batch(1, delta(1, "a"), delta(2, "b"))) })
		h.at(24*time.Hour, func() { h.signal(batch(3, delta(3, "c"))) })
		h.run(input())
		ended = h.Now()
		result := h.result()
		require.True(t, result.Idle)
		require.Zero(t, result.Closed)
		require.EqualValues(t, 3, result.AsOf)
		require.Greater(t, ended.Sub(begun), 96*time.Hour)
		require.Less(t, ended.Sub(begun), 104*time.Hour)

		h = newHarness(t, db)
		h.at(0, func() { h.signal(batch(3, delta(3, "c"))) }) // a redelivery
		h.at(time.Second, func() { h.signal(batch(4, delta(4, "a"))) })
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.EqualValues(t, 1, v.Counters.Duplicates)
		require.EqualValues(t, 4, v.Counters.Events, "since its first")
		require.Equal(t, map[string]string{"a": "4", "b": "2", "c": "3"}, values(v.Attributes))
	})
}

// An event that comes while a session that is about to end still reads something
// has it live on.
func TestEventAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life := func(lease time.Duration) (time.Duration, workflows.Result) {
			db := &database{}
			h := newHarness(t, db)
			begun := h.Now()
			if lease > 0 {
				db.test = held("jana", begun.Add(lease))
			}
			db.reading = func() { h.signal(batch(2, delta(2, "b"))) }
			h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
			h.run(input())
			result := h.result()
			require.True(t, result.Idle)
			return h.Now().Sub(begun), result
		}
		usual, result := life(0)
		require.EqualValues(t, 1, result.AsOf)
		lived, result := life(usual) // at that very moment the lease ends too: what came after it is read
		require.EqualValues(t, 2, result.AsOf)
		require.GreaterOrEqual(t, lived, 2*usual)
	})
}

// Sessions that fell silent at the same moment do not wake at the same moment,
// and while they are idle they do nothing but that.
func TestIdleSessionsDoNotWakeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions = 300
		perBucket := map[time.Duration]int{}
		for range sessions {
			id := uuid.NewString()
			h := newHarness(t, &database{})
			h.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: device.WorkflowID(id), TaskQueue: workflows.TaskQueue})
			var timers []time.Duration
			in := workflows.Input{RAE: rae, Session: id, Options: workflows.Options{IdleTimeout: 8 * time.Hour}}
			h.at(0, func() {
				b := batch(1, delta(1, "a"))
				b.Fold.Session = id
				h.SetOnTimerScheduledListener(func(_ string, d time.Duration) { timers = append(timers, d) })
				h.signal(b)
			})
			h.run(in)
			require.NoError(t, h.GetWorkflowError())
			require.Len(t, timers, 1, "one timer for a life of silence")
			require.GreaterOrEqual(t, timers[0], 8*time.Hour)
			perBucket[timers[0].Truncate(5*time.Minute)]++
		}
		require.GreaterOrEqual(t, len(perBucket), 9, "48 minutes in fives")
		for at, n := range perBucket {
			require.Less(t, n, sessions/4, "%s: %v", at, perBucket)
		}
	})
}

func TestNewSessionOfADeviceClosesTheOlder(t *testing.T) {
	older := "11111111-3c6e-4f4e-9f3a-0c0f3f0a9b11"
	for name, play := range map[string]func(*harness){
		"in the apply that finds it to be new": func(h *harness) {
			h.at(0, func() { h.signal(batch(1, withMAC(delta(1, "a")))) })
			h.at(time.Second, func() { h.signal(batch(2, delta(2, "b"))) })
		},
		"in one that comes after a load": func(h *harness) {
			h.at(0, func() { h.signal("not a batch"); h.signal(batch(1, withMAC(delta(1, "a")))) })
		},
		"with a later event": func(h *harness) {
			h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
			h.at(time.Second, func() { h.signal(batch(2, withMAC(delta(2, "b")))) })
			h.at(2*time.Second, func() { h.signal(batch(3, withMAC(delta(3, "b")))) })
		},
	} {
		bubble(t, name, func(t *testing.T) {
			db := &database{older: []string{older}}
			h := newHarness(t, db)
			play(h)
			h.stop(time.Minute)
			h.run(input())
			require.Equal(t, []workflows.SupersedeRequest{{RAE: rae, Session: session, OlderSessions: []string{older}}}, db.superseded)
		})
	}
}

// The older of a device's sessions may reach the database last. Then it is the
// one that has to give way.
func TestSessionGivesWayToANewerOneThatWasQuicker(t *testing.T) {
	const newer = "99999999-3c6e-4f4e-9f3a-0c0f3f0a9b11"
	opened := withMAC(delta(1, "a"))
	for name, first := range map[string]func(h *harness, db *database){
		"when it opens": func(h *harness, _ *database) { h.signal(batch(1, opened)) },
		"when it is loaded": func(h *harness, db *database) {
			db.state = &workflows.ApplyRequest{RAE: rae, Session: session, AsOf: 1, Seen: device.SeqSet{{From: 1, To: 1}}, First: epoch, Last: epoch}
			db.attrs, db.positions = maps.Clone(opened.Attributes), position(2)
			h.signal(batch(1, opened))
		},
	} {
		bubble(t, name, func(t *testing.T) {
			db := &database{newer: newer}
			h := newHarness(t, db)
			h.at(0, func() { first(h, db) })
			h.at(4*time.Minute, func() {
				require.Zero(t, h.view().Closed, "its tail may be on the way")
				h.signal(batch(2, delta(2, "b")))
			})
			h.at(8*time.Minute, func() {
				require.Zero(t, h.view().Closed)
				h.signal(batch(3, delta(3, "c")))
			})
			h.run(input())
			result := h.result()
			require.EqualValues(t, 3, result.Closed)
			require.Equal(t, "superseded by "+newer, result.Reason)
			require.Zero(t, result.Counters.AfterClose)
			require.EqualValues(t, 3, result.AsOf)
		})
	}
}

// A session that a newer one has had closed takes what is still on its way
// first, and the edge's own word of its end goes before.
func TestSupersededSessionWaitsForItsTail(t *testing.T) {
	tell := func(h *harness) { h.SignalWorkflow(workflows.SignalClose, workflows.SupersededCloseRequest("X")) }
	bubble(t, "it was closed by its edge", func(t *testing.T) {
		h := newHarness(t, &database{})
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))); tell(h) })
		h.at(time.Minute, func() { h.signal(batch(2, delta(2, "b"))) })
		h.at(2*time.Minute, func() { h.signal(batch(3, closed(3))) })
		h.run(input())
		result := h.result()
		require.EqualValues(t, 3, result.Closed)
		require.Equal(t, "left", result.Reason)
		require.Zero(t, result.Counters.AfterClose)
	})
	bubble(t, "told before its first event came", func(t *testing.T) {
		h := newHarness(t, &database{})
		h.at(0, func() { tell(h) })
		h.at(time.Minute, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(input())
		result := h.result()
		require.EqualValues(t, 1, result.Closed)
	})
	bubble(t, "over a new run", func(t *testing.T) {
		db := &database{}
		in := input()
		in.Options.SignalsPerRun = 1
		h := newHarness(t, db)
		h.at(0, func() { tell(h) })
		h.at(time.Second, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(in)
		next := h.next()
		h = newHarness(t, db)
		h.SetStartTime(next.Carried.LastSignalAt)
		h.at(time.Minute, func() { require.Zero(t, h.view().Closed) })
		h.run(next)
		result := h.result()
		require.EqualValues(t, 1, result.Closed)
		require.Equal(t, "superseded by X", result.Reason)
	})
	bubble(t, "an update does not wait", func(t *testing.T) {
		h := newHarness(t, &database{})
		var a *answer
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))); tell(h) })
		h.at(time.Minute, func() { a = h.update(workflows.UpdateClose, workflows.CloseRequest{Reason: "now"}) })
		h.at(time.Minute+time.Second, func() { require.True(t, a.done) })
		h.run(input())
		require.NoError(t, h.GetWorkflowError())
	})
}

// A word to close that comes while the last apply of a run is under way goes to
// the next run.
func TestSignalToCloseIsCarried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		db.applied = func(workflows.ApplyRequest) {
			h.SignalWorkflow(workflows.SignalClose, workflows.SupersededCloseRequest("X"))
		}
		in := input()
		in.Options.SignalsPerRun = 1
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(in)
		next := h.next()
		require.Equal(t, "superseded by X", next.Carried.CloseReason)
		require.NotZero(t, next.Carried.CloseQuiet)
	})
}

func TestSignalToClose(t *testing.T) {
	for name, payload := range map[string]any{"with a reason": workflows.CloseRequest{Reason: "superseded by X"}, "of whatever kind": []int{1}} {
		bubble(t, name, func(t *testing.T) {
			db := &database{}
			h := newHarness(t, db)
			h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
			h.at(time.Second, func() {
				h.signal(batch(2, delta(2, "b"))) // came before: counts
				h.SignalWorkflow(workflows.SignalClose, payload)
			})
			h.run(input())
			result := h.result()
			require.EqualValues(t, 2, result.AsOf)
			require.EqualValues(t, 2, result.Closed)
			require.NotEmpty(t, result.Reason)
			require.EqualValues(t, 2, result.Counters.Events)
			require.Zero(t, result.Counters.Duplicates)
			require.False(t, result.Idle)

			require.True(t, db.state.Provisional)

			// Closing again changes nothing, nor does what was applied before.
			reason := result.Reason
			h = newHarness(t, db)
			h.at(0, func() {
				h.SignalWorkflow(workflows.SignalClose, workflows.CloseRequest{Reason: "again"})
				h.signal(batch(2, delta(2, "b")))
			})
			h.run(input())
			require.Equal(t, reason, h.result().Reason)
			require.Zero(t, h.result().Counters.Reopened)

			// What comes from past the close reopens the session, which looks for
			// its rivals again. The edge's own close is final.
			h = newHarness(t, db)
			h.at(0, func() { h.signal(batch(3, delta(3, "c"))) })
			h.at(time.Second, func() {
				require.Zero(t, h.view().Closed)
				require.EqualValues(t, 1, h.view().Counters.Reopened)
				require.Zero(t, db.state.Closed)
				require.True(t, db.state.IdentifiesDevice)
			})
			h.at(2*time.Second, func() { h.signal(batch(4, closed(4))) })
			h.at(3*time.Second, func() { h.signal(batch(5, delta(5, "d"))) })
			h.run(input())
			result = h.result()
			require.EqualValues(t, 4, result.Closed)
			require.Equal(t, "left", result.Reason)
			require.False(t, db.state.Provisional)
			require.Equal(t, map[string]string{"a": "1", "b": "2", "c": "3"}, values(db.live()))
		})
	}
	bubble(t, "a session that nobody knows stays so", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.SignalWorkflow(workflows.SignalClose, workflows.CloseRequest{Reason: "x"}) })
		h.stop(time.Minute)
		h.run(input())
		require.Empty(t, db.applies)
	})
	bubble(t, "is carried", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		in := input()
		in.Carried = &workflows.CarriedState{Version: 1, Level: workflows.Level, Sync: workflows.SyncLive, CloseReason: "because", State: device.State{
			RAE: rae, Session: session, AsOf: 5, Snapshot: 5, First: epoch, Last: epoch,
		}}
		h.run(in)
		result := h.result()
		require.EqualValues(t, 5, result.Closed)
		require.Equal(t, "because", result.Reason)
		require.Len(t, db.applies, 1)
		require.Equal(t, fmt.Sprint(db.applies[0].Closed), "5")
	})
}
