package workflows_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/workflows"
)

// A run ends after so many signals, and carries all that waits.
func TestContinuesAsNewAfterSoManySignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		in := input()
		in.Options.SignalsPerRun = 3
		// While the third is applied, three more come: they are in the
		// channel when the run ends.
		db.applied = func(r workflows.ApplyRequest) {
			if r.AsOf == 3 {
				for seq := int64(4); seq <= 6; seq++ {
					h.signal(batch(seq, delta(seq, fmt.Sprint("n", seq))))
				}
				h.signal("not a batch")
			}
		}
		for seq := int64(1); seq <= 3; seq++ {
			h.at(time.Duration(seq)*time.Second, func() { h.signal(batch(seq, delta(seq, "a"))) })
		}
		h.run(in)
		carried := h.next()
		require.Equal(t, in.Options, carried.Options)
		require.Equal(t, rae, carried.RAE)
		require.Len(t, carried.Carried.Waiting, 3)
		require.Len(t, carried.Carried.PendingRefusals, 1)
		require.EqualValues(t, 3, carried.Carried.State.AsOf)

		db.applied = nil
		h = newHarness(t, db)
		h.stop(time.Minute)
		h.run(carried)
		v := h.view()
		require.EqualValues(t, 6, v.AsOf)
		require.Equal(t, 2, v.Runs)
		require.Equal(t, position(7), v.Positions)
		require.EqualValues(t, 7, v.Counters.Signals)
		require.EqualValues(t, 1, v.Counters.Refused)
		require.Equal(t, 1, db.loads, "only the first run of a chain asks the database")
	})
}

func TestContinueAsNewAppliesWhatIsTooMuchToCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		in := input()
		in.Options = workflows.Options{SignalsPerRun: 1, CarryBytes: 1000, TurnBytes: 1000}
		db.applied = func(r workflows.ApplyRequest) {
			if r.AsOf == 1 {
				h.signalDeltas(2, 30)
			}
		}
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(in)
		carried := h.next()
		n := 0
		for _, w := range carried.Carried.Waiting {
			n += w.Bytes
		}
		require.LessOrEqual(t, n, 1000)
		require.Greater(t, len(db.applies), 2)
		last := carried.Carried.State.AsOf
		for _, w := range carried.Carried.Waiting {
			require.Equal(t, last+1, w.Batch.Fold.Seqs.First())
			last = w.Batch.Fold.Seqs.Last()
		}
		require.EqualValues(t, 30, last, "none lost")
	})
}

func TestContinueAsNew(t *testing.T) {
	bubble(t, "when the server suggests it", func(t *testing.T) {
		h := newHarness(t, &database{})
		h.SetContinueAsNewSuggested(true)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(input())
		require.Equal(t, 1, h.next().Carried.Runs)
	})
	bubble(t, "when the deployment has a new version, on which the next run starts", func(t *testing.T) {
		h := newHarness(t, &database{})
		h.SetTargetWorkerDeploymentVersionChanged(true)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(input())
		require.EqualValues(t, 1, h.next().Carried.State.AsOf)
		var can *workflow.ContinueAsNewError
		require.ErrorAs(t, h.GetWorkflowError(), &can)
		require.Equal(t, workflow.ContinueAsNewVersioningBehavior(workflow.ContinueAsNewVersioningBehaviorAutoUpgrade), can.InitialVersioningBehavior)
	})
	bubble(t, "a closed session ends instead", func(t *testing.T) {
		h := newHarness(t, &database{})
		h.SetContinueAsNewSuggested(true)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"), closed(2))) })
		h.run(input())
		require.NoError(t, h.GetWorkflowError())
	})
	bubble(t, "a state of an unknown version blocks the task, not the session", func(t *testing.T) {
		h := newHarness(t, &database{})
		in := input()
		in.Carried = &workflows.CarriedState{Version: 99}
		h.run(in)
		var p *temporal.PanicError
		require.ErrorAs(t, h.GetWorkflowError(), &p, "the SDK's environment ends on what a worker would try again")
		require.Contains(t, p.Error(), "version 99")
	})
}
