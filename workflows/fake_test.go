package workflows_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

const (
	rae     = "RAE-0001"
	session = "7d6bd6a0-3c6e-4f4e-9f3a-0c0f3f0a9b11"
	topic   = device.KafkaEvents
)

var epoch = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// database is what the activities would have written: the contract of the
// store, in memory.
type database struct {
	mu        sync.Mutex
	state     *workflows.ApplyRequest // the newest row
	attrs     map[string]device.Attribute
	positions []device.Position
	counters  workflows.Counters // of applies that moved a position
	applies   []workflows.ApplyRequest
	loads     int
	// known is how many events it had of a session that was said to be new: an
	// answer was lost with its workflow task, and those events come again.
	known int64
	// activities counts calls, where one may load and apply.
	activities int
	local      map[string]int
	regular    map[string]int

	// fail, if set, may refuse or fail an activity before it does anything.
	fail func(ctx context.Context, name string, in *workflows.ApplyRequest) error
	// search is what Loaded says of search attributes.
	search bool
	// old stands for a worker without workflows.Level.
	old bool
	// older and newer are what the database finds for an apply that opens, or
	// a load.
	older      []string
	newer      string
	superseded []workflows.SupersedeRequest
	requests   []workflows.SnapshotRequest
	// ask answers requests for snapshots; nil: they are sent.
	ask func(workflows.SnapshotRequest) (workflows.SnapshotRequestResult, error)
	// applied is called after every apply, without the lock.
	applied func(workflows.ApplyRequest)
	// test is the device's test state; nil: available. reading is called when
	// a session reads it, without the lock.
	test    *workflows.TestState
	reading func()
	reads   int
}

func (d *database) note(ctx context.Context, name string) {
	if d.local == nil {
		d.local, d.regular = map[string]int{}, map[string]int{}
	}
	if activity.GetInfo(ctx).IsLocalActivity {
		d.local[name]++
	} else {
		d.regular[name]++
	}
}

func (d *database) ApplyBatch(ctx context.Context, in workflows.ApplyRequest) (*workflows.LoadedSession, error) {
	d.mu.Lock()
	d.activities++
	d.mu.Unlock()
	var loaded *workflows.LoadedSession
	if in.NewSession {
		found, err := d.load(ctx)
		if err != nil || found.Found {
			d.mu.Lock()
			d.known = d.counters.Events
			d.mu.Unlock()
			return &found, err
		}
		loaded = &found
	}
	if err := d.apply(ctx, in); err != nil {
		return nil, err
	}
	if d.applied != nil {
		d.applied(in)
	}
	if in.IdentifiesDevice {
		if loaded == nil {
			loaded = &workflows.LoadedSession{}
		}
		d.mu.Lock()
		loaded.OlderSessions, loaded.NewerSession, loaded.TestState = d.older, d.newer, d.testState()
		d.mu.Unlock()
	}
	return loaded, nil
}

func (d *database) RequestSnapshot(_ context.Context, in workflows.SnapshotRequest) (workflows.SnapshotRequestResult, error) {
	d.mu.Lock()
	d.requests = append(d.requests, in)
	d.mu.Unlock()
	if d.ask != nil {
		return d.ask(in)
	}
	return workflows.SnapshotRequestResult{Outcome: workflows.RequestSent, Command: in.Nonce}, nil
}

func (d *database) Supersede(_ context.Context, in workflows.SupersedeRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.superseded = append(d.superseded, in)
	return nil
}

func (d *database) ReadTestState(ctx context.Context, _ string) (*workflows.TestState, error) {
	d.mu.Lock()
	d.reads++
	d.note(ctx, workflows.ActivityReadTestState)
	d.mu.Unlock()
	if d.reading != nil {
		d.reading()
	}
	if d.fail != nil {
		if err := d.fail(ctx, workflows.ActivityReadTestState, nil); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.testState(), nil
}

// people set the device's test state.
func (d *database) people(t *workflows.TestState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.test = t
}

func (d *database) testState() *workflows.TestState {
	if d.old {
		return nil
	}
	if d.test == nil {
		return &workflows.TestState{State: workflows.TestStateAvailable}
	}
	t := *d.test
	return &t
}

func (d *database) register(r worker.ActivityRegistry) {
	r.RegisterActivityWithOptions(d.ApplyBatch, activity.RegisterOptions{Name: workflows.ActivityApplyBatch})
	r.RegisterActivityWithOptions(d.LoadSession, activity.RegisterOptions{Name: workflows.ActivityLoadSession})
	r.RegisterActivityWithOptions(d.RequestSnapshot, activity.RegisterOptions{Name: workflows.ActivityRequestSnapshot})
	r.RegisterActivityWithOptions(d.Supersede, activity.RegisterOptions{Name: workflows.ActivitySupersede})
	r.RegisterActivityWithOptions(d.ReadTestState, activity.RegisterOptions{Name: workflows.ActivityReadTestState})
}

func (d *database) apply(ctx context.Context, in workflows.ApplyRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(ctx, workflows.ActivityApplyBatch)
	if d.fail != nil {
		if err := d.fail(ctx, workflows.ActivityApplyBatch, &in); err != nil {
			return err
		}
	}
	for _, p := range in.Positions { // what the store refuses of any update
		if p.Topic == "" || p.Partition < 0 || p.Next < 0 {
			return databaseRefusal()
		}
	}
	if d.attrs == nil {
		d.attrs = map[string]device.Attribute{}
	}
	for name, a := range in.Write {
		corrected := slices.Contains(in.Corrected, name) && d.attrs[name].Seq <= in.Snapshot
		if old, ok := d.attrs[name]; !ok || old.Seq < a.Seq || corrected {
			d.attrs[name] = a
		}
	}
	before := slices.Clone(d.positions)
	for _, p := range in.Positions {
		d.positions = device.Advance(d.positions, p)
	}
	if !slices.Equal(before, d.positions) { // else it has been counted
		d.counters.Events += in.Events
		d.counters.Records += in.Records
		d.counters.Duplicates += in.Duplicates
		d.counters.AfterClose += in.AfterClose
		d.counters.Stale += in.Stale
	}
	d.state = &in
	d.applies = append(d.applies, in)
	return nil
}

func (d *database) LoadSession(ctx context.Context, _ string) (workflows.LoadedSession, error) {
	d.mu.Lock()
	d.activities++
	d.mu.Unlock()
	return d.load(ctx)
}

func (d *database) load(ctx context.Context) (workflows.LoadedSession, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(ctx, workflows.ActivityLoadSession)
	d.loads++
	if d.fail != nil {
		if err := d.fail(ctx, workflows.ActivityLoadSession, nil); err != nil {
			return workflows.LoadedSession{}, err
		}
	}
	out := workflows.LoadedSession{SearchAttributes: d.search, TestState: d.testState()}
	if !d.old {
		out.Level = workflows.Level
	}
	if d.state == nil {
		return out, nil
	}
	r := d.state
	out.Found, out.OlderSessions, out.NewerSession = true, d.older, d.newer
	out.State = device.State{
		RAE: r.RAE, Session: r.Session, AsOf: r.AsOf, Snapshot: r.Snapshot, SnapshotAt: r.SnapshotAt, Hash: r.Hash,
		Seen: r.Seen, Closed: r.Closed, Reason: r.Reason, First: r.First, Last: r.Last, Attributes: maps.Clone(d.attrs),
	}
	out.Positions = append(out.Positions, d.positions...)
	out.Counters = d.counters
	return out, nil
}

func (d *database) live() map[string]device.Attribute {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := device.State{Attributes: d.attrs}
	return s.Live()
}

func outage() error { return temporal.NewApplicationError("connection refused", "") }

func databaseRefusal() error {
	return temporal.NewNonRetryableApplicationError("invalid byte sequence (SQLSTATE 22021)", workflows.ErrRefused, nil)
}

// harness runs one workflow in the SDK's environment, in a bubble of package
// synctest: there no time passes while anything can run. Outside of one the
// environment fires its timers by the wall clock while an activity runs, and
// what a test sees would depend on how long the machine takes for that.
type harness struct {
	*testsuite.TestWorkflowEnvironment
	t  testing.TB
	db *database
}

// bubble is t.Run in a bubble.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func newHarness(t testing.TB, db *database) *harness {
	t.Helper()
	return newHarnessWith(t, db, nil)
}

func newHarnessWith(t testing.TB, db *database, metrics client.MetricsHandler) *harness {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	if metrics != nil {
		suite.SetMetricsHandler(metrics)
	}
	h := &harness{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t, db: db}
	workflows.Register(h)
	h.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: device.WorkflowID(session), TaskQueue: workflows.TaskQueue})
	db.register(h)
	h.SetTestTimeout(time.Minute)
	return h
}

func input() workflows.Input { return workflows.Input{RAE: rae, Session: session} }

// at runs f in the workflow's time, d after its start.
func (h *harness) at(d time.Duration, f func()) { h.RegisterDelayedCallback(f, d) }

func (h *harness) signal(b any) { h.SignalWorkflow(device.SignalEvents, b) }

// stop ends a session that would wait for ever.
func (h *harness) stop(d time.Duration) { h.at(d, h.CancelWorkflow) }

func (h *harness) run(in workflows.Input) { h.ExecuteWorkflow(workflows.DeviceSessionName, in) }

func (h *harness) view() workflows.StateView {
	h.t.Helper()
	v, err := h.QueryWorkflow(workflows.QueryState)
	require.NoError(h.t, err)
	var view workflows.StateView
	require.NoError(h.t, v.Get(&view))
	return view
}

type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

// delta is an event that sets names to the event's own seq.
func delta(seq int64, names ...string) device.Event {
	typ := device.Delta
	if seq == 1 {
		typ = device.Opened
	}
	e := device.Event{RAE: rae, Session: session, Type: typ, Seq: seq, Time: epoch.Add(time.Duration(seq) * time.Second), Attributes: map[string]device.Attribute{}}
	for _, name := range names {
		value, _ := json.Marshal(seq)
		e.Attributes[name] = device.Attribute{Value: value, Seq: seq, At: e.Time}
	}
	return e
}

func snapshot(seq int64, attributes map[string]device.Attribute) device.Event {
	return device.Event{
		RAE: rae, Session: session, Type: device.Snapshot, Seq: seq, Time: epoch.Add(time.Duration(seq) * time.Second),
		Attributes: attributes, Hash: device.Hash(attributes),
	}
}

func closed(seq int64) device.Event {
	return device.Event{RAE: rae, Session: session, Type: device.Closed, Seq: seq, Time: epoch.Add(time.Duration(seq) * time.Second), Reason: "left"}
}

// batch folds events as the poller would, from offset on.
func batch(offset int64, events ...device.Event) device.Batch {
	b := device.Batch{
		Version: device.BatchVersion, Topic: topic, Partition: 3,
		First: offset, Last: offset + int64(len(events)) - 1, Records: len(events),
		Received: epoch.Add(time.Hour + time.Duration(offset)*time.Second),
	}
	for _, e := range events {
		f := device.FoldOf(e)
		f.Attributes = maps.Clone(f.Attributes)
		b.Fold = device.Merge(b.Fold, f)
	}
	return b
}

func position(next int64) []device.Position {
	return []device.Position{{Topic: topic, Partition: 3, Next: next}}
}

func values(attributes map[string]device.Attribute) map[string]string {
	out := map[string]string{}
	for name, a := range attributes {
		out[name] = string(a.Value)
	}
	return out
}
