package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/request"
	"github.com/rollcall-platform/rollcall/workflows"
)

// RAEs is the Edge of a platform that runs: it asks over Kafka.
type RAEs struct{ Requester *request.Requester }

// Snapshot implements Edge.
func (r RAEs) Snapshot(ctx context.Context, s Session) (device.Reply, error) {
	command, err := request.NewCommand("verify", s.RAE, s.ID, device.ActionSnapshot, nil, time.Now(), CommandLife)
	if err != nil {
		return device.Reply{}, err
	}
	command.Reason = "verify"
	return r.Requester.Ask(ctx, command)
}

// TemporalClient is what SessionWorkflows takes of a client.Client.
type TemporalClient interface {
	QueryWorkflow(ctx context.Context, workflowID, runID, queryType string, args ...any) (converter.EncodedValue, error)
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
}

// SessionWorkflows are the Workflows of a platform that runs: it asks them by
// query.
type SessionWorkflows struct{ Client TemporalClient }

// State implements Workflows.
func (w SessionWorkflows) State(ctx context.Context, session string) (State, error) {
	view, err := w.view(ctx, session)
	if err != nil {
		return State{}, err
	}
	out := State{AsOf: view.AsOf, Snapshot: view.Snapshot, Closed: view.Closed, Missing: view.Missing, Attributes: view.Attributes}
	if c := view.Check; c != nil {
		out.Check = &Check{Seq: c.Seq, Edge: c.Edge, Cloud: c.Cloud, Drift: c.Drift}
	}
	return out, nil
}

func (w SessionWorkflows) view(ctx context.Context, session string) (view workflows.StateView, err error) {
	value, err := w.Client.QueryWorkflow(ctx, device.WorkflowID(session), "", workflows.QueryState)
	if absent := (*serviceerror.NotFound)(nil); errors.As(err, &absent) {
		return view, ErrGone
	}
	if err != nil {
		return view, err
	}
	if err := value.Get(&view); err != nil {
		return view, fmt.Errorf("answer to query %s: %w", workflows.QueryState, err)
	}
	return view, nil
}
