package rollout_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/session"
	"github.com/rollcall-platform/rollcall/workers/session/rollout"
	"github.com/rollcall-platform/rollcall/workflows"
)

// patience only bounds a failure.
const patience = 2 * time.Minute

func TestOptions(t *testing.T) {
	c, err := client.NewLazyClient(client.Options{})
	require.NoError(t, err)
	defer c.Close()
	to := session.Version{Deployment: "d", BuildID: "v1"}
	for says, o := range map[string]rollout.Options{
		"no Client":             {To: to},
		"no version":            {Client: c},
		"both or neither":       {Client: c, To: session.Version{Deployment: "d"}},
		"each more than":        {Client: c, To: to, Ramp: []float64{50, 50}},
		"percentages above 0":   {Client: c, To: to, Ramp: []float64{0}},
		"a number below zero":   {Client: c, To: to, Hold: -1},
		"to 100, each more tha": {Client: c, To: to, Ramp: []float64{101}},
	} {
		_, err := rollout.Roll(t.Context(), o)
		require.ErrorContains(t, err, says)
	}
}

// records remembers the seqs that each session has applied.
type records struct {
	mu   sync.Mutex
	asOf map[string]int64
}

func (r *records) Apply(_ context.Context, updates []store.Update) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range updates {
		r.asOf[u.Session] = u.AsOf
	}
	return nil
}

func (r *records) Load(context.Context, string) (store.Stored, error) {
	return store.Stored{}, nil
}

func (r *records) Rivals(context.Context, string) (store.Rivals, error) { return store.Rivals{}, nil }

func (r *records) at(session string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asOf[session]
}

// world is a task queue and a deployment of its own on a real server.
type world struct {
	t                 *testing.T
	client            client.Client
	queue, deployment string
	db                *records
	sessions          []string
}

func newWorld(t *testing.T, sessions int) *world {
	const variable = "ROLLCALL_TEST_TEMPORAL_ADDRESS"
	address := os.Getenv(variable)
	if address == "" {
		t.Skipf("no Temporal Server: start one (bin/devstack up --bare has one) and name it, host:port, in %s", variable)
	}
	c, err := client.NewLazyClient(client.Options{HostPort: address, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	w := &world{t: t, client: c, queue: "test-" + uuid.NewString(), deployment: "test-" + uuid.NewString(), db: &records{asOf: map[string]int64{}}}
	for range sessions {
		w.sessions = append(w.sessions, uuid.NewString())
	}
	t.Cleanup(func() { // nothing may go on running on a server that others use
		for _, s := range w.sessions {
			_ = c.TerminateWorkflow(context.Background(), device.WorkflowID(s), "", "the test is over")
		}
	})
	return w
}

func (w *world) version(build string) session.Version {
	return session.Version{Deployment: w.deployment, BuildID: build}
}

// work starts a session worker; the function it returns stops it.
func (w *world) work(v session.Version) (stop func()) {
	s, err := session.New(session.Options{
		Client: w.client, Store: w.db, TaskQueue: w.queue, Version: v, SearchAttributes: session.Off, WorkflowPollers: 4,
		Logger: slog.New(slog.DiscardHandler), StopTimeout: time.Second,
	})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	require.Eventually(w.t, func() bool { return s.Ready() == nil }, patience, 10*time.Millisecond)
	return stop
}

// fail starts a worker of a version that cannot run a session.
func (w *world) fail(v session.Version) {
	broken := worker.New(w.client, w.queue, worker.Options{DeploymentOptions: worker.DeploymentOptions{
		UseVersioning: true, Version: worker.WorkerDeploymentVersion{DeploymentName: v.Deployment, BuildID: v.BuildID},
		DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
	}})
	broken.RegisterWorkflowWithOptions(func(workflow.Context, workflows.Input) error { panic("does not do") },
		workflow.RegisterOptions{Name: workflows.DeviceSessionName})
	require.NoError(w.t, broken.Start())
	w.t.Cleanup(broken.Stop)
}

// events sends each session its event seq.
func (w *world) events(seq int64) {
	for _, s := range w.sessions {
		at := time.Unix(1e9, 0).UTC()
		b := device.Batch{
			Version: device.BatchVersion, Topic: device.KafkaEvents, First: seq, Last: seq, Records: 1, Received: at,
			Fold: device.Fold{RAE: "RAE-1", Session: s, Seqs: device.SeqSet{{From: seq, To: seq}}, First: at, Last: at,
				Attributes: map[string]device.Attribute{"a": {Value: json.RawMessage("1"), Seq: seq, At: at}}},
		}
		require.Eventually(w.t, func() bool { // one that just continues as new is busy
			_, err := w.client.SignalWithStartWorkflow(w.t.Context(), device.WorkflowID(s), device.SignalEvents, b,
				workflows.StartOptions(w.queue, "RAE-1", s), workflows.DeviceSessionName, workflows.Input{RAE: "RAE-1", Session: s})
			return err == nil
		}, patience, 20*time.Millisecond)
	}
}

// applied waits until each session has applied seq, and is among those that the
// server lists as running: there it is a moment late.
func (w *world) applied(seq int64) {
	w.t.Helper()
	for _, s := range w.sessions {
		require.Eventually(w.t, func() bool { return w.db.at(s) >= seq }, patience, 20*time.Millisecond, "session %s at seq %d", s, seq)
	}
	running := &workflowservice.CountWorkflowExecutionsRequest{Query: "ExecutionStatus = 'Running' AND TaskQueue = '" + w.queue + "'"}
	require.Eventually(w.t, func() bool {
		n, err := w.client.CountWorkflow(w.t.Context(), running)
		return err == nil && int(n.GetCount()) == len(w.sessions)
	}, patience, 20*time.Millisecond)
}

func (w *world) roll(build string, change func(*rollout.Options)) (rollout.RollReport, error) {
	o := rollout.Options{
		Client: w.client, TaskQueue: w.queue, To: w.version(build), PollerTimeout: patience, DrainTimeout: patience,
		Say: w.t.Logf,
	}
	if change != nil {
		change(&o)
	}
	return rollout.Roll(w.t.Context(), o)
}

func (w *world) status() rollout.Status {
	s, err := rollout.Look(w.t.Context(), w.client, "default", w.queue, w.deployment)
	require.NoError(w.t, err)
	return s
}

// Sessions of unversioned workers move to the first version; all of them are
// idle. Then a version without workers is not rolled to, and the way back is a
// roll as well.
func TestIdleSessionsMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 12)
	_, err := rollout.Look(t.Context(), w.client, "default", w.queue, w.deployment)
	require.ErrorIs(t, err, rollout.ErrNoDeployment)

	stop := w.work(session.Version{})
	w.events(1)
	w.applied(1)
	w.work(w.version("v1"))
	r, err := w.roll("v1", nil)
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.Equal(t, rollout.Sessions{Before: 12, Moved: 12, Now: 12}, r.Sessions)
	require.GreaterOrEqual(t, r.Nudges, 12)
	stop()

	w.events(2)
	w.applied(2)
	_, err = w.roll("v2", func(o *rollout.Options) { o.PollerTimeout = 300 * time.Millisecond })
	require.ErrorContains(t, err, "no worker of version "+w.deployment+":v2 takes tasks")

	w.work(w.version("v2"))
	for _, build := range []string{"v2", "v1"} {
		busy := &unanswering{Client: w.client, made: build == "v2"}
		r, err = w.roll(build, func(o *rollout.Options) { o.Client = busy })
		require.NoError(t, err)
		require.Positive(t, busy.asked)
		require.Equal(t, rollout.Sessions{Before: 12, Moved: 12, Now: 12}, r.Sessions)
		require.EqualValues(t, 12, r.EventsApplied["v1"], "%v", r.EventsApplied)
	}
	r, err = w.roll("v1", nil) // again
	require.NoError(t, err)
	require.Equal(t, rollout.Sessions{Now: 12}, r.Sessions)
	s := w.status()
	require.Equal(t, "v1", s.Current)
	require.Zero(t, s.Unversioned.Sessions)
	w.events(3)
	w.applied(3)
}

// A version that fails in the ramp gets no further, and the sessions that it
// got go back and on.
func TestFailingVersionIsTakenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8)
	w.work(w.version("good"))
	_, err := w.roll("good", nil)
	require.NoError(t, err)
	w.events(1)
	w.applied(1)
	w.fail(w.version("bad"))
	stop, done := make(chan struct{}), make(chan struct{})
	next := int64(2)
	go func() { // live load
		defer close(done)
		for ; ; next++ {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
				w.events(next)
			}
		}
	}()
	// Which sessions the ramp takes is drawn by their identifiers: at 90 % some are.
	r, err := w.roll("bad", func(o *rollout.Options) { o.Ramp, o.Hold = []float64{90}, patience })
	close(stop)
	<-done
	require.ErrorContains(t, err, "workflow tasks fail")
	require.ErrorContains(t, err, "the ramp is back at 0")
	require.True(t, r.Aborted)
	require.False(t, r.Complete)
	s := w.status()
	require.Equal(t, "good", s.Current)
	require.Zero(t, s.RampPercent)
	w.events(next)
	w.applied(next)
}

// A version that fails once it is current gets no more sessions; the way back is
// a roll.
func TestFailingVersionIsRolledBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	w.work(w.version("good"))
	_, err := w.roll("good", nil)
	require.NoError(t, err)
	w.events(1)
	w.applied(1)
	w.fail(w.version("bad"))
	_, err = w.roll("bad", nil)
	require.ErrorContains(t, err, "go back: roll to the version before")
	w.events(2)
	r, err := w.roll("good", nil)
	require.NoError(t, err)
	require.Equal(t, 4, r.Sessions.Now)
	w.applied(2)
}

// A session whose worker is gone cannot hand itself over.
func TestSessionsThatStayArePinned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	stop := w.work(w.version("v1"))
	_, err := w.roll("v1", nil)
	require.NoError(t, err)
	w.events(1)
	w.applied(1)
	stop()
	w.work(w.version("v2"))
	r, err := w.roll("v2", func(o *rollout.Options) { o.DrainTimeout = 2 * time.Second })
	require.ErrorContains(t, err, "3 sessions did not move within 2s: a worker of the version that they are pinned to must be running")
	require.Equal(t, rollout.Sessions{Before: 3, StillPinned: 3, Unread: 3}, r.Sessions)
	require.False(t, r.Complete)

	w.work(w.version("v1"))
	r, err = w.roll("v2", nil)
	require.NoError(t, err)
	require.Equal(t, 3, r.Sessions.Now, "some went as soon as their worker was back")
}
