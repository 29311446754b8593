package workflows_test

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/workflows"
)

// backup is what a database had at some moment: what a restore, or a replica that
// takes over without the last commits, brings back.
type backup struct {
	state     *workflows.ApplyRequest
	attrs     map[string]device.Attribute
	positions []device.Position
	revision  workflows.Revision
	counters  workflows.Counters
}

func (d *database) backUp() backup {
	d.mu.Lock()
	defer d.mu.Unlock()
	return backup{d.state, maps.Clone(d.attrs), slices.Clone(d.positions), d.revision, d.counters}
}

func (d *database) restore(b backup) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state, d.attrs, d.positions, d.revision, d.counters = b.state, maps.Clone(b.attrs), slices.Clone(b.positions), b.revision, b.counters
}

// lostCommits runs a session whose database loses seqs 3 to 5, after which f is done.
func lostCommits(t *testing.T, f func(h *harness)) (*database, workflows.StateView) {
	t.Helper()
	db := &database{}
	h := newHarness(t, db)
	var before backup
	h.at(0, func() { h.signalDeltas(1, 2) })
	h.at(time.Second, func() { before = db.backUp(); h.signalDeltas(3, 5) })
	h.at(2*time.Second, func() { db.restore(before); f(h) })
	h.stop(time.Minute)
	h.run(input())
	return db, h.view()
}

func TestDatabaseThatLostCommits(t *testing.T) {
	bubble(t, "what is lost is missing, and the batch at hand is applied", func(t *testing.T) {
		db, v := lostCommits(t, func(h *harness) { h.signal(batch(6, delta(6, "b"))) })
		require.EqualValues(t, 6, v.AsOf)
		require.Equal(t, device.SeqSet{{From: 3, To: 5}}, v.Missing)
		require.Equal(t, v.Missing, v.Lost)
		require.Equal(t, workflows.SyncResync, v.Sync, "the edge is asked for a snapshot")
		require.Equal(t, map[string]string{"a": "2", "b": "6"}, values(v.Attributes))
		require.Equal(t, values(v.Attributes), values(db.live()))
		require.Equal(t, v.Missing, db.state.Missing)
		require.EqualValues(t, 3, v.Counters.Events)
		require.EqualValues(t, 1, v.Counters.Mismatches)
		require.Equal(t, device.SeqSet{{From: 3, To: 5}}, v.Mismatch.Lost)
		require.Equal(t, db.revision, v.Revision)
	})
	bubble(t, "a snapshot at hand heals it at once", func(t *testing.T) {
		db, v := lostCommits(t, func(h *harness) {
			h.signal(batch(6, snapshot(6, map[string]device.Attribute{"a": attributeAt(5)})))
		})
		require.Empty(t, v.Missing)
		require.Equal(t, workflows.SyncLive, v.Sync)
		require.Equal(t, map[string]string{"a": "5"}, values(db.live()))
		require.Empty(t, v.Check.Drift, "what was lost is no drift")
		require.Empty(t, db.requests)
	})
	bubble(t, "a batch that comes again is applied again", func(t *testing.T) {
		db, v := lostCommits(t, func(h *harness) { h.signalDeltas(5, 5) })
		require.Equal(t, device.SeqSet{{From: 3, To: 4}}, v.Lost)
		require.Equal(t, map[string]string{"a": "5"}, values(db.live()))
		require.Equal(t, position(6), db.positions)
		require.EqualValues(t, 3, v.Counters.Events)
	})
	bubble(t, "all of them, in any order, leave no gap", func(t *testing.T) {
		db, v := lostCommits(t, func(h *harness) { h.signalDeltas(4, 5); h.signalDeltas(3, 3) })
		require.Empty(t, v.Missing)
		require.Equal(t, map[string]string{"a": "5"}, values(db.live()))
		require.Empty(t, db.requests)
	})
	bubble(t, "where nothing newer comes, a reload finds the gap", func(t *testing.T) {
		var reloaded *answer
		db, v := lostCommits(t, func(h *harness) {
			reloaded = h.update(workflows.UpdateReload, workflows.ReloadArgs{Reason: "verify"})
		})
		require.NoError(t, reloaded.err)
		got := reloaded.result.(workflows.ReloadResult) //nolint:forcetypeassert // the test fails
		require.Equal(t, device.SeqSet{{From: 3, To: 5}}, got.Lost)
		require.EqualValues(t, 2, got.AsOf)
		require.Equal(t, workflows.RequestSent, got.Snapshot.Outcome)
		require.NotNil(t, got.Mismatch)
		require.Equal(t, workflows.SyncResync, v.Sync)
		require.NotEmpty(t, db.requests)
		require.Equal(t, device.SeqSet{{From: 3, To: 5}}, v.Missing)
	})
	bubble(t, "a close is at the newest event that the database has", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		var before backup
		h.at(0, func() { h.signalDeltas(1, 2) })
		h.at(time.Second, func() { before = db.backUp(); h.signalDeltas(3, 5) })
		h.at(2*time.Second, func() {
			db.restore(before)
			h.update(workflows.UpdateClose, workflows.CloseRequest{Reason: "sold"})
		})
		h.run(input())
		require.EqualValues(t, 2, h.result().Closed)
		require.EqualValues(t, 2, db.state.Closed)
	})
	bubble(t, "a refused batch is quarantined all the same", func(t *testing.T) {
		db, v := lostCommits(t, func(h *harness) { h.signal("not a batch") })
		require.EqualValues(t, 1, v.Counters.Refused)
		require.EqualValues(t, 1, v.Counters.Mismatches)
		require.Len(t, db.state.Quarantined, 1)
		require.Equal(t, device.SeqSet{{From: 3, To: 5}}, v.Missing)
	})
}

// A row that the session itself wrote, though it does not know, is no mismatch: the
// answer was lost, and the same apply finds itself done.
func TestApplyWhoseAnswerIsLostCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		lost := 3
		db.answer = func() error {
			if lost--; lost >= 0 {
				return outage()
			}
			return nil
		}
		h := newHarness(t, db)
		h.at(0, func() { h.signalDeltas(1, 1) })
		h.at(10*time.Second, func() { lost = 100; h.signalDeltas(2, 2) })
		h.at(20*time.Second, func() { lost = 0 })
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.EqualValues(t, 2, v.Counters.Events)
		require.EqualValues(t, 2, db.counters.Events)
		require.Zero(t, v.Counters.Mismatches)
		require.Zero(t, v.Counters.Duplicates)
		require.EqualValues(t, 2, v.Revision.Number)
		require.Len(t, db.applies, 2)
	})
}

// A session that goes on with less than the database has, because its workflow task
// was lost with an answer, takes what there is and reports no loss.
func TestDatabaseThatHasMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		in := input()
		in.Options.SignalsPerRun = 2
		h.at(0, func() { h.signalDeltas(1, 2) })
		h.run(in)
		carried := h.next()

		h = newHarness(t, db)
		h.at(0, func() { h.signalDeltas(3, 3) })
		h.stop(time.Minute)
		h.run(carried)

		h = newHarness(t, db) // the same run again, with another batch beside
		h.at(0, func() { h.signalDeltas(3, 4) })
		h.stop(time.Minute)
		h.run(carried)
		v := h.view()
		require.EqualValues(t, 4, v.AsOf)
		require.Empty(t, v.Missing)
		require.Zero(t, v.Counters.Mismatches)
		require.EqualValues(t, 4, db.counters.Events)
		require.Equal(t, workflows.SyncLive, v.Sync)
	})
}

func TestLostSeqsGoFromRunToRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		in := input()
		in.Options.SignalsPerRun = 4
		var before backup
		h.at(0, func() { h.signalDeltas(1, 2) })
		h.at(time.Second, func() { before = db.backUp(); h.signalDeltas(3, 3) })
		h.at(2*time.Second, func() { db.restore(before); h.signalDeltas(1, 1) })
		h.run(in)
		carried := h.next()
		require.Equal(t, device.SeqSet{{From: 3, To: 3}}, carried.Carried.Lost)

		h = newHarness(t, db)
		h.stop(time.Minute)
		h.run(carried)
		v := h.view()
		require.Equal(t, workflows.SyncResync, v.Sync, "nothing newer came, and the edge is asked")
		require.Equal(t, device.SeqSet{{From: 3, To: 3}}, v.Missing)
		require.NotEmpty(t, db.requests)
	})
}

// Whatever commits the database loses, and when: with the edge's next snapshot the
// tables are the model's, and nothing is counted twice.
func TestAnyLossComesToTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := devicetest.History(rae, session, 16).Draw(rt, "history")
		history = slices.DeleteFunc(history, func(e device.Event) bool { return e.Type == device.Closed })
		model := devicetest.Of(history)
		db := &database{}
		in := input()
		in.Options.SignalsPerRun = rapid.IntRange(1, 8).Draw(rt, "signals per run")
		backups := []backup{db.backUp()}
		for offset := 0; offset < len(history); {
			n := min(rapid.IntRange(1, 3).Draw(rt, "batch"), len(history)-offset)
			b := batch(int64(offset), history[offset:offset+n]...)
			offset += n
			in = runOnce(t, rt, db, in, b)
			if rapid.Bool().Draw(rt, "back up") {
				backups = append(backups, db.backUp())
			}
			if rapid.IntRange(0, 3).Draw(rt, "restore") == 0 {
				db.restore(rapid.SampledFrom(backups).Draw(rt, "backup"))
			}
		}
		seq := model.Seq + 1
		last := snapshot(seq, maps.Clone(model.Attributes))
		runOnce(t, rt, db, in, batch(int64(len(history)), last))
		require.Equal(rt, values(model.Attributes), values(db.live()))
		require.Equal(rt, seq, db.state.AsOf)
		require.Empty(rt, db.state.Missing)
		require.LessOrEqual(rt, db.counters.Events, seq)
	})
}

// runOnce has one run, or as many as follow at once, take a batch, and returns what
// the next one begins with.
func runOnce(t *testing.T, rt *rapid.T, db *database, in workflows.Input, b device.Batch) workflows.Input {
	h := newHarness(t, db)
	b.Fold.Attributes = maps.Clone(b.Fold.Attributes)
	h.at(0, func() { h.signal(b) })
	h.at(time.Second, func() { h.SetContinueAsNewSuggested(true); h.SignalWorkflow(workflows.SignalTestState, nil) })
	h.stop(time.Hour)
	h.run(in)
	require.Equal(rt, db.revision, h.view().Revision)
	require.Equal(rt, values(h.view().Attributes), values(db.live()))
	next := workflows.Input{RAE: in.RAE, Session: in.Session, Options: in.Options}
	if err := h.GetWorkflowError(); err != nil {
		var can *workflow.ContinueAsNewError
		if isContinue(err, &can) {
			next = workflows.Input{}
			require.NoError(rt, converter.GetDefaultDataConverter().FromPayloads(can.Input, &next))
		}
	}
	return next
}
