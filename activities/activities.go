// Package activities implements the activities of a DeviceSession workflow: they
// read and write the database, send commands to edges, and signal other sessions.
//
// Every activity may run more than once, also beside an earlier try of itself that
// Temporal has given up. The store's writes are conditional on seq and on ingest
// positions, so a write that is done again changes nothing.
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

// Applier writes one session's update and returns when it is committed. An
// implementation may gather the updates of many sessions into one transaction.
//
// An error that wraps store.ErrRefused is final. Every other one is an outage, and
// the caller tries again with the same update.
type Applier interface {
	Apply(ctx context.Context, u store.Update) error
}

// Loader reads a session back.
type Loader interface {
	Load(ctx context.Context, session string) (store.Stored, error)
	// Rivals returns the open sessions that the session supersedes, and the one
	// that supersedes it.
	Rivals(ctx context.Context, session string) (store.Rivals, error)
}

// Store is the part of *store.Store that the session worker uses.
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
	// workflows.SearchAttributes. It is called at each load, and the session
	// keeps the answer. Default: no.
	SearchAttributes func() bool
	// Commands sends requests for snapshots. Default: none; a session with a
	// gap then waits for the snapshot that its edge sends unasked.
	Commands Commands
	// SnapshotRate is how many snapshots are requested in a second at most; as
	// many may be requested at once. Default 20. A higher rate heals a broker's
	// loss sooner, and loads edges, broker and database with more snapshots.
	SnapshotRate float64
	// Temporal signals the workflows of other sessions. Default: none; a session
	// that a newer one supersedes then stays open.
	Temporal Signaller
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Activities implements the activities of a DeviceSession.
type Activities struct {
	applier Applier
	loader  Loader
	log     *slog.Logger

	searchAttributes func() bool

	commands  Commands
	rateLimit *rateLimiter
	temporal  Signaller
	now       func() time.Time

	seconds *prometheus.HistogramVec // by activity and outcome
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
		applier: o.Applier, loader: o.Loader, log: o.Logger, searchAttributes: o.SearchAttributes,
		commands: o.Commands, rateLimit: newRateLimiter(o.SnapshotRate), temporal: o.Temporal, now: o.Now,
	}
	a.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "rollcall_session_activity_seconds",
		Help:    "How long a try of an activity took, by activity and outcome (ok, refused, error).",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
	}, []string{"activity", "outcome"})
	if o.Registerer != nil {
		if err := o.Registerer.Register(a.seconds); err != nil {
			return nil, fmt.Errorf("activities: %w", err)
		}
	}
	return a, nil
}

// Register registers the activities with a worker, under their names.
func (a *Activities) Register(r worker.ActivityRegistry) {
	r.RegisterActivityWithOptions(a.ApplyBatch, activity.RegisterOptions{Name: workflows.ActivityApplyBatch})
	r.RegisterActivityWithOptions(a.LoadSession, activity.RegisterOptions{Name: workflows.ActivityLoadSession})
	r.RegisterActivityWithOptions(a.RequestSnapshot, activity.RegisterOptions{Name: workflows.ActivityRequestSnapshot})
	r.RegisterActivityWithOptions(a.Supersede, activity.RegisterOptions{Name: workflows.ActivitySupersede})
	r.RegisterActivityWithOptions(a.ReadTestState, activity.RegisterOptions{Name: workflows.ActivityReadTestState})
}

// ApplyBatch writes one apply. For values that the database will never take it
// returns a non-retryable workflows.ErrRefused, unless the request is
// QuarantineOnly: that has nothing in it to refuse, so it is tried again.
//
// A NewSession that the database knows after all is not written, because the
// workflow worked the request out from an empty state. It is answered with the
// session as the database has it. So is a request that builds on another row than
// the database has, with Mismatch. IdentifiesDevice is answered with the session's
// rivals. Both answers have the device's test state. Any other request is answered
// with nil.
func (a *Activities) ApplyBatch(ctx context.Context, in workflows.ApplyRequest) (*workflows.LoadedSession, error) {
	began := time.Now()
	u, answer := newUpdate(in), store.Answer{}
	u.Opens = u.Opens && a.temporal != nil // without Temporal the rivals could not be told
	u.Answer = &answer
	err := a.applier.Apply(ctx, u)
	switch {
	case err == nil && (answer.Known || answer.Mismatch):
		loaded, err := a.LoadSession(ctx, in.Session)
		loaded.Mismatch = answer.Mismatch
		return &loaded, err
	case err == nil:
		a.observe(workflows.ActivityApplyBatch, "ok", began)
		return a.answerTo(u), nil
	case errors.Is(err, store.ErrRefused) && !in.QuarantineOnly:
		a.observe(workflows.ActivityApplyBatch, "refused", began)
		return nil, temporal.NewNonRetryableApplicationError(err.Error(), workflows.ErrRefused, nil)
	}
	a.observe(workflows.ActivityApplyBatch, "error", began)
	return nil, a.describeFailure(ctx, "apply batch", in.Session, err)
}

// answerTo is the answer to an update that was applied.
func (a *Activities) answerTo(u store.Update) *workflows.LoadedSession {
	if !u.New && !u.Opens {
		return nil
	}
	out := &workflows.LoadedSession{OlderSessions: u.Answer.Rivals.Older, NewerSession: u.Answer.Rivals.Newer, TestState: newTestState(u.Answer.Test, u.Answer.Claims)}
	if u.New {
		out.SearchAttributes, out.Level = a.searchAttributes(), workflows.Level
	}
	return out
}

// LoadSession reads what the database knows of a session.
func (a *Activities) LoadSession(ctx context.Context, session string) (workflows.LoadedSession, error) {
	began := time.Now()
	stored, err := a.loader.Load(ctx, session)
	if err != nil {
		a.observe(workflows.ActivityLoadSession, "error", began)
		return workflows.LoadedSession{}, a.describeFailure(ctx, "load", session, err)
	}
	loaded := workflows.LoadedSession{
		Found: stored.Found, State: stored.State, Positions: stored.Positions, Counters: newCounters(stored.Counters), Revision: workflows.Revision(stored.Revision),
		SearchAttributes: a.searchAttributes(), Level: workflows.Level, TestState: newTestState(stored.Test, stored.Claims),
	}
	if stored.Found && stored.State.AsOf > 0 && stored.State.Closed == 0 {
		rivals, err := a.loadRivals(ctx, session)
		if err != nil {
			a.observe(workflows.ActivityLoadSession, "error", began)
			return workflows.LoadedSession{}, a.describeFailure(ctx, "load", session, err)
		}
		loaded.OlderSessions, loaded.NewerSession = rivals.Older, rivals.Newer
	}
	a.observe(workflows.ActivityLoadSession, "ok", began)
	return loaded, nil
}

// ReadTestState reads the test state of the session's device. It is rare, so it
// loads the whole session rather than have a statement of its own.
func (a *Activities) ReadTestState(ctx context.Context, session string) (*workflows.TestState, error) {
	began := time.Now()
	stored, err := a.loader.Load(ctx, session)
	if err != nil {
		a.observe(workflows.ActivityReadTestState, "error", began)
		return nil, a.describeFailure(ctx, "read the test state", session, err)
	}
	a.observe(workflows.ActivityReadTestState, "ok", began)
	return newTestState(stored.Test, stored.Claims), nil
}

func newTestState(t store.TestState, claims []store.Claim) *workflows.TestState {
	out := &workflows.TestState{State: cmp.Or(t.State, workflows.TestStateAvailable), Holder: t.Holder, Until: t.LeaseUntil}
	for _, c := range claims[:min(len(claims), maxClaims)] {
		text := "claimed by RAE " + c.RAE + ", which shows it as device " + c.Device
		if c.Mine {
			text = "claims device " + c.Device + ", which a session of another RAE holds"
		}
		out.Claims = append(out.Claims, fmt.Sprintf("%s, by %s %q since %s", text, c.Kind, c.Value, c.NotedAt.Format(time.RFC3339)))
	}
	return out
}

// maxClaims bounds the claims that a status card shows.
const maxClaims = 4

// describeFailure wraps the error of a try, and logs it once for each activity, at
// the first try of the regular one. The tries of the local activity before are
// short, and Temporal counts and shows the later ones. So the log has one line for
// each session and outage, not one for each try.
func (a *Activities) describeFailure(ctx context.Context, what, session string, err error) error {
	if info := activity.GetInfo(ctx); !info.IsLocalActivity && info.Attempt == 1 {
		a.log.WarnContext(ctx, "activity failed: Temporal tries again until it succeeds", "activity", what, "session", session, "err", err)
	}
	return fmt.Errorf("%s of session %s: %w", what, session, err)
}

func (a *Activities) observe(activity, outcome string, began time.Time) {
	a.seconds.WithLabelValues(activity, outcome).Observe(time.Since(began).Seconds())
}

// newUpdate converts a request to the store's form. The two are separate types
// because the request is in histories and cannot change, and the update can.
func newUpdate(in workflows.ApplyRequest) store.Update {
	return store.Update{
		RAE: in.RAE, Session: in.Session, ID: in.ID, Base: store.Revision(in.Base),
		AsOf: in.AsOf, Snapshot: in.Snapshot, SnapshotAt: in.SnapshotAt, Hash: in.Hash,
		Seen: in.Seen, Missing: in.Missing, Closed: in.Closed, Reason: in.Reason, Provisional: in.Provisional,
		First: in.First, Last: in.Last, Received: in.Received, BatchReceived: in.BatchReceived,
		Write: in.Write, Corrected: in.Corrected, Positions: in.Positions,
		Repaired: in.Repaired, OverLimit: in.OverLimit,
		Events: in.Events, Records: in.Records, Duplicates: in.Duplicates, AfterClose: in.AfterClose, Stale: in.Stale, Reopened: in.Reopened,
		Quarantined: newQuarantined(in.Quarantined),
		New:         in.NewSession, Opens: in.IdentifiesDevice,
	}
}

func newCounters(in store.Counters) workflows.Counters {
	return workflows.Counters{
		Events: in.Events, Records: in.Records, Duplicates: in.Duplicates, AfterClose: in.AfterClose,
		Repaired: in.Repaired, OverLimit: in.OverLimit, Stale: in.Stale, Reopened: in.Reopened,
	}
}

func newQuarantined(refusals []workflows.Refusal) []store.Quarantined {
	var out []store.Quarantined
	for _, r := range refusals {
		out = append(out, store.Quarantined(r))
	}
	return out
}
