package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/verify"
	"github.com/rollcall-platform/rollcall/workflows"
)

// State implements verify.Workflows: it asks the session's workflow by query.
func (c Client) State(ctx context.Context, session string) (verify.State, error) {
	value, err := c.Temporal.QueryWorkflow(ctx, device.WorkflowID(session), "", workflows.QueryState)
	if absent := (*serviceerror.NotFound)(nil); errors.As(err, &absent) {
		return verify.State{}, verify.ErrGone
	}
	if err != nil {
		return verify.State{}, err
	}
	var view workflows.StateView
	if err := value.Get(&view); err != nil {
		return verify.State{}, fmt.Errorf("answer to query %s: %w", workflows.QueryState, err)
	}
	out := verify.State{RAE: view.RAE, AsOf: view.AsOf, Snapshot: view.Snapshot, Closed: view.Closed, Missing: view.Missing, Attributes: view.Attributes}
	if check := view.Check; check != nil {
		out.Check = &verify.Check{Seq: check.Seq, Edge: check.Edge, Cloud: check.Cloud, Drift: check.Drift}
	}
	return out, nil
}

// Running implements verify.Directory: it lists workflows by their type.
func (c Client) Running(ctx context.Context, page []byte) (sessions []string, next []byte, err error) {
	listed, err := c.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Query:    fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Running'", workflows.DeviceSessionName),
		PageSize: 1000, NextPageToken: page,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list workflows: %w", err)
	}
	for _, e := range listed.GetExecutions() {
		if id := strings.TrimPrefix(e.GetExecution().GetWorkflowId(), device.WorkflowID("")); device.CheckSession(id) == nil {
			sessions = append(sessions, id)
		}
	}
	return sessions, listed.GetNextPageToken(), nil
}
