package workflows_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

func held(holder string, until time.Time) *workflows.TestState {
	return &workflows.TestState{State: "in_test", Holder: holder, Until: until.UTC()}
}

// testStates collects what the search attribute TestState is set to.
func testStates(h *harness) *[]string { return h.collectSearch("TestState") }

func tell(h *harness) { h.SignalWorkflow(workflows.SignalTestState, nil) }

// edgeSays is a delta of an attribute that an edge may send, and that means nothing.
func edgeSays(seq int64, value string) device.Event {
	e := delta(seq)
	e.Attributes["state.test"] = device.Attribute{Value: json.RawMessage(value), Seq: seq, At: e.Time}
	return e
}

// What a person reserves is shown, and what the edge says of tests is not. It is
// no event, and costs a read only when something changed.
func TestReservationIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{search: true}
		h := newHarness(t, db)
		shown := testStates(h)
		h.at(0, func() { h.signal(batch(1, edgeSays(1, `"running"`))) })
		h.at(time.Minute, func() {
			require.Equal(t, "available", h.view().TestState.State)
			require.Zero(t, db.reads, "it came with the first apply")
			db.test = held("jana", h.Now().Add(time.Hour))
			tell(h)
			tell(h)
			h.SignalWorkflow(workflows.SignalTestState, "with a payload")
		})
		h.at(2*time.Minute, func() {
			require.Equal(t, db.test, h.view().TestState)
			require.Equal(t, 2, db.reads, "one for the first, one for all that came meanwhile")
			h.signal(batch(2, edgeSays(2, `"failed"`)))
		})
		h.at(3*time.Minute, func() {
			db.test = &workflows.TestState{State: "quarantined", Holder: "ops"}
			tell(h)
		})
		h.at(4*time.Minute, func() { db.test = nil; tell(h) })
		h.stop(3 * time.Hour)
		h.run(input())
		require.Equal(t, []string{"available", "in_test", "quarantined", "available"}, *shown)
		require.Equal(t, 4, db.reads)
		require.Len(t, db.applies, 2)
		require.Equal(t, workflows.Counters{Signals: 2, Batches: 2, Events: 2, Records: 2}, h.view().Counters)
	})
}

// A session that begins again knows it from its first moment on.
func TestReservationIsKnownToASessionThatBegins(t *testing.T) {
	for name, silent := range map[string]bool{"with the answer": false, "of a worker that does not tell": true} {
		bubble(t, name, func(t *testing.T) {
			db := &database{search: true}
			h := newHarness(t, db)
			h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
			h.stop(time.Minute)
			h.run(input())

			h = newHarness(t, db)
			shown := testStates(h)
			db.test, db.noTestState = held("jana", h.Now().Add(time.Hour)), silent
			db.reading = func() { db.noTestState = false }
			h.at(0, func() { tell(h); h.signal(batch(2, delta(2, "a"))) })
			h.stop(time.Minute)
			h.run(input())
			require.Equal(t, []string{"in_test"}, *shown)
		})
	}
}

// The event that says which device the session is of brings its test state, too.
func TestReservationComesWithTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{search: true}
		h := newHarness(t, db)
		shown := testStates(h)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() {
			db.people(held("jana", h.Now().Add(time.Hour)))
			h.signal(batch(2, withMAC(delta(2))))
		})
		h.stop(time.Minute)
		h.run(input())
		require.Equal(t, []string{"available", "in_test"}, *shown)
		require.Zero(t, db.reads)
	})
}

// A lease needs nobody to end it. One that was renewed, and of which nobody told
// the session, goes on; a database whose clock is behind is not asked for ever.
func TestLeaseEnds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*database)
		want   []string
		reads  int
	}{
		"in the database":          {func(db *database) { db.test = nil }, []string{"in_test", "available"}, 1},
		"by this clock":            {func(*database) {}, []string{"in_test", "available"}, 1},
		"later, which nobody told": {func(db *database) { db.test = held("jana", db.test.Until.Add(time.Hour)) }, []string{"in_test", "available"}, 2},
	} {
		bubble(t, name, func(t *testing.T) {
			db := &database{search: true}
			h := newHarness(t, db)
			shown := testStates(h)
			h.at(0, func() {
				db.test = held("jana", h.Now().Add(time.Hour))
				h.signal(batch(1, delta(1, "a")))
			})
			h.at(59*time.Minute, func() {
				require.Zero(t, db.reads)
				c.change(db)
			})
			h.at(61*time.Minute, func() {
				require.Equal(t, 1, db.reads)
				require.Equal(t, c.reads == 2, h.view().TestState.State == "in_test")
			})
			h.stop(8 * time.Hour)
			h.run(input())
			require.Equal(t, c.want, *shown)
			require.Equal(t, c.reads, db.reads)
		})
	}
}

// Being told is no event: it keeps no session from ending as idle.
func TestReservedSessionEndsAsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		begun := h.Now()
		h.at(0, func() { h.signal(batch(1, delta(1, "a"), delta(2, "b"))) })
		for day := range 4 {
			h.at(time.Duration(day)*24*time.Hour, func() {
				db.test = held("jana", h.Now().Add(30*24*time.Hour))
				tell(h)
			})
		}
		h.run(input())
		result := h.result()
		require.True(t, result.Idle)
		require.LessOrEqual(t, h.Now().Sub(begun), 80*time.Hour)
		require.EqualValues(t, 1, result.Counters.Signals)
	})
}

// A session that goes on as new loses no word of it, be it the very last.
func TestReservationIsCarried(t *testing.T) {
	for name, late := range map[string]bool{"read": false, "told and not read": true} {
		bubble(t, name, func(t *testing.T) {
			db := &database{search: true}
			h := newHarness(t, db)
			in := input()
			in.Options.SignalsPerRun = 1
			db.reading = func() {
				if late && db.reads == 1 {
					tell(h)
				}
			}
			db.applied = func(workflows.ApplyRequest) {
				db.test = held("jana", h.Now().Add(time.Hour))
				tell(h)
			}
			h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
			h.run(in)
			next := h.next()
			require.Equal(t, 1, db.reads)
			require.Equal(t, late, next.Carried.TestState == nil)

			h = newHarness(t, db)
			shown := testStates(h)
			h.stop(time.Minute)
			h.run(next)
			require.Equal(t, "jana", h.view().TestState.Holder)
			require.Equal(t, "in_test", (*shown)[len(*shown)-1])
			require.Equal(t, late, db.reads == 2)
		})
	}
}

// An attribute that an edge calls so is not the test state: there is none until the
// session has read the device's.
func TestAttributeIsNoTestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{search: true, test: &workflows.TestState{State: "maintenance", Holder: "ops"}}
		h := newHarness(t, db)
		shown := testStates(h)
		in := input()
		in.Carried = &workflows.CarriedState{
			Version: 1, Level: workflows.Level, Sync: workflows.SyncLive, SearchAttributes: true, LastSignalAt: h.Now(), LastSnapshotAt: h.Now(), Positions: position(2),
			State: device.State{RAE: rae, Session: session, AsOf: 1, Snapshot: 1, First: epoch, Last: epoch, Attributes: edgeSays(1, `"idle"`).Attributes},
		}
		h.at(time.Minute, func() { h.signal(batch(2, edgeSays(2, `"running"`))) })
		h.stop(time.Hour)
		h.run(in)
		require.Equal(t, []string{"maintenance"}, *shown)
		require.Equal(t, 1, db.reads, "none was carried")
	})
}

func TestClosedSessionReadsNoTestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		db.reading = func() { // so that both come together
			h.signal(batch(2, closed(2)))
			tell(h)
		}
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() { tell(h) })
		h.run(input())
		require.NoError(t, h.GetWorkflowError())
		require.Equal(t, 1, db.reads)
	})
}

// A database that is down when the state is to be read stops nothing for good.
func TestTestStateIsReadAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Minute, func() {
			db.test = held("jana", h.Now().Add(24*time.Hour))
			db.fail = func(_ context.Context, name string, _ *workflows.ApplyRequest) error {
				if name == workflows.ActivityReadTestState && db.regularTries(name) < 3 {
					return outage()
				}
				return nil
			}
			tell(h)
			h.signal(batch(2, delta(2, "a")))
		})
		h.stop(time.Hour)
		h.run(input())
		require.EqualValues(t, 2, h.view().AsOf)
		require.Equal(t, "jana", h.view().TestState.Holder)
		require.Equal(t, 3, db.regularTries(workflows.ActivityReadTestState))
	})
}
