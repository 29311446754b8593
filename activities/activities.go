// Package activities holds what a DeviceSession workflow has done for it
// outside of deterministic code: read and write the database.
//
// Every activity may run more than once, also at the same time as an earlier
// try of itself that was given up: the store's writes are conditional on seq
// and on ingest positions, so that doing them again changes nothing.
package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Applier writes one session's update and returns when it is committed. It is
// where updates of many sessions can be gathered into one transaction: the
// activities need only this of it.
//
// An error that wraps store.ErrRefused is for good; every other one is an
// outage, and the caller tries again with the same update.
type Applier interface {
	Apply(ctx context.Context, u store.Update) error
}

// Loader reads a session back.
type Loader interface {
	Load(ctx context.Context, session string) (store.Stored, error)
	// Rivals returns the open sessions that the session has taken the place
	// of, and the one that has taken its own.
	Rivals(ctx context.Context, session string) (store.Rivals, error)
}

// Store is what of *store.Store the session worker uses.
type Store interface {
	Loader
	Apply(ctx context.Context, updates []store.Update) error
}

// Direct is the Applier that makes each update a transaction of its own.
type Direct struct{ Store Store }

// Apply implements Applier.
func (d Direct) Apply(ctx context.Context, u store.Update) error {
	return d.Store.Apply(ctx, []store.Update{u})
}

// Options are the dependencies of Activities.
type Options struct {
	Applier    Applier               // required
	Loader     Loader                // required
	Logger     *slog.Logger          // default: slog.Default()
	Registerer prometheus.Registerer // default: none
	// SearchAttributes says whether the server knows
	// workflows.SearchAttributes. It is asked at each load; a session that
	// was loaded keeps the answer. Default: no.
	SearchAttributes func() bool
	// Commands takes requests for snapshots. Default: none, and a session with
	// a gap waits for the snapshot that its edge sends unasked.
	Commands Commands
	// SnapshotRate is how many snapshots are asked for in a second at most, a
	// second's worth of them at once. Default 20.
	SnapshotRate float64
	// Temporal reaches the workflows of other sessions. Default: none, and a
	// session that a newer one has taken the place of stays open.
	Temporal Signaller
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Activities implements the activities of a DeviceSession.
type Activities struct {
	applier Applier
	loader  Loader
	log     *slog.Logger
	search  func() bool

	commands Commands
	limit    *limiter
	temporal Signaller
	now      func() time.Time

	took *prometheus.HistogramVec
}

// New returns the activities, or says which dependency is missing.
func New(o Options) (*Activities, error) {
	switch {
	case o.Applier == nil:
		return nil, errors.New("activities: no Applier")
	case o.Loader == nil:
		return nil, errors.New("activities: no Loader")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.SearchAttributes == nil {
		o.SearchAttributes = func() bool { return false }
	}
	if o.SnapshotRate <= 0 {
		o.SnapshotRate = 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Activities{
		applier: o.Applier, loader: o.Loader, log: o.Logger, search: o.SearchAttributes,
		commands: o.Commands, limit: newLimiter(o.SnapshotRate), temporal: o.Temporal, now: o.Now,
	}
	a.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "rollcall_session_activity_seconds",
		Help:    "How long a try of an activity took, by activity and outcome (ok, refused, error).",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
	}, []string{"activity", "outcome"})
	if o.Registerer != nil {
		if err := o.Registerer.Register(a.took); err != nil {
			return nil, fmt.Errorf("activities: %w", err)
		}
	}
	return a, nil
}

// Register makes the activities known to a worker, under their names.
func (a *Activities) Register(r worker.ActivityRegistry) {
	r.RegisterActivityWithOptions(a.ApplyBatch, activity.RegisterOptions{Name: workflows.ActivityApplyBatch})
	r.RegisterActivityWithOptions(a.LoadSession, activity.RegisterOptions{Name: workflows.ActivityLoadSession})
	r.RegisterActivityWithOptions(a.RequestSnapshot, activity.RegisterOptions{Name: workflows.ActivityRequestSnapshot})
	r.RegisterActivityWithOptions(a.Supersede, activity.RegisterOptions{Name: workflows.ActivitySupersede})
	r.RegisterActivityWithOptions(a.ReadTestState, activity.RegisterOptions{Name: workflows.ActivityReadTestState})
}

// ApplyBatch writes one apply. Values that the database will never take come
// back as a non-retryable workflows.ErrRefused, unless the request only steps
// over refused batches: then there is nothing in it to refuse, and trying again
// is all that is left.
//
// A new session that the database knows after all comes back as it is there, and
// nothing is written: the workflow has worked the request out from nothing. With
// Opens the answer names the sessions that this one has taken the place of, and
// the one that has taken its own. Both answers have the device's test state. That
// to any other request is nil.
func (a *Activities) ApplyBatch(ctx context.Context, in workflows.ApplyRequest) (*workflows.LoadedSession, error) {
	begun := time.Now()
	u, answer := update(in), store.Answer{}
	u.Opens = u.Opens && a.temporal != nil // nobody is asked for what nobody could be told
	u.Answer = &answer
	err := a.applier.Apply(ctx, u)
	switch {
	case err == nil && answer.Known:
		loaded, err := a.LoadSession(ctx, in.Session)
		return &loaded, err
	case err == nil:
		a.observe(workflows.ActivityApplyBatch, "ok", begun)
		return a.answered(u), nil
	case errors.Is(err, store.ErrRefused) && !in.SkipOnly:
		a.observe(workflows.ActivityApplyBatch, "refused", begun)
		return nil, temporal.NewNonRetryableApplicationError(err.Error(), workflows.ErrRefused, nil)
	}
	a.observe(workflows.ActivityApplyBatch, "error", begun)
	return nil, a.failed(ctx, "apply batch", in.Session, err)
}

// answered is the answer to an apply that is done.
func (a *Activities) answered(u store.Update) *workflows.LoadedSession {
	if !u.New && !u.Opens {
		return nil
	}
	out := &workflows.LoadedSession{OlderSessions: u.Answer.Rivals.Older, NewerSession: u.Answer.Rivals.Newer, TestState: testState(u.Answer.Test)}
	if u.New {
		out.SearchAttributes, out.Level = a.search(), workflows.Level
	}
	return out
}

// LoadSession reads what the database knows of a session.
func (a *Activities) LoadSession(ctx context.Context, session string) (workflows.LoadedSession, error) {
	begun := time.Now()
	stored, err := a.loader.Load(ctx, session)
	if err != nil {
		a.observe(workflows.ActivityLoadSession, "error", begun)
		return workflows.LoadedSession{}, a.failed(ctx, "load", session, err)
	}
	loaded := workflows.LoadedSession{
		Found: stored.Found, State: stored.State, Positions: stored.Positions, Counters: counters(stored.Counters),
		SearchAttributes: a.search(), Level: workflows.Level, TestState: testState(stored.Test),
	}
	if stored.Found && stored.State.AsOf > 0 && stored.State.Closed == 0 {
		rivals, err := a.rivals(ctx, session)
		if err != nil {
			a.observe(workflows.ActivityLoadSession, "error", begun)
			return workflows.LoadedSession{}, a.failed(ctx, "load", session, err)
		}
		loaded.OlderSessions, loaded.NewerSession = rivals.Older, rivals.Newer
	}
	a.observe(workflows.ActivityLoadSession, "ok", begun)
	return loaded, nil
}

// ReadTestState reads that of the session's device. It is rare, and so needs no
// statement of its own.
func (a *Activities) ReadTestState(ctx context.Context, session string) (*workflows.TestState, error) {
	begun := time.Now()
	stored, err := a.loader.Load(ctx, session)
	if err != nil {
		a.observe(workflows.ActivityReadTestState, "error", begun)
		return nil, a.failed(ctx, "read the test state", session, err)
	}
	a.observe(workflows.ActivityReadTestState, "ok", begun)
	return testState(stored.Test), nil
}

func testState(t store.TestState) *workflows.TestState {
	return &workflows.TestState{State: cmp.Or(t.State, workflows.TestStateAvailable), Holder: t.Holder, Until: t.LeaseUntil}
}

// failed says what happened once for each activity, at its first regular try:
// the tries of the local activity before it are short, and the later ones are
// counted by Temporal, which shows them with the last failure. The log has one
// line for an outage and session, not one a try.
func (a *Activities) failed(ctx context.Context, what, session string, err error) error {
	if info := activity.GetInfo(ctx); !info.IsLocalActivity && info.Attempt == 1 {
		a.log.WarnContext(ctx, "activity failed: Temporal tries again until it succeeds", "activity", what, "session", session, "err", err)
	}
	return fmt.Errorf("%s of session %s: %w", what, session, err)
}

func (a *Activities) observe(activity, outcome string, begun time.Time) {
	a.took.WithLabelValues(activity, outcome).Observe(time.Since(begun).Seconds())
}

// update is the store's form of a request. The two are apart because one is in
// histories, and so cannot change, and the other is free to.
func update(in workflows.ApplyRequest) store.Update {
	return store.Update{
		RAE: in.RAE, Session: in.Session,
		AsOf: in.AsOf, Snapshot: in.Snapshot, SnapshotAt: in.SnapshotAt, Hash: in.Hash,
		Seen: in.Seen, Missing: in.Missing, Closed: in.Closed, Reason: in.Reason,
		First: in.First, Last: in.Last, Received: in.Received, BatchReceived: in.BatchReceived,
		Write: in.Write, Corrected: in.Corrected, Positions: in.Positions,
		Repaired: in.Repaired, OverLimit: in.OverLimit,
		Events: in.Events, Records: in.Records, Duplicates: in.Duplicates, AfterClose: in.AfterClose, Stale: in.Stale,
		Quarantined: quarantined(in.Quarantined),
		New:         in.NewSession, Opens: in.IdentifiesDevice,
	}
}

func counters(in store.Counters) workflows.Counters {
	return workflows.Counters{
		Events: in.Events, Records: in.Records, Duplicates: in.Duplicates, AfterClose: in.AfterClose,
		Repaired: in.Repaired, OverLimit: in.OverLimit, Stale: in.Stale,
	}
}

func quarantined(refusals []workflows.Refusal) []store.Quarantined {
	var out []store.Quarantined
	for _, r := range refusals {
		out = append(out, store.Quarantined(r))
	}
	return out
}
