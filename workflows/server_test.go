package workflows_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Tests on a real Temporal Server run where this names one: make test starts the
// development stack's (bin/devstack up --bare). Another one needs a search
// attribute of type Keyword for each of workflows.SearchAttributes().
const addressVariable = "ROLLCALL_TEST_TEMPORAL_ADDRESS"

// server is a worker and its client on a real Temporal Server.
type server struct {
	client.Client
	t     *testing.T
	db    *database
	queue string
	again int // signals that were sent again, and so may have come twice
}

// patience bounds what a server has to do sometime. It is for one that never
// does it, not for one that is slow.
const patience = 2 * time.Minute

func newServer(t *testing.T, db *database) *server {
	t.Helper()
	s := newServerWithoutWorker(t, db)
	s.work()
	return s
}

func newServerWithoutWorker(t *testing.T, db *database) *server {
	t.Helper()
	address := os.Getenv(addressVariable)
	if address == "" {
		t.Skipf("no Temporal Server: start one (bin/devstack up --bare has one) and name it, host:port, in %s", addressVariable)
	}
	c, err := client.Dial(client.Options{
		HostPort: address, Logger: quiet{}, Identity: "test", ConnectionOptions: client.ConnectionOptions{GetSystemInfoTimeout: patience},
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return &server{Client: c, t: t, db: db, queue: "test-" + uuid.NewString()}
}

// work starts a worker that ends with the test.
func (s *server) work() worker.Worker {
	w := worker.New(s.Client, s.queue, worker.Options{MaxConcurrentWorkflowTaskPollers: 4, DisableRegistrationAliasing: true, Identity: "test"})
	workflows.Register(w)
	s.db.register(w)
	require.NoError(s.t, w.Start())
	s.t.Cleanup(w.Stop)
	return w
}

func (s *server) signal(in workflows.Input, payload any) (run string) {
	s.t.Helper()
	if b, ok := payload.(device.Batch); ok {
		b.Fold.Session = in.Session
		payload = b
	}
	// As a poller would: a session that just continues as new is busy.
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		r, err := s.SignalWithStartWorkflow(s.t.Context(), device.WorkflowID(in.Session), device.SignalEvents, payload,
			workflows.StartOptions(s.queue, in.RAE, in.Session), workflows.DeviceSessionName, in)
		if err == nil {
			return r.GetRunID()
		}
		require.Less(s.t, time.Since(begun), patience, "%v", err)
		s.again++
	}
}

func (s *server) query(in workflows.Input, name string, out any) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 15*time.Second)
	defer cancel()
	q, err := s.QueryWorkflow(ctx, device.WorkflowID(in.Session), "", name)
	if err != nil {
		return err
	}
	return q.Get(out)
}

// until waits for what the query shows.
func (s *server) until(in workflows.Input, what string, done func(workflows.StateView) bool) workflows.StateView {
	s.t.Helper()
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		var v workflows.StateView
		err := s.query(in, workflows.QueryState, &v)
		if err == nil && done(v) {
			return v
		}
		require.Less(s.t, time.Since(begun), patience, "%s: %+v, %v", what, v, err)
	}
}

// result waits for the end of a run.
func (s *server) result(in workflows.Input, run string) (result workflows.Result) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	require.NoError(s.t, s.GetWorkflow(ctx, device.WorkflowID(in.Session), run).Get(ctx, &result))
	return result
}

func (s *server) asOf(in workflows.Input, seq int64) workflows.StateView {
	s.t.Helper()
	return s.until(in, fmt.Sprintf("as of seq %d", seq), func(v workflows.StateView) bool { return v.AsOf >= seq && v.Waiting == 0 })
}

func (s *server) update(in workflows.Input, name string, out any, args ...any) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	h, err := s.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: device.WorkflowID(in.Session), UpdateName: name, Args: args, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(s.t, err)
	require.NoError(s.t, h.Get(ctx, out))
}

// reserve sets the device's test state as people do.
func (s *server) reserve(in workflows.Input, test *workflows.TestState) {
	s.t.Helper()
	s.db.people(test)
	require.NoError(s.t, s.SignalWorkflow(s.t.Context(), device.WorkflowID(in.Session), "", workflows.SignalTestState, nil))
}

func (s *server) end(in workflows.Input) {
	require.NoError(s.t, s.TerminateWorkflow(context.WithoutCancel(s.t.Context()), device.WorkflowID(in.Session), "", "end of test"))
}

// history reads a run's history; an empty run is the newest.
func (s *server) history(in workflows.Input, run string) *historypb.History {
	s.t.Helper()
	h := &historypb.History{}
	for it := s.GetWorkflowHistory(s.t.Context(), device.WorkflowID(in.Session), run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		require.NoError(s.t, err)
		h.Events = append(h.Events, e)
	}
	return h
}

// 50 signals a second into one session through ten runs, which take as many
// signals as the worker is behind: none lost, none applied twice.
func TestStreamThroughTenRuns(t *testing.T) {
	db := &database{search: true}
	s := newServer(t, db)
	in := input()
	in.Session = uuid.NewString()
	in.Options.SignalsPerRun = 20
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	events, runs := int64(0), map[string]bool{}
	for begun := time.Now(); len(runs) < 10; {
		require.Less(t, time.Since(begun), patience, "%d runs", len(runs))
		<-tick.C
		events++
		runs[s.signal(in, batch(events, delta(events, "a", fmt.Sprint("n", events%50))))] = true
	}
	v := s.asOf(in, events)
	require.Empty(t, v.Missing)
	require.EqualValues(t, events, v.Counters.Events)
	require.GreaterOrEqual(t, v.Counters.Signals, events)
	require.LessOrEqual(t, v.Counters.Signals, events+int64(s.again))
	require.GreaterOrEqual(t, v.Runs, 10)
	require.Equal(t, device.Hash(db.live()), v.Hash)
	db.mu.Lock()
	defer db.mu.Unlock()
	require.LessOrEqual(t, v.Counters.Duplicates, db.known+int64(s.again))
	require.Equal(t, position(events+1), db.positions)
	t.Logf("%d events, %d runs, %d applies", events, v.Runs, len(db.applies))
	s.end(in)
}

// card is the session's status card.
func (s *server) card(in workflows.Input) string {
	var m sdk.WorkflowMetadata
	require.NoError(s.t, s.query(in, "__temporal_workflow_metadata", &m))
	return m.GetCurrentDetails()
}

// What a person sees who looks for a session and into it.
func TestShownOnARealServer(t *testing.T) {
	s := newServer(t, &database{search: true})
	in := input()
	in.Session = uuid.NewString()
	e := delta(1)
	for name, value := range map[string]string{
		device.AttrConnectionStatus: `"up"`, device.AttrMDNSModel: `"Soundbar 5"`, device.AttrHostname: `"bar` + "`" + `*"`, device.AttrIPv4: `["192.0.2.7","192.0.2.8"]`,
	} {
		e.Attributes[name] = device.Attribute{Value: json.RawMessage(value), Seq: 1, At: e.Time}
	}
	s.signal(in, batch(1, e, delta(4, "a")))
	s.asOf(in, 4)
	s.reserve(in, held("ci`1", time.Now().Add(time.Hour)))
	query := fmt.Sprintf("TestState='in_test' AND SyncState='gap' AND ConnectionStatus='up' AND DeviceModel='Soundbar 5' AND RaeSerial=%q AND WorkflowId=%q", in.RAE, device.WorkflowID(in.Session))
	require.Eventually(t, func() bool {
		r, err := s.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: query})
		return err == nil && r.GetCount() == 1
	}, patience, 50*time.Millisecond, query)

	card := s.card(in)
	require.Contains(t, card, "**gap** · as of seq 4 · 5 attributes")
	require.Contains(t, card, "- host name: `bar'*`")
	require.Contains(t, card, "- IPv4: `192.0.2.7, 192.0.2.8`")
	require.Contains(t, card, "- missing seq: 2–3, since ")
	require.Contains(t, card, "- TestState: `in_test` by `ci'1` until ")
	s.end(in)
}

// A worker that goes away in the middle of an apply leaves a workflow task that
// times out; the next worker does it again. Applied once or twice, the record
// is the same.
func TestWorkerLostInTheMiddleOfAnApply(t *testing.T) {
	var stuck atomic.Int32
	db := &database{}
	s := newServerWithoutWorker(t, db)
	lost := &database{fail: func(ctx context.Context, name string, _ *workflows.ApplyRequest) error {
		if name == workflows.ActivityApplyBatch {
			stuck.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	first := (&server{Client: s.Client, t: t, db: lost, queue: s.queue}).work()
	in := input()
	in.Session = uuid.NewString()
	s.signal(in, batch(1, delta(1, "a")))
	require.Eventually(t, func() bool { return stuck.Load() > 0 }, patience, 10*time.Millisecond)
	first.Stop()
	s.signal(in, batch(2, delta(2, "b")))
	s.work()
	v := s.asOf(in, 2)
	require.Equal(t, map[string]string{"a": "1", "b": "2"}, values(v.Attributes))
	db.mu.Lock()
	defer db.mu.Unlock()
	require.Equal(t, position(3), db.positions)
	s.end(in)
}
