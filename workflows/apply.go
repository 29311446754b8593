package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// How long the local activity may take in all before the same work becomes a
// regular one. It stays below four fifths of a workflow task's 10 s: past that
// the SDK would have to keep the task alive with heartbeats.
const localFor = 5 * time.Second

// localOptions: quick tries inside the workflow task, one history event.
func localOptions(summary string) workflow.LocalActivityOptions {
	return workflow.LocalActivityOptions{
		ScheduleToCloseTimeout: localFor,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: time.Second},
		Summary:                summary,
	}
}

// retryPause is the longest pause between two tries of a regular activity: how
// late a session may be to notice that an outage is over. No more sessions than
// the poller's window have one, so this can be short.
const retryPause = 2 * time.Second

// regularOptions: as long as it takes, in sight of whoever looks.
func regularOptions(summary string) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: retryPause},
		Summary:             summary,
	}
}

// execute runs an activity as a local one and, if that does not succeed in
// time, as a regular one until it does. The only error it returns is a refusal.
//
// Anything else that ends a regular activity without limits is a fault in the
// code, such as a value that cannot be encoded. It stops the workflow task, not
// the workflow: Temporal tries the task again, in sight, until a worker without
// the fault is there, and nothing is lost.
func (s *session) execute(activity, summary string, in, out any) error {
	s.doing.what, s.doing.since, s.doing.escalated = summary, workflow.Now(s.applies), false
	defer func() { s.doing.what, s.doing.since = "", time.Time{} }()
	err := workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(s.applies, localOptions(summary)), activity, in).Get(s.applies, out)
	if err == nil || refused(err) {
		return err
	}
	s.doing.escalated, s.doing.err, s.doing.errAt = true, clip(err.Error()), workflow.Now(s.applies)
	s.log.Warn("local activity did not succeed in time: going on as a regular activity, which is tried until it succeeds", "activity", activity, "err", err)
	s.count(s.applies, metricEscalated, "activity_type", activity)
	err = workflow.ExecuteActivity(workflow.WithActivityOptions(s.applies, regularOptions(summary)), activity, in).Get(s.applies, out)
	if err != nil && !refused(err) {
		panic(fmt.Sprintf("%s of session %s: %v", activity, s.id, err))
	}
	return err
}

func refused(err error) bool {
	var a *temporal.ApplicationError
	return errors.As(err, &a) && a.Type() == ErrRefused
}

// intent is what one apply is to do.
type intent struct {
	fold       device.Fold
	positions  []device.Position
	batches    int64
	records    int64
	duplicates int64
	received   time.Time
}

// turn applies all that waits: one apply in the common case. The first turn of
// a chain of runs learns what the database knows.
func (s *session) turn(ctx workflow.Context) {
	if s.Sync == SyncLoading {
		s.load(ctx)
	}
	for _, group := range untilClose(s.fresh(ctx)) {
		s.settle(ctx, group)
	}
	s.Waiting = nil
	s.stepOver(ctx)
}

// untilClose splits batches behind each one that closes the session: folded
// together, what comes after a close would hide what came before it.
func untilClose(batches []device.Batch) [][]device.Batch {
	var groups [][]device.Batch
	first := 0
	for i, b := range batches {
		if b.Fold.Closed != 0 || i == len(batches)-1 {
			groups = append(groups, batches[first:i+1])
			first = i + 1
		}
	}
	return groups
}

// settle applies batches together. Where the database refuses that, each is
// tried by itself, so that only the guilty one is kept out.
func (s *session) settle(ctx workflow.Context, batches []device.Batch) {
	err := s.apply(ctx, merge(batches))
	for _, b := range batches {
		if err == nil {
			break
		}
		refusal := err
		if len(batches) > 1 {
			refusal = s.apply(ctx, merge([]device.Batch{b}))
		}
		if refusal != nil {
			s.PendingRefusals = append(s.PendingRefusals, Refusal{
				Topic: b.Topic, Partition: b.Partition, First: b.First, Last: b.Last,
				Cause: CauseDatabase, Detail: clip(fmt.Sprintf("seq %s: %v", b.Fold.Seqs, refusal)), At: workflow.Now(ctx),
			})
		}
	}
}

// fresh returns the waiting batches that are not exact duplicates. A batch is
// one only when its position was reached and its events are known: in a topic
// that was made anew, offsets begin again.
func (s *session) fresh(ctx workflow.Context) []device.Batch {
	var out []device.Batch
	var repeated int64
	seen, positions := known(&s.State), slices.Clone(s.Positions)
	for _, w := range s.Waiting {
		b := w.Batch
		if device.Reached(positions, b.Position()) && seen.Covers(b.Fold.Seqs) {
			repeated += b.Fold.Events()
			continue
		}
		seen, positions = seen.Union(b.Fold.Seqs), device.Advance(positions, b.Position())
		out = append(out, b)
	}
	if repeated > 0 {
		s.Counters.Duplicates += repeated
		s.add(ctx, metricDuplicates, repeated)
	}
	return out
}

// merge folds batches into one intent. It leaves them as they are.
func merge(batches []device.Batch) intent {
	var in intent
	for i, b := range batches {
		fold := b.Fold
		if len(batches) > 1 {
			fold = cloneFold(fold) // Merge may write into both
		}
		if i == 0 {
			in.fold = fold
		} else {
			in.fold = device.Merge(in.fold, fold)
		}
		in.batches++
		in.records += int64(b.Records)
		in.duplicates += b.Fold.Events()
		in.positions = device.Advance(in.positions, b.Position())
		if b.Received.After(in.received) {
			in.received = b.Received
		}
	}
	in.duplicates -= in.fold.Events()
	return in
}

// step is an apply that is worked out and not yet done.
type step struct {
	intent
	next    device.State // the session's, once it is done
	change  device.Change
	check   *SnapshotCheck // nil: no newer snapshot is in it
	request ApplyRequest
}

// plan computes what the intent changes.
func (s *session) plan(in intent, now time.Time) step {
	p := step{intent: in, next: cloneState(s.State)}
	fold := in.fold
	if s.Level < 2 {
		fold = uncorrected(&s.State, fold)
	}
	p.change = p.next.Apply(fold)
	if p.next.Snapshot > s.State.Snapshot {
		p.check = compare(&s.State, in.fold, now)
		p.check.Repaired = p.change.Repaired
	}
	p.request = s.request(&p.next, in.positions)
	if in.received.After(s.LastReceived) {
		p.request.Received = in.received
	}
	p.request.BatchReceived = in.received
	p.request.Write, p.request.Corrected = p.change.Write, p.change.Corrected
	p.request.Repaired, p.request.OverLimit = p.change.Repaired, p.change.OverLimit
	p.request.Records = in.records
	p.request.Duplicates = in.duplicates + p.change.Duplicates
	p.request.AfterClose = p.change.AfterClose
	p.request.Stale = p.change.Stale
	p.request.Events = in.fold.Events() - p.change.Duplicates - p.change.AfterClose
	p.request.IdentifiesDevice = s.introduces(&p)
	return p
}

// apply has the database take the intent, and only then makes it the session's
// state. Its only error is a refusal.
func (s *session) apply(ctx workflow.Context, in intent) error {
	if in.batches == 0 {
		return nil
	}
	p := s.plan(in, workflow.Now(ctx))
	var answer LoadedSession // of Opens; else nothing
	if err := s.execute(ActivityApplyBatch, p.summary(), p.request, &answer); err != nil {
		return err
	}
	s.done(ctx, p)
	s.know(answer.TestState)
	s.supersede(ctx, answer.OlderSessions, answer.NewerSession)
	return nil
}

// done takes over what the database has taken.
func (s *session) done(ctx workflow.Context, p step) {
	s.State, s.LastReceived = p.next, p.request.Received
	s.reached(p.positions)
	s.Counters.Batches += p.batches
	s.Counters.Events += p.request.Events
	s.Counters.Records += p.request.Records
	s.Counters.Duplicates += p.request.Duplicates
	s.Counters.AfterClose += p.request.AfterClose
	s.Counters.Repaired += int64(len(p.change.Repaired))
	s.Counters.OverLimit += int64(len(p.change.OverLimit))
	s.Counters.Stale += p.change.Stale
	s.credit(workflow.GetInfo(ctx).GetCurrentBuildID(), p.request.Events)
	s.report(ctx, p.request, p.change)
	s.checked(ctx, p.check)
	s.judge(ctx)
}

// request is an apply that leaves the session's row as state has it.
func (s *session) request(state *device.State, positions []device.Position) ApplyRequest {
	r := ApplyRequest{
		RAE: s.rae, Session: s.id,
		AsOf: state.AsOf, Snapshot: state.Snapshot, SnapshotAt: state.SnapshotAt, Hash: state.Hash,
		Seen: state.Seen, Missing: state.Missing(), Closed: state.Closed, Reason: state.Reason,
		First: state.First, Last: state.Last, Received: s.LastReceived,
	}
	for _, p := range positions {
		if !device.Reached(s.Positions, p) {
			r.Positions = append(r.Positions, p)
		}
	}
	return r
}

func (s *session) reached(positions []device.Position) {
	for _, p := range positions {
		s.Positions = device.Advance(s.Positions, p)
	}
}

// stepOver records what is refused, and has the database quarantine it and pass
// its positions: the poller waits for them, and would send the same batch for
// ever.
func (s *session) stepOver(ctx workflow.Context) {
	if len(s.PendingRefusals) == 0 {
		return
	}
	var positions []device.Position
	for _, r := range s.PendingRefusals {
		if r.Topic != "" && !device.Reached(s.Positions, r.position()) {
			positions = device.Advance(positions, r.position())
		}
	}
	if len(positions) > 0 || s.Level > 0 {
		request := s.request(&s.State, positions)
		request.SkipOnly, request.Quarantined = true, s.PendingRefusals
		if err := s.execute(ActivityApplyBatch, "step over "+plural(int64(len(s.PendingRefusals)), "refused batch"), request, nil); err != nil {
			panic(fmt.Sprintf("session %s: an apply that only steps over was refused: %v", s.id, err)) // see ApplyRequest.Skip
		}
		s.reached(positions)
	}
	for _, r := range s.PendingRefusals {
		s.refuse(r)
		s.count(ctx, metricRefused, "cause", r.Cause)
		s.log.Error("batch refused for good: its events are missing from the session until a snapshot heals it",
			"topic", r.Topic, "partition", r.Partition, "offset", r.First, "last_offset", r.Last, "cause", r.Cause, "err", r.Detail)
	}
	s.PendingRefusals = nil
}
