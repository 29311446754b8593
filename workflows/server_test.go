package workflows_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/temporalproto"
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

var record = flag.Bool("record", false, "write testdata/*.json anew from runs on the server of "+addressVariable)

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

func (s *server) save(name string, in workflows.Input, run string) {
	s.t.Helper()
	h := s.history(in, run)
	for _, e := range h.GetEvents() { // the sticky queue is named after the machine
		if q := e.GetWorkflowTaskScheduledEventAttributes().GetTaskQueue(); q.GetKind() == enumspb.TASK_QUEUE_KIND_STICKY {
			q.Name = "sticky"
		}
	}
	b, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(h)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(filepath.Join(recordings, name+".json"), append(b, '\n'), 0o644))
}

// recordings are of the newest level: what older code wrote is not written again.
var recordings = filepath.Join("testdata", fmt.Sprint("level", workflows.Level))

// TestRecord writes the histories that TestReplay replays. Run it when a
// history of a new path is wanted, on a server of the version in use:
//
//	ROLLCALL_TEST_TEMPORAL_ADDRESS=127.0.0.1:7233 go test ./workflows -run TestRecord -record
//
// Do not record to make a failing TestReplay pass: the old histories are those
// of sessions that run.
func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("records histories: set ROLLCALL_TEST_TEMPORAL_ADDRESS and run with -record")
	}
	require.NoError(t, os.MkdirAll(recordings, 0o755))
	scenario := func(name string, db *database, play func(t *testing.T, s *server, in workflows.Input)) {
		t.Run(name, func(t *testing.T) {
			in := input()
			in.Session = uuid.NewString()
			play(t, newServer(t, db), in)
		})
	}
	scenario("life", &database{search: true}, func(_ *testing.T, s *server, in workflows.Input) {
		run := s.signal(in, batch(1, delta(1, "a"), delta(2, "b")))
		s.asOf(in, 2)
		s.signal(in, batch(1, delta(1, "a"), delta(2, "b")))
		s.signal(in, batch(3, delta(3, "a"), snapshot(4, map[string]device.Attribute{"a": delta(3, "a").Attributes["a"], "b": delta(2, "b").Attributes["b"]})))
		s.asOf(in, 4)
		s.signal(in, batch(5, closed(5)))
		s.result(in, run)
		s.save("life", in, run)
		late := s.signal(in, batch(6, delta(6, "a")))
		require.NotEqual(t, run, late)
		s.result(in, late)
		s.save("late", in, late)
	})
	scenario("gap", &database{search: true}, func(t *testing.T, s *server, in workflows.Input) {
		s.signal(in, batch(1, delta(1, "a")))
		s.asOf(in, 1)
		s.signal(in, batch(2, delta(4, "a"), delta(5, "b")))
		v := s.asOf(in, 5)
		require.Equal(t, workflows.SyncGap, v.Sync)
		s.signal(in, batch(4, snapshot(6, map[string]device.Attribute{
			"a": delta(4, "a").Attributes["a"], "b": delta(5, "b").Attributes["b"], "c": delta(2, "c").Attributes["c"],
		})))
		v = s.asOf(in, 6)
		require.Equal(t, workflows.SyncLive, v.Sync)
		require.EqualValues(t, 1, v.Counters.Repaired)
		s.save("gap", in, "")
		s.end(in)
	})
	var down atomic.Bool
	outageDB := &database{}
	outageDB.fail = func(context.Context, string, *workflows.ApplyRequest) error {
		if down.Load() {
			return outage()
		}
		return nil
	}
	scenario("outage", outageDB, func(t *testing.T, s *server, in workflows.Input) {
		s.signal(in, batch(1, delta(1, "a")))
		s.asOf(in, 1)
		down.Store(true)
		s.signal(in, batch(2, delta(2, "a"), delta(3, "b")))
		require.Eventually(t, func() bool {
			d, err := s.DescribeWorkflowExecution(t.Context(), device.WorkflowID(in.Session), "")
			return err == nil && len(d.GetPendingActivities()) == 1 && d.GetPendingActivities()[0].GetLastFailure().GetMessage() != ""
		}, 30*time.Second, 100*time.Millisecond, "a pending activity with its last failure")
		s.signal(in, batch(4, delta(4, "c")))
		down.Store(false)
		s.asOf(in, 4)
		s.save("outage", in, "")
		s.end(in)
	})
	refusing := &database{}
	refusing.fail = func(_ context.Context, _ string, r *workflows.ApplyRequest) error {
		if r != nil && r.Write["bad"].Seq > 0 {
			return databaseRefusal()
		}
		return nil
	}
	scenario("refused", refusing, func(t *testing.T, s *server, in workflows.Input) {
		s.signal(in, batch(1, delta(1, "a")))
		s.signal(in, batch(2, delta(2, "bad")))
		s.until(in, "the database's refusal", func(v workflows.StateView) bool { return v.Counters.Refused == 1 })
		newer := batch(3, delta(3, "a"))
		newer.Version = 2
		s.signal(in, newer)
		s.signal(in, "not a batch")
		s.signal(in, batch(4, delta(4, "a")))
		v := s.asOf(in, 4)
		require.EqualValues(t, 3, v.Counters.Refused)
		require.Equal(t, position(5), s.db.positions)
		s.save("refused", in, "")
		s.end(in)
	})
	scenario("runs", &database{search: true}, func(t *testing.T, s *server, in workflows.Input) {
		in.Options.SignalsPerRun = 4
		var runs []string
		for seq := int64(1); seq <= 30; seq++ {
			run := s.signal(in, batch(seq, delta(seq, "a", fmt.Sprint("n", seq))))
			if len(runs) == 0 || runs[len(runs)-1] != run {
				runs = append(runs, run)
			}
		}
		v := s.asOf(in, 30)
		require.Greater(t, v.Runs, 2)
		require.Len(t, v.Attributes, 31)
		require.Greater(t, len(runs), 2)
		s.save("runs-first", in, runs[0])
		s.save("runs-second", in, runs[1])
		s.end(in)
	})
	recordLevel1(t, scenario)
	recordLevel2(t, scenario)
	recordLevel3(t, scenario)
}

// recordLevel3 plays what only code of level 3 does.
func recordLevel3(t *testing.T, scenario func(string, *database, func(*testing.T, *server, workflows.Input))) {
	scenario("reserved", &database{search: true}, func(_ *testing.T, s *server, in workflows.Input) {
		s.signal(in, batch(1, delta(1, "a")))
		s.asOf(in, 1)
		s.reserve(in, held("ci-1", time.Now().Add(3*time.Second)))
		s.until(in, "the reservation", func(v workflows.StateView) bool { return v.TestState.State == "in_test" })
		s.until(in, "the end of the lease", func(v workflows.StateView) bool { return v.TestState.State == "available" })
		s.signal(in, batch(2, delta(2, "a")))
		s.asOf(in, 2)
		s.save("reserved", in, "")
		s.end(in)
	})
	scenario("upgrade-2", &database{search: true, test: &workflows.TestState{State: "maintenance", Holder: "ops"}}, func(_ *testing.T, s *server, in workflows.Input) {
		in.Carried = &workflows.CarriedState{ // as code of level 2 carried it
			Version: 1, Level: 2, Runs: 1, Sync: workflows.SyncLive, SyncSince: epoch, LastReceived: epoch, Positions: position(3), SearchAttributes: true,
			State: device.State{
				RAE: rae, Session: in.Session, AsOf: 2, Seen: device.SeqSet{{From: 1, To: 2}}, First: epoch, Last: epoch,
				Attributes: edgeSays(2, `"idle"`).Attributes,
			},
		}
		s.signal(in, batch(3, delta(3, "a")))
		s.asOf(in, 3)
		s.until(in, "the test state", func(v workflows.StateView) bool { return v.TestState != nil && v.TestState.State == "maintenance" })
		s.save("upgrade-2", in, "")
		s.end(in)
	})
}

// recordLevel2 plays what only code of level 2 does.
func recordLevel2(t *testing.T, scenario func(string, *database, func(*testing.T, *server, workflows.Input))) {
	scenario("corrected", &database{search: true}, func(t *testing.T, s *server, in workflows.Input) {
		status := func(seq int64, value string) map[string]device.Attribute {
			return map[string]device.Attribute{"connection.status": {Value: json.RawMessage(value), Seq: seq, At: epoch}}
		}
		e := delta(1)
		e.Attributes = status(1, `"online"`)
		s.signal(in, batch(1, e))
		s.asOf(in, 1)
		s.signal(in, batch(2, snapshot(2, status(1, `"offline"`)))) // a search attribute, too
		v := s.asOf(in, 2)
		require.Equal(t, []string{"connection.status"}, v.Check.Drift)
		require.Equal(t, v.Check.Edge, v.Hash)
		s.save("corrected", in, "")
		s.end(in)
	})
	scenario("gives-way", &database{newer: "99999999-3c6e-4f4e-9f3a-0c0f3f0a9b11"}, func(t *testing.T, s *server, in workflows.Input) {
		in.Options.IdleTimeout = 4 * time.Second // quiet is not waited for longer
		opened := delta(1)
		opened.Attributes["network.mac"] = device.Attribute{Value: json.RawMessage(`"02:00:00:00:00:01"`), Seq: 1, At: opened.Time}
		run := s.signal(in, batch(1, opened))
		s.asOf(in, 1)
		s.signal(in, batch(2, delta(2, "a")))
		result := s.result(in, run)
		require.EqualValues(t, 2, result.Closed)
		require.Contains(t, result.Reason, "superseded by")
		s.save("gives-way", in, run)
	})
	scenario("upgrade-1", &database{newer: "99999999-3c6e-4f4e-9f3a-0c0f3f0a9b11"}, func(t *testing.T, s *server, in workflows.Input) {
		in.Options.IdleTimeout = 4 * time.Second
		in.Carried = &workflows.CarriedState{ // as code of level 1 carried it
			Version: 1, Level: 1, Runs: 1, Sync: workflows.SyncLive, SyncSince: epoch, LastReceived: epoch, Positions: position(3),
			State: device.State{
				RAE: rae, Session: in.Session, AsOf: 2, Seen: device.SeqSet{{From: 1, To: 2}}, First: epoch, Last: epoch,
				Attributes: map[string]device.Attribute{"a": delta(2, "a").Attributes["a"]},
			},
		}
		run := s.signal(in, batch(3, delta(3, "a")))
		s.asOf(in, 3)
		require.NoError(t, s.SignalWorkflow(t.Context(), device.WorkflowID(in.Session), "", workflows.SignalClose, workflows.SupersededCloseRequest(session)))
		s.signal(in, batch(4, delta(4, "a"))) // of the tail
		result := s.result(in, run)
		require.EqualValues(t, 4, result.Closed)
		require.Zero(t, result.Counters.AfterClose)
		s.save("upgrade-1", in, run)
	})
}

// recordLevel1 plays what only code of level 1 does.
func recordLevel1(t *testing.T, scenario func(string, *database, func(*testing.T, *server, workflows.Input))) {
	scenario("resync", &database{search: true}, func(t *testing.T, s *server, in workflows.Input) {
		in.Options.SignalsPerRun = 4
		run := s.signal(in, batch(1, delta(1, "a")))
		s.asOf(in, 1)
		s.signal(in, batch(2, delta(4, "a"), delta(5, "b")))
		s.until(in, "a request", func(v workflows.StateView) bool { return v.Sync == workflows.SyncResync })
		s.signal(in, batch(4, snapshot(6, map[string]device.Attribute{
			"a": delta(4, "a").Attributes["a"], "b": delta(5, "b").Attributes["b"], "c": delta(2, "c").Attributes["c"],
		})))
		require.Equal(t, workflows.SyncLive, s.asOf(in, 6).Sync)
		s.save("resync", in, run)
		s.signal(in, batch(5, delta(8, "a"))) // a gap to carry
		s.until(in, "a new run", func(v workflows.StateView) bool { return v.AsOf == 8 && v.Runs == 2 })
		s.until(in, "another request", func(v workflows.StateView) bool { return v.Sync == workflows.SyncResync && v.Counters.Requests == 2 })
		s.save("resync-carried", in, "")
		s.end(in)
	})
	scenario("updates", &database{}, func(t *testing.T, s *server, in workflows.Input) {
		run := s.signal(in, batch(1, delta(1, "a")))
		var asked workflows.SnapshotRequestResult
		s.update(in, workflows.UpdateRequestSnapshot, &asked, workflows.SnapshotRequestArgs{Reason: "I wonder"})
		require.Equal(t, workflows.RequestSent, asked.Outcome)
		s.signal(in, batch(2, delta(2, "b")))
		var receipt workflows.AppliedState
		s.update(in, workflows.UpdateDrain, &receipt)
		require.EqualValues(t, 2, receipt.AsOf)
		s.update(in, workflows.UpdateClose, &receipt, workflows.CloseRequest{Reason: "sold"})
		require.EqualValues(t, 2, receipt.Closed)
		s.result(in, run)
		s.save("updates", in, run)
	})
	opened := delta(1)
	opened.Attributes["network.mac"] = device.Attribute{Value: json.RawMessage(`"02:00:00:00:00:01"`), Seq: 1, At: opened.Time}
	scenario("superseding", &database{older: []string{"11111111-3c6e-4f4e-9f3a-0c0f3f0a9b11"}}, func(t *testing.T, s *server, in workflows.Input) {
		s.signal(in, batch(1, opened))
		s.asOf(in, 1)
		require.Len(t, s.db.superseded, 1)
		s.save("superseding", in, "")
		s.end(in)
	})
	scenario("superseded", &database{}, func(t *testing.T, s *server, in workflows.Input) {
		run := s.signal(in, batch(1, delta(1, "a")))
		s.asOf(in, 1)
		require.NoError(t, s.SignalWorkflow(t.Context(), device.WorkflowID(in.Session), "", workflows.SignalClose, workflows.CloseRequest{Reason: "superseded by " + session}))
		s.result(in, run)
		s.save("superseded", in, run)
	})
	scenario("idle", &database{}, func(t *testing.T, s *server, in workflows.Input) {
		in.Options = workflows.Options{IdleTimeout: 8 * time.Second, SnapshotInterval: time.Second} // and overdue before
		run := s.signal(in, batch(1, delta(1, "a")))
		result := s.result(in, run)
		require.True(t, result.Idle)
		require.Equal(t, workflows.SyncResync, result.Sync)
		s.save("idle", in, run)
	})
	scenario("upgrade", &database{}, func(t *testing.T, s *server, in workflows.Input) {
		in.Carried = &workflows.CarriedState{ // as code of level 0 carried it
			Version: 1, Runs: 1, Sync: workflows.SyncGap, SyncSince: epoch, LastReceived: epoch, Positions: position(3),
			State: device.State{
				RAE: rae, Session: in.Session, AsOf: 3, Seen: device.SeqSet{{From: 1, To: 1}, {From: 3, To: 3}}, First: epoch, Last: epoch,
				Attributes: map[string]device.Attribute{"a": delta(3, "a").Attributes["a"]},
			},
		}
		s.signal(in, batch(3, delta(4, "a")))
		s.until(in, "a request", func(v workflows.StateView) bool { return v.Sync == workflows.SyncResync })
		s.save("upgrade", in, "")
		s.end(in)
	})
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

// What a person sees who looks for a session and into it.
func TestShownOnARealServer(t *testing.T) {
	s := newServer(t, &database{search: true})
	in := input()
	in.Session = uuid.NewString()
	e := delta(1)
	for name, value := range map[string]string{
		"connection.status": `"up"`, "mdns.model": `"Soundbar 5"`, "network.hostname": `"bar` + "`" + `*"`, "network.ipv4": `["192.0.2.7","192.0.2.8"]`,
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

	var m sdk.WorkflowMetadata
	require.NoError(t, s.query(in, "__temporal_workflow_metadata", &m))
	card := m.GetCurrentDetails()
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
