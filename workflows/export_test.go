package workflows

import (
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// RegisterAtLevel registers the workflow as code of another level would.
func RegisterAtLevel(r worker.WorkflowRegistry, level int) {
	r.RegisterWorkflowWithOptions(func(ctx workflow.Context, in Input) (Result, error) {
		return runSession(ctx, in, level)
	}, workflow.RegisterOptions{Name: DeviceSessionName})
}
