// Package control speaks with the workflows of device sessions, for a person:
// it asks what one is doing, waits until it has applied what it was sent, closes
// it, and tells it that a test state has changed.
package control

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/verify"
	"github.com/rollcall-platform/rollcall/workflows"
)

// ErrNotRunning is wrapped by the error of a session without a workflow that
// runs: it is closed, idle or unknown, and nothing waits for it.
var ErrNotRunning = errors.New("has no workflow that runs: it is closed, idle or unknown, and nothing waits for it")

// Temporal is what Client takes of a client.Client.
type Temporal interface {
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
	QueryWorkflow(ctx context.Context, workflowID, runID, queryType string, args ...any) (converter.EncodedValue, error)
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
	SignalWorkflow(ctx context.Context, workflowID, runID, signal string, arg any) error
	UpdateWorkflow(ctx context.Context, o client.UpdateWorkflowOptions) (client.WorkflowUpdateHandle, error)
	UpdateWithStartWorkflow(ctx context.Context, o client.UpdateWithStartWorkflowOptions) (client.WorkflowUpdateHandle, error)
	NewWithStartWorkflowOperation(o client.StartWorkflowOptions, workflow any, args ...any) client.WithStartWorkflowOperation
}

// Client speaks with sessions. All errors of sessions whose workflow does not
// run wrap ErrNotRunning.
type Client struct {
	Temporal Temporal // required
	// TaskQueue is the workers'. Close requires it: it may have to start a
	// workflow.
	TaskQueue string
}

// Progress is what a session's workflow is doing.
type Progress struct {
	Workflow string `json:"workflow"` // Running, Completed, …
	workflows.Progress
}

// Progress asks what the session's workflow is doing. One that is completed
// answers too, as long as its namespace keeps it.
func (c Client) Progress(ctx context.Context, session string) (p Progress, err error) {
	id := device.WorkflowID(session)
	d, err := c.Temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return p, notRunning(session, err)
	}
	p.Workflow = d.GetWorkflowExecutionInfo().GetStatus().String()
	v, err := c.Temporal.QueryWorkflow(ctx, id, "", workflows.QueryProgress)
	if err != nil {
		return p, notRunning(session, err)
	}
	return p, v.Get(&p.Progress)
}

// Drain waits until the database has all that the session was sent before, and
// returns how far that is.
func (c Client) Drain(ctx context.Context, session string) (workflows.AppliedState, error) {
	h, err := c.Temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: device.WorkflowID(session), UpdateName: workflows.UpdateDrain, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	return applied(ctx, session, h, err)
}

// Close closes the session for good, whether its workflow runs or not, and
// returns how far it came. One that is closed stays as it was.
func (c Client) Close(ctx context.Context, rae, session, reason string) (workflows.AppliedState, error) {
	o := workflows.StartOptions(c.TaskQueue, rae, session)
	h, err := c.Temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: c.Temporal.NewWithStartWorkflowOperation(o, workflows.DeviceSessionName, workflows.Input{RAE: rae, Session: session}),
		UpdateOptions: client.UpdateWorkflowOptions{
			WorkflowID: o.ID, UpdateName: workflows.UpdateClose, Args: []any{workflows.CloseRequest{Reason: reason}},
			WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	return applied(ctx, session, h, err)
}

// Repair has the session take what the database has of it for its own, and ask its
// edge for a snapshot. It implements verify.Repairs.
func (c Client) Repair(ctx context.Context, session string) (verify.Repair, error) {
	h, err := c.Temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: device.WorkflowID(session), UpdateName: workflows.UpdateReload, WaitForStage: client.WorkflowUpdateStageCompleted,
		Args: []any{workflows.ReloadArgs{Reason: "verify found that it differs"}},
	})
	var result workflows.ReloadResult
	if err == nil {
		err = h.Get(ctx, &result)
	}
	if err = notRunning(session, err); errors.Is(err, ErrNotRunning) {
		return verify.Repair{}, errors.Join(verify.ErrGone, err)
	} else if err != nil {
		return verify.Repair{}, fmt.Errorf("reload session %s: %w", session, err)
	}
	out := verify.Repair{Lost: result.Lost, Snapshot: string(result.Snapshot.Outcome)}
	if result.Snapshot.Detail != "" {
		out.Snapshot += ": " + result.Snapshot.Detail
	}
	return out, nil
}

// TellTestState has the session read its device's test state again. It starts no
// workflow: one that does not run reads it when its next event starts it.
func (c Client) TellTestState(ctx context.Context, session string) error {
	return notRunning(session, c.Temporal.SignalWorkflow(ctx, device.WorkflowID(session), "", workflows.SignalTestState, nil))
}

func applied(ctx context.Context, session string, h client.WorkflowUpdateHandle, err error) (a workflows.AppliedState, _ error) {
	if err == nil {
		err = h.Get(ctx, &a)
	}
	return a, notRunning(session, err)
}

// notRunning is err, or ErrNotRunning where the server knows no such workflow.
func notRunning(session string, err error) error {
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return fmt.Errorf("session %s %w", session, ErrNotRunning)
	}
	return err
}
