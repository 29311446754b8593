package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-platform/rollcall/workers/session"
	"github.com/rollcall-platform/rollcall/workflows"
)

// fleet is the running sessions of a task queue, as the server's visibility
// shows them: a moment late.
type fleet struct {
	client    client.Client
	namespace string
	queue     string
}

func newFleet(c client.Client, namespace, queue string) fleet {
	return fleet{client: c, namespace: namespace, queue: queue}
}

// running is the query for all of them. The task queue is an operator's word.
func (f fleet) running() string {
	return fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Running' AND TaskQueue = '%s'",
		workflows.DeviceSessionName, strings.ReplaceAll(f.queue, "'", "''"))
}

// on is the query for those that run on v, elsewhere for those that do not: also
// those of unversioned workers, and those that have just continued as new.
func (f fleet) on(v session.Version) string {
	return fmt.Sprintf("%s AND TemporalWorkerDeploymentVersion = '%s'", f.running(), v)
}

func (f fleet) elsewhere(v session.Version) string {
	return fmt.Sprintf("%s AND (TemporalWorkerDeploymentVersion != '%s' OR TemporalWorkerDeploymentVersion IS NULL)", f.running(), v)
}

// list returns the workflow IDs.
func (f fleet) list(ctx context.Context, query string) ([]string, error) {
	var ids []string
	var page []byte
	for {
		answer, err := f.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: f.namespace, Query: query, PageSize: 1000, NextPageToken: page,
		})
		if err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		for _, e := range answer.GetExecutions() {
			ids = append(ids, e.GetExecution().GetWorkflowId())
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return ids, nil
		}
	}
}

func (f fleet) number(ctx context.Context, query string) (int64, error) {
	answer, err := f.client.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: f.namespace, Query: query})
	if err != nil {
		return 0, fmt.Errorf("count sessions: %w", err)
	}
	return answer.GetCount(), nil
}

// problems lists sessions whose workflow tasks fail again and again. The server
// marks them after some failures in a row, which takes minutes.
func (f fleet) problems(ctx context.Context) ([]string, error) {
	return f.list(ctx, f.running()+" AND TemporalReportedProblems IS NOT NULL")
}

// sample is how many sessions of each kind are looked at one by one.
const sample = 50

// stuckAt is the attempt of a workflow task from which on a session is stuck:
// one failure may be a signal that met a continue-as-new, or a worker that
// stopped.
const stuckAt = 3

// stuck lists sessions, of the newest runs on v and of those that have yet to
// complete a task anywhere, whose workflow task has failed twice. It sees in ten
// seconds what problems sees in minutes.
func (f fleet) stuck(ctx context.Context, v session.Version) ([]string, error) {
	var ids []string
	for _, query := range []string{f.on(v), f.running() + " AND TemporalWorkerDeploymentVersion IS NULL"} {
		answer, err := f.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: f.namespace, Query: query, PageSize: sample})
		if err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		for _, e := range answer.GetExecutions() {
			ids = append(ids, e.GetExecution().GetWorkflowId())
		}
	}
	return f.those(ctx, ids, func(d *described) bool { return d.GetPendingWorkflowTask().GetAttempt() >= stuckAt })
}

// unseen lists those of ids that run and are not in seen: visibility can be
// between the end of a run and the start of the next.
func (f fleet) unseen(ctx context.Context, ids, seen []string) ([]string, error) {
	shown := map[string]bool{}
	for _, id := range seen {
		shown[id] = true
	}
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return shown[id] })
	return f.those(ctx, ids, func(d *described) bool {
		return d.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	})
}

type described = workflowservice.DescribeWorkflowExecutionResponse

// those lists the ids whose newest runs are kept, as the server itself has them.
func (f fleet) those(ctx context.Context, ids []string, keep func(*described) bool) ([]string, error) {
	var mu sync.Mutex
	var out []string
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, id := range ids {
		group.Go(func() error {
			d, err := f.client.DescribeWorkflowExecution(asking, id, "")
			if ended := new(serviceerror.NotFound); errors.As(err, &ended) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("describe %s: %w", id, err)
			}
			if keep(d) {
				mu.Lock()
				defer mu.Unlock()
				out = append(out, id)
			}
			return nil
		})
	}
	return out, group.Wait()
}

// pollerAge is how long ago a poller may have been heard of: a long poll is
// renewed every minute.
const pollerAge = 2 * time.Minute

// pollers counts the workers of v that poll for workflow tasks.
func (f fleet) pollers(ctx context.Context, v session.Version) (n int, err error) {
	answer, err := f.client.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
		Namespace: f.namespace, TaskQueue: &taskqueuepb.TaskQueue{Name: f.queue}, TaskQueueType: enumspb.TASK_QUEUE_TYPE_WORKFLOW,
	})
	if err != nil {
		return 0, fmt.Errorf("describe task queue %s: %w", f.queue, err)
	}
	for _, p := range answer.GetPollers() {
		d := p.GetDeploymentOptions()
		versioned := d.GetWorkerVersioningMode() == enumspb.WORKER_VERSIONING_MODE_VERSIONED
		same := !versioned && v == (session.Version{}) ||
			versioned && v == (session.Version{Deployment: d.GetDeploymentName(), BuildID: d.GetBuildId()})
		if same && time.Since(p.GetLastAccessTime().AsTime()) < pollerAge {
			n++
		}
	}
	return n, nil
}

// atOnce is how many calls about single sessions are open.
const atOnce = 16

// nudge signals each session, at most rate a second, until the deadline. It
// returns how many it signalled. One that has ended meanwhile needs none, and
// one that the server has no time for gets another in the next pass.
func (f fleet) nudge(ctx context.Context, ids []string, rate float64, deadline time.Time) (int, error) {
	var sent atomic.Int64
	tick := time.NewTicker(max(time.Duration(float64(time.Second)/rate), time.Microsecond))
	defer tick.Stop()
	group, signalling := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, id := range ids {
		select {
		case <-signalling.Done():
		case <-tick.C:
		}
		if signalling.Err() != nil || time.Now().After(deadline) {
			break
		}
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(signalling, 10*time.Second)
			defer cancel()
			err := f.client.SignalWorkflow(ctx, id, "", workflows.SignalNudge, nil)
			var ended *serviceerror.NotFound
			var busy *serviceerror.ResourceExhausted
			switch {
			case err == nil:
				sent.Add(1)
			case errors.As(err, &ended), errors.As(err, &busy), errors.Is(err, context.DeadlineExceeded):
			default:
				return fmt.Errorf("nudge %s: %w", id, err)
			}
			return nil
		})
	}
	err := group.Wait()
	return int(sent.Load()), err
}
