package workflows_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
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
	revision  workflows.Revision
	counters  workflows.Counters
	applies   []workflows.ApplyRequest
	loads     int
	// known is how many events may come again, at most: it had them of a session
	// that was said to be new, or they are of an apply that it did not write,
	// because the answer to one before was lost with its workflow task.
	known int64
	// activities counts calls, where one may load and apply.
	activities int
	local      map[string]int // tries of local activities, by name; see localTries
	regular    map[string]int

	// down fails every activity but Supersede and RequestSnapshot.
	down atomic.Bool
	// fail, if set, may refuse or fail an activity before it does anything.
	fail func(ctx context.Context, name string, in *workflows.ApplyRequest) error
	// search is what LoadedSession says of search attributes.
	search bool
	// noLevel and noTestState have it answer without these, as another build may.
	noLevel, noTestState bool
	// older and newer are the rivals in the answers to IdentifiesDevice and to a
	// load.
	older      []string
	newer      string
	superseded []workflows.SupersedeRequest
	requests   []workflows.SnapshotRequest
	// ask answers requests for snapshots; nil: they are sent.
	ask func(workflows.SnapshotRequest) (workflows.SnapshotRequestResult, error)
	// answer, if set, may lose the answer to an apply that is committed.
	answer func() error
	// applied is called after every apply, without the lock.
	applied func(workflows.ApplyRequest)
	// test is the device's test state; nil: available. reading is called when
	// a session reads it, without the lock.
	test    *workflows.TestState
	reading func()
	reads   int
}

// failure is what an activity is to fail with; nil: it does not.
func (d *database) failure(ctx context.Context, name string, in *workflows.ApplyRequest) error {
	switch {
	case d.down.Load():
		return outage()
	case d.fail != nil:
		return d.fail(ctx, name, in)
	}
	return nil
}

// activityNames are those that the database counts tries of.
var activityNames = []string{workflows.ActivityApplyBatch, workflows.ActivityLoadSession, workflows.ActivityReadTestState}

func (d *database) localTries(name string) int { return triesOf(d.local, name) }

func (d *database) regularTries(name string) int { return triesOf(d.regular, name) }

// triesOf panics for a name that is never counted: 0 would be a test that cannot fail.
func triesOf(tries map[string]int, name string) int {
	if !slices.Contains(activityNames, name) {
		panic("tries of " + name + " are not counted")
	}
	return tries[name]
}

// note counts a try of an activity.
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
		if err != nil || found.Found && found.Revision != nextOf(in) {
			d.mu.Lock()
			d.known = d.counters.Events
			d.mu.Unlock()
			return &found, err
		}
		loaded = &workflows.LoadedSession{SearchAttributes: found.SearchAttributes, Level: found.Level, TestState: found.TestState}
	}
	switch written, err := d.apply(ctx, in); {
	case err != nil:
		return nil, err
	case !written:
		d.mu.Lock()
		d.known += in.Events
		d.mu.Unlock()
		stored, err := d.load(ctx)
		stored.Mismatch = true
		return &stored, err
	}
	if d.answer != nil {
		if err := d.answer(); err != nil {
			return nil, err
		}
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
	if err := d.failure(ctx, workflows.ActivityReadTestState, nil); err != nil {
		return nil, err
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
	if d.noTestState {
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

// apply reports whether the database has the apply now: not where it has another row
// than the apply builds on.
func (d *database) apply(ctx context.Context, in workflows.ApplyRequest) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(ctx, workflows.ActivityApplyBatch)
	if err := d.failure(ctx, workflows.ActivityApplyBatch, &in); err != nil {
		return false, err
	}
	for _, p := range in.Positions { // what the store refuses of any update
		if p.Topic == "" || p.Partition < 0 || p.Next < 0 {
			return false, databaseRefusal()
		}
	}
	switch d.revision {
	case nextOf(in):
		return true, nil
	case in.Base:
	default:
		return false, nil
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
	for _, p := range in.Positions {
		d.positions = device.Advance(d.positions, p)
	}
	d.counters.Events += in.Events
	d.counters.Records += in.Records
	d.counters.Duplicates += in.Duplicates
	d.counters.AfterClose += in.AfterClose
	d.counters.Stale += in.Stale
	d.state = &in
	d.applies = append(d.applies, in)
	d.revision = nextOf(in)
	return true, nil
}

// nextOf is the revision of the row that has the apply.
func nextOf(in workflows.ApplyRequest) workflows.Revision {
	return workflows.Revision{Number: in.Base.Number + 1, ApplyID: in.ID}
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
	if err := d.failure(ctx, workflows.ActivityLoadSession, nil); err != nil {
		return workflows.LoadedSession{}, err
	}
	out := workflows.LoadedSession{SearchAttributes: d.search, TestState: d.testState()}
	if !d.noLevel {
		out.Level = workflows.Level
	}
	if d.state == nil {
		return out, nil
	}
	r := d.state
	out.Found, out.OlderSessions, out.NewerSession = true, d.older, d.newer
	out.State = device.State{
		RAE: r.RAE, Session: r.Session, AsOf: r.AsOf, Snapshot: r.Snapshot, SnapshotAt: r.SnapshotAt, Hash: r.Hash,
		Seen: r.Seen, Closed: r.Closed, Reason: r.Reason, Provisional: r.Provisional, First: r.First, Last: r.Last, Attributes: maps.Clone(d.attrs),
	}
	out.Positions = append(out.Positions, d.positions...)
	out.Counters, out.Revision = d.counters, d.revision
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
