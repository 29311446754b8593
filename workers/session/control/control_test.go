package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/verify"
	"github.com/rollcall-platform/rollcall/workers/session/control"
	"github.com/rollcall-platform/rollcall/workflows"
)

const session = "11111111-1111-4111-8111-111111111111"

// server notes what it is asked, and answers with reply, or fails with err. An
// update that was accepted may fail with updateErr.
type server struct {
	control.Temporal
	asked          []string
	start          client.StartWorkflowOptions
	reply          any
	err, updateErr error
}

func (s *server) ask(what, id string) error {
	s.asked = append(s.asked, what+" "+id)
	return s.err
}

func decode(from, to any) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

type queried struct {
	converter.EncodedValue
	reply any
}

func (q queried) Get(to any) error { return decode(q.reply, to) }

type updated struct {
	client.WorkflowUpdateHandle
	reply any
	err   error
}

func (u updated) Get(_ context.Context, to any) error { return errors.Join(u.err, decode(u.reply, to)) }

func (s *server) DescribeWorkflowExecution(_ context.Context, id, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return &workflowservice.DescribeWorkflowExecutionResponse{
		WorkflowExecutionInfo: &workflow.WorkflowExecutionInfo{Status: enums.WORKFLOW_EXECUTION_STATUS_COMPLETED},
	}, s.ask("describe", id)
}

func (s *server) QueryWorkflow(_ context.Context, id, _, name string, _ ...any) (converter.EncodedValue, error) {
	return queried{reply: s.reply}, s.ask("query "+name, id)
}

func (s *server) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	out := &workflowservice.ListWorkflowExecutionsResponse{NextPageToken: []byte("next")}
	for _, id := range []string{"roll", device.WorkflowID(session), device.WorkflowID("not-a-uuid")} {
		out.Executions = append(out.Executions, &workflow.WorkflowExecutionInfo{Execution: &common.WorkflowExecution{WorkflowId: id}})
	}
	return out, s.ask("list "+r.GetQuery(), string(r.GetNextPageToken()))
}

func (s *server) SignalWorkflow(_ context.Context, id, _, name string, _ any) error {
	return s.ask("signal "+name, id)
}

func (s *server) UpdateWorkflow(_ context.Context, o client.UpdateWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	return updated{reply: s.reply, err: s.updateErr}, s.ask("update "+o.UpdateName, o.WorkflowID)
}

func (s *server) NewWithStartWorkflowOperation(o client.StartWorkflowOptions, _ any, _ ...any) client.WithStartWorkflowOperation {
	s.start = o
	return nil
}

func (s *server) UpdateWithStartWorkflow(_ context.Context, o client.UpdateWithStartWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	reason := o.UpdateOptions.Args[0].(workflows.CloseRequest).Reason
	return updated{reply: s.reply, err: s.updateErr}, s.ask("start and update "+o.UpdateOptions.UpdateName+" ("+reason+")", o.UpdateOptions.WorkflowID)
}

func TestClient(t *testing.T) {
	id := device.WorkflowID(session)
	s := &server{reply: workflows.Progress{PendingBatches: 3}}
	c := control.Client{Temporal: s, TaskQueue: "q"}
	p, err := c.Progress(t.Context(), session)
	require.NoError(t, err)
	require.Equal(t, control.Progress{Workflow: "Completed", Progress: workflows.Progress{PendingBatches: 3}}, p)

	s.reply = workflows.AppliedState{AsOf: 9}
	a, err := c.Drain(t.Context(), session)
	require.NoError(t, err)
	require.Equal(t, int64(9), a.AsOf)
	a, err = c.Close(t.Context(), "RAE-1", session, "scrapped")
	require.NoError(t, err)
	require.Equal(t, int64(9), a.AsOf)
	require.Equal(t, "q", s.start.TaskQueue)
	require.Equal(t, id, s.start.ID)
	require.NoError(t, c.TellTestState(t.Context(), session))
	require.Equal(t, []string{"describe " + id, "query progress " + id, "update drain " + id, "start and update close (scrapped) " + id, "signal test-state " + id}, s.asked)
}

// Whichever question finds no workflow says so alike; another error stays what
// it is.
func TestClientErrors(t *testing.T) {
	outage := errors.New("outage")
	for _, c := range []struct {
		name       string
		err, where error // of the server, or of an update that it accepted
		want       error
	}{
		{"no workflow", serviceerror.NewNotFound("no such execution"), nil, control.ErrNotRunning},
		{"ended meanwhile", nil, serviceerror.NewNotFound("completed"), control.ErrNotRunning},
		{"outage", outage, nil, outage},
		{"outage later", nil, outage, outage},
	} {
		s := &server{err: c.err, updateErr: c.where}
		client := control.Client{Temporal: s, TaskQueue: "q"}
		_, drained := client.Drain(t.Context(), session)
		_, closed := client.Close(t.Context(), "RAE-1", session, "x")
		errs := []error{drained, closed}
		if c.err != nil {
			_, asked := client.Progress(t.Context(), session)
			errs = append(errs, asked, client.TellTestState(t.Context(), session))
		}
		for _, err := range errs {
			require.ErrorIs(t, err, c.want, c.name)
			if errors.Is(c.want, control.ErrNotRunning) {
				require.EqualError(t, err, "session "+session+" has no workflow that runs: it is closed, idle or unknown, and nothing waits for it")
			}
		}
	}
}

func TestState(t *testing.T) {
	s := &server{reply: workflows.StateView{RAE: "RAE-1", AsOf: 9, Snapshot: 7}}
	c := control.Client{Temporal: s}
	got, err := c.State(t.Context(), session)
	require.NoError(t, err)
	require.Equal(t, verify.State{RAE: "RAE-1", AsOf: 9, Snapshot: 7}, got)
	s.err = serviceerror.NewNotFound("no such execution")
	_, err = c.State(t.Context(), session)
	require.ErrorIs(t, err, verify.ErrGone)
	s.err = errors.New("outage")
	_, err = c.State(t.Context(), session)
	require.ErrorIs(t, err, s.err)
}

func TestRunning(t *testing.T) {
	s := &server{}
	sessions, next, err := control.Client{Temporal: s}.Running(t.Context(), []byte("page"))
	require.NoError(t, err)
	require.Equal(t, []string{session}, sessions, "what is no session's workflow is left out")
	require.Equal(t, "next", string(next))
	require.Equal(t, []string{"list WorkflowType = 'DeviceSession' AND ExecutionStatus = 'Running' page"}, s.asked)
}

// A session that differs is told to look, and its receipt says what was lost; one
// whose workflow does not run has nothing to be told.
func TestRepair(t *testing.T) {
	s := &server{reply: workflows.ReloadResult{
		Lost: device.SeqSet{{From: 3, To: 5}}, Snapshot: workflows.SnapshotRequestResult{Outcome: workflows.RequestDeferred, Detail: "too many"},
	}}
	got, err := control.Client{Temporal: s}.Repair(t.Context(), session)
	require.NoError(t, err)
	require.Equal(t, verify.Repair{Lost: device.SeqSet{{From: 3, To: 5}}, Snapshot: "later: too many"}, got)
	require.Equal(t, []string{"update reload " + device.WorkflowID(session)}, s.asked)

	_, err = control.Client{Temporal: &server{err: serviceerror.NewNotFound("")}}.Repair(t.Context(), session)
	require.ErrorIs(t, err, verify.ErrGone)
	_, err = control.Client{Temporal: &server{err: errors.New("unavailable")}}.Repair(t.Context(), session)
	require.ErrorContains(t, err, "unavailable")
	require.NotErrorIs(t, err, verify.ErrGone)
}
