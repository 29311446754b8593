package workflows_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/rollcall-platform/rollcall/workflows"
)

// answer is what an update came to.
type answer struct {
	rejected, err error
	result        any
	done          bool
	at            time.Time
}

func (h *harness) update(name string, args ...any) *answer {
	a := &answer{}
	h.UpdateWorkflow(name, "", &testsuite.TestUpdateCallback{
		OnReject: func(err error) { a.rejected = err },
		OnAccept: func() {},
		OnComplete: func(result any, err error) {
			a.result, a.err, a.done, a.at = result, err, true, h.Now()
		},
	}, args...)
	return a
}

func (h *harness) progress() workflows.Progress {
	h.t.Helper()
	v, err := h.QueryWorkflow(workflows.QueryProgress)
	require.NoError(h.t, err)
	var p workflows.Progress
	require.NoError(h.t, v.Get(&p))
	return p
}

func TestDrainAnswersWhenTheDatabaseHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		db.down.Store(true)
		h := newHarness(t, db)
		var drained, idle *answer
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() {
			h.signal(batch(2, delta(2, "b")))
			drained = h.update(workflows.UpdateDrain)
		})
		h.at(20*time.Second, func() {
			require.False(t, drained.done)
			p := h.progress()
			require.True(t, p.Escalated)
			require.NotEmpty(t, p.InFlight)
			require.Contains(t, p.LastError, "connection refused")
			db.down.Store(false)
		})
		h.at(time.Minute, func() {
			require.True(t, drained.done)
			require.Empty(t, h.progress().InFlight)
			idle = h.update(workflows.UpdateDrain)
		})
		h.stop(2 * time.Minute)
		h.run(input())
		require.NoError(t, drained.err)
		require.Equal(t, workflows.AppliedState{AsOf: 2, Positions: position(3), Events: 2, Signals: 2}, drained.result)
		require.True(t, idle.done, "there is nothing to wait for")
		require.Equal(t, drained.result, idle.result)
	})
}

// A session that is cancelled finishes what it has, and answers who waits for it.
func TestDrainIsAnsweredInACancelledSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		db.down.Store(true)
		h := newHarness(t, db)
		var drain *answer
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() { drain = h.update(workflows.UpdateDrain) })
		h.at(2*time.Second, h.CancelWorkflow)
		h.at(10*time.Second, func() { require.False(t, drain.done); db.down.Store(false) })
		h.run(input())
		require.True(t, drain.done)
		require.NoError(t, drain.err)
		require.EqualValues(t, 1, drain.result.(workflows.AppliedState).AsOf) //nolint:forcetypeassert // or the test fails
	})
}

func TestUpdateClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		var first, second *answer
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() {
			h.signal(batch(2, delta(2, "b")))
			first = h.update(workflows.UpdateClose, workflows.CloseRequest{Reason: "sold"})
			second = h.update(workflows.UpdateClose, workflows.CloseRequest{Reason: "stolen"})
		})
		h.run(input())
		require.NoError(t, h.GetWorkflowError())
		require.Equal(t, workflows.AppliedState{AsOf: 2, Closed: 2, Reason: "sold", Positions: position(3), Events: 2, Signals: 2}, first.result)
		require.Equal(t, first.result, second.result)
		require.EqualValues(t, 2, db.state.Closed)
		require.Equal(t, "sold", db.state.Reason)
	})
}

func TestUpdateRequestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		var one, other, down *answer
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() {
			one = h.update(workflows.UpdateRequestSnapshot, workflows.SnapshotRequestArgs{Reason: "I wonder"})
			other = h.update(workflows.UpdateRequestSnapshot, workflows.SnapshotRequestArgs{})
		})
		h.at(2*time.Second, func() {
			require.Equal(t, workflows.SyncLive, h.view().Sync, "a wish is no gap")
			db.ask = func(workflows.SnapshotRequest) (workflows.SnapshotRequestResult, error) {
				return workflows.SnapshotRequestResult{}, errors.New("no brokers")
			}
			down = h.update(workflows.UpdateRequestSnapshot, workflows.SnapshotRequestArgs{})
		})
		h.stop(time.Hour)
		h.run(input())
		require.NotEmpty(t, db.requests)
		require.Equal(t, "I wonder", db.requests[0].Reason)
		require.Equal(t, workflows.RequestSent, one.result.(workflows.SnapshotRequestResult).Outcome)
		require.Equal(t, workflows.RequestSent, other.result.(workflows.SnapshotRequestResult).Outcome)
		require.Equal(t, workflows.RequestDeferred, down.result.(workflows.SnapshotRequestResult).Outcome)
		require.Contains(t, down.result.(workflows.SnapshotRequestResult).Detail, "no brokers")
	})
}

func TestUpdatesThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, &database{})
		answers := map[string]*answer{}
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() {
			answers["has 301 bytes"] = h.update(workflows.UpdateRequestSnapshot, workflows.SnapshotRequestArgs{Reason: strings.Repeat("x", 301)})
			answers["not UTF-8, or"] = h.update(workflows.UpdateRequestSnapshot, workflows.SnapshotRequestArgs{Reason: "a\x00b"})
			answers["needs a reason"] = h.update(workflows.UpdateClose, workflows.CloseRequest{Reason: " "})
			answers["closes at once"] = h.update(workflows.UpdateClose, workflows.CloseRequest{Reason: "x", Quiet: time.Second})
			answers["bytes, more than"] = h.update(workflows.UpdateClose, workflows.CloseRequest{Reason: strings.Repeat("x", 301)})
		})
		h.stop(time.Minute)
		h.run(input())
		for says, a := range answers {
			require.ErrorContains(t, a.rejected, says)
			require.False(t, a.done)
		}
	})
	bubble(t, "a close of nothing is answered", func(t *testing.T) {
		h := newHarness(t, &database{})
		var a *answer
		h.at(0, func() { a = h.update(workflows.UpdateClose, workflows.CloseRequest{Reason: "x"}) })
		h.stop(time.Minute)
		h.run(input())
		var e *temporal.ApplicationError
		require.ErrorAs(t, a.err, &e)
		require.Equal(t, workflows.ErrNotDone, e.Type())
	})
}

// A run does not end under an update that waits for its answer.
func TestUpdatesAreAnsweredBeforeARunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.SetContinueAsNewSuggested(true)
		var a, b *answer
		db.applied = func(r workflows.ApplyRequest) {
			if r.AsOf == 1 && a == nil {
				h.signal(batch(2, delta(2, "b")))
				a = h.update(workflows.UpdateDrain)
				b = h.update(workflows.UpdateRequestSnapshot, workflows.SnapshotRequestArgs{})
			}
		}
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(input())
		next := h.next()
		require.True(t, a.done)
		require.True(t, b.done)
		require.EqualValues(t, 2, a.result.(workflows.AppliedState).AsOf)
		require.EqualValues(t, 2, next.Carried.State.AsOf)
	})
}

func TestProgressOfAnIdleSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, &database{})
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() { h.signal(batch(2, delta(3, "a"))) })
		h.at(1500*time.Millisecond, func() {
			p := h.progress()
			require.Equal(t, workflows.SyncGap, p.Sync)
			require.Zero(t, p.PendingBatches)
			require.Equal(t, 1, p.Runs)
			require.Equal(t, 2, p.Signals)
			require.Equal(t, p.NextTimer, p.NextRequest)
			require.True(t, p.NextRequest.After(h.Now()))
		})
		h.stop(1600 * time.Millisecond)
		h.run(input())
	})
}
