package workflows

import (
	"context"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// StartOptions are the options with which everybody starts a session's workflow.
//
// Invariant: a session has at most one workflow, whoever starts it first. One that
// runs is used, and one that has completed is followed by a new run.
//
// There is no retry policy, because a workflow retry would lose the signal of a
// signal with start, and no timeout. An empty taskQueue is TaskQueue.
func StartOptions(taskQueue, rae, session string) client.StartWorkflowOptions {
	if taskQueue == "" {
		taskQueue = TaskQueue
	}
	return client.StartWorkflowOptions{
		ID:                       device.WorkflowID(session),
		TaskQueue:                taskQueue,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            clip("session " + session[:min(8, len(session))] + " on RAE " + rae),
	}
}

// CheckSearchAttributes returns nil where the namespace has every search attribute
// of a session. Otherwise its error is the command that registers those missing.
func CheckSearchAttributes(ctx context.Context, operator operatorservice.OperatorServiceClient, namespace string) error {
	have, err := operator.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("list search attributes: %w", err)
	}
	var missing string
	for _, name := range SearchAttributes() {
		if have.GetCustomAttributes()[name] != enumspb.INDEXED_VALUE_TYPE_KEYWORD {
			missing += " --name " + name + " --type Keyword"
		}
	}
	if missing != "" {
		return fmt.Errorf("search attributes are missing: temporal operator search-attribute create --namespace %s%s", namespace, missing)
	}
	return nil
}
