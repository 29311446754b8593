package workflows_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/workflows"
)

// An idle session does not see by itself that its worker deployment has a new
// version. A nudge makes it look.
func TestNudgedSessionMovesToTheNewVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Minute, func() {
			h.SetTargetWorkerDeploymentVersionChanged(true)
			h.SignalWorkflow(workflows.SignalNudge, nil)
			h.SignalWorkflow(workflows.SignalNudge, nil)
		})
		h.run(input())

		var next *workflow.ContinueAsNewError
		require.ErrorAs(t, h.GetWorkflowError(), &next)
		require.EqualValues(t, workflow.ContinueAsNewVersioningBehaviorAutoUpgrade, next.InitialVersioningBehavior)
		require.Equal(t, workflows.Counters{Signals: 1, Batches: 1, Events: 1, Records: 1}, h.view().Counters, "a nudge counts nothing")
		require.Len(t, db.applies, 1)
	})
}

func TestNudgeWithoutANewVersionChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.SignalWorkflow(workflows.SignalNudge, nil) }) // before it has loaded
		h.at(time.Second, func() { h.signal(batch(1, delta(1, "a"))) })
		for i := range 10 {
			h.at(time.Duration(2+i)*time.Second, func() { h.SignalWorkflow(workflows.SignalNudge, "with a payload") })
		}
		h.at(time.Minute, func() { h.signal(batch(2, delta(2, "a"))) })
		h.stop(time.Hour)
		h.run(input())

		require.True(t, temporal.IsCanceledError(h.GetWorkflowError()))
		require.Equal(t, workflows.Counters{Signals: 2, Batches: 2, Events: 2, Records: 2}, h.view().Counters)
		require.Len(t, db.applies, 2)
	})
}
