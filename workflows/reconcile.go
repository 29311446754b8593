package workflows

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// How a gap is healed. Events may only be late, so a gap is given a moment.
// Then the edge is asked for a snapshot, and again, ever less often, until one
// comes: it heals by the rule of device.State. Newer events go on being applied
// meanwhile.
const (
	graceLeast = 2 * time.Second
	graceMost  = 10 * time.Second
	againFirst = 30 * time.Second
	againMost  = time.Hour
	// A session without a snapshot for so many intervals is taken to have a
	// gap: what was lost last of all shows in no later seq.
	overdueIntervals = 3
)

// Level is what the workflow code of a worker may do that older code did not:
// 1 has timers and asks for snapshots; 2 takes a snapshot's word where nothing
// was missing, gives way to a newer session of its device, and waits for quiet
// before it is closed for one; 3 reads its device's test state. It reaches a
// session in the answer to a local activity, which only the worker that runs the
// workflow can give, and is carried from run to run. So a history says by itself
// whether it may have such commands, and costs no marker for it.
const Level = 3

// Repair is what is being done about a gap.
type Repair struct {
	NextTryAt time.Time      `json:"next,omitzero"`    // when to ask; zero: nothing is missing
	Tries     int            `json:"tries,omitempty"`  // since the back-off began
	Sent      int            `json:"sent,omitempty"`   // requests for this gap
	LastTryAt time.Time      `json:"last,omitzero"`    // the newest try
	Outcome   RequestOutcome `json:"result,omitempty"` // of it
	Detail    string         `json:"detail,omitempty"` // of it
	Overdue   bool           `json:"overdue,omitempty"`
}

// lacking reports whether only a snapshot, or what is late, can make the
// session whole.
func (c *CarriedState) lacking() bool { return c.Repair.Overdue || len(c.State.Missing()) > 0 }

// judge moves between live, gap and resync.
func (s *session) judge(ctx workflow.Context) {
	sync := SyncLive
	switch {
	case s.lacking() && s.Repair.Sent > 0:
		sync = SyncResync
	case s.lacking():
		sync = SyncGap
	}
	if sync == s.Sync {
		return
	}
	now := workflow.Now(ctx)
	s.Sync, s.SyncSince = sync, now
	switch sync {
	case SyncGap:
		s.log.Warn("events are missing: newer ones go on being applied", "missing", s.lack(), "as_of", s.State.AsOf)
		s.add(ctx, metricGaps, 1)
		s.Repair.NextTryAt = s.firstRequest(now)
	case SyncResync:
		s.log.Info("snapshot asked for", "missing", s.lack(), "as_of", s.State.AsOf)
	default:
		s.Repair.NextTryAt, s.Repair.Sent = time.Time{}, 0
		s.log.Info("no events are missing any more", "as_of", s.State.AsOf)
	}
}

// lack says what is missing.
func (s *session) lack() string {
	if missing := s.State.Missing(); len(missing) > 0 {
		return "seq " + missing.String()
	}
	return "a snapshot, the newest came before " + s.LastSnapshotAt.UTC().Format(time.RFC3339)
}

// firstRequest is when to ask about a gap that begins now: after the grace, and
// not before the back-off of the one before allows it, so that a session that
// keeps losing events does not ask as often as it loses them.
func (s *session) firstRequest(now time.Time) time.Time {
	r := &s.Repair
	if now.Sub(r.LastTryAt) > 2*s.again(r.Tries) {
		r.Tries = 0
	}
	next := now
	if !r.Overdue { // that deadline has its own jitter
		next = now.Add(graceLeast + time.Duration(s.fraction("grace", s.State.AsOf)*float64(graceMost-graceLeast)))
	}
	if r.Tries > 0 && r.LastTryAt.Add(s.again(r.Tries)).After(next) {
		next = r.LastTryAt.Add(s.again(r.Tries))
	}
	return next
}

// again is the pause after so many tries: it doubles from againFirst to
// againMost, and is drawn from its upper half. Where no seq is missing it goes
// up to the interval at which the edge, once it is back, sends a snapshot by
// itself: the sessions of a RAE that is off for days cost next to nothing.
func (s *session) again(tries int) time.Duration {
	pause := againMost
	if s.Level > 1 && len(s.State.Missing()) == 0 {
		pause = max(pause, s.options.SnapshotInterval)
	}
	if tries < 12 {
		pause = min(againFirst<<max(tries-1, 0), pause)
	}
	return pause/2 + time.Duration(s.fraction("again", int64(tries))*float64(pause/2))
}

// fraction is a number from 0 to 1 that differs between sessions and is the
// same whenever it is asked for: what is jittered by it comes apart, and
// replays alike.
func (s *session) fraction(what string, n int64) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(what + strconv.FormatInt(n, 10) + s.id))
	x := h.Sum64() // FNV's high bits hardly differ for what ends alike: mix them
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

// overdue is when the session counts as one with a gap for want of a snapshot.
func (s *session) overdue() time.Time {
	after := overdueIntervals * s.options.SnapshotInterval
	return s.LastSnapshotAt.Add(after + time.Duration(s.fraction("overdue", 0)*float64(s.options.SnapshotInterval)/2))
}

// look does what the clock says is due, and reports whether that was anything.
func (s *session) look(ctx workflow.Context) bool {
	if s.Level == 0 || s.Sync == SyncLoading || s.State.Closed > 0 {
		return false
	}
	now, did := workflow.Now(ctx), false
	if s.State.AsOf > 0 && !s.Repair.Overdue && !now.Before(s.overdue()) {
		s.Repair.Overdue, did = true, true
		s.judge(ctx)
	}
	if s.lacking() && !now.Before(s.Repair.NextTryAt) {
		s.ask(ctx, s.lack()+" missing")
		did = true
	}
	if !s.ended && !now.Before(s.dormant()) {
		s.ended, did = true, true
	}
	return did
}

// deadline is when look has something to do next, and what that is.
func (s *session) deadline() (time.Time, string) {
	at, what := s.dormant(), "end, as idle"
	if s.State.AsOf > 0 && !s.Repair.Overdue && s.overdue().Before(at) {
		at, what = s.overdue(), "a snapshot is overdue"
	}
	if s.lacking() && s.Repair.NextTryAt.Before(at) {
		at, what = s.Repair.NextTryAt, "ask for a snapshot"
	}
	if t := s.TestState; t != nil && !t.Until.IsZero() && t.Until.Before(at) {
		at, what = t.Until, "the lease of "+clip(t.Holder)+" ends"
	}
	if s.CloseReason != "" && s.quietFrom().Before(at) {
		at, what = s.quietFrom(), "close: "+s.CloseReason
	}
	return at, what
}

// SnapshotRequest is the argument of RequestSnapshot.
type SnapshotRequest struct {
	RAE     string        `json:"rae"`
	Session string        `json:"session"`
	Nonce   string        `json:"nonce"` // the same for a try that is repeated, so that the edge knows it again
	Reason  string        `json:"reason,omitempty"`
	Life    time.Duration `json:"life"` // how long the edge may take to do it
}

// ask has a snapshot requested. It does not wait for the reply: the snapshot is
// what counts, and comes as an event. Whatever the outcome is, the next try has
// its time.
func (s *session) ask(ctx workflow.Context, reason string) SnapshotRequestResult {
	r := &s.Repair
	r.Tries++
	r.LastTryAt = workflow.Now(ctx)
	pause := s.again(r.Tries)
	request := SnapshotRequest{
		RAE: s.rae, Session: s.id, Reason: clip(reason), Life: max(pause, againFirst),
		Nonce: workflow.GetInfo(ctx).WorkflowExecution.RunID + "/" + strconv.FormatInt(s.Counters.Requests, 10) + "/" + strconv.Itoa(r.Tries),
	}
	var asked SnapshotRequestResult
	err := workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(s.applies, workflow.LocalActivityOptions{
		ScheduleToCloseTimeout: askFor,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
		Summary:                clip("ask the edge for a snapshot: " + reason),
	}), ActivityRequestSnapshot, request).Get(s.applies, &asked)
	if err != nil {
		asked = SnapshotRequestResult{Outcome: RequestDeferred, Detail: clip(err.Error())}
	}
	switch asked.Outcome {
	case RequestSent:
		s.Counters.Requests++
		r.Sent++
	case RequestDisabled:
		pause = againMost/2 + pause/2 // another worker may be able to
	default:
		asked.Outcome = RequestDeferred
		if asked.Wait > 0 { // this was the worker's limit: it says when
			r.Tries--
			pause = asked.Wait + time.Duration(s.fraction("wait", s.State.AsOf)*float64(asked.Wait/4))
		}
	}
	r.Outcome, r.Detail = asked.Outcome, asked.Detail
	s.count(ctx, metricRequests, "outcome", string(asked.Outcome))
	if s.lacking() {
		r.NextTryAt = r.LastTryAt.Add(pause)
	} else {
		r.Sent = 0
		if s.Level > 1 && asked.Outcome == RequestSent {
			r.Tries-- // a person's wish does not hold back what a gap asks for
		}
	}
	s.judge(ctx)
	return asked
}

// askFor bounds a request: Kafka that does not answer by then is asked later.
const askFor = 3 * time.Second

// compare holds the session's own record against the snapshot that f brings, as
// it was before: what differs though no event was missing has drifted. It is
// called with the state that f, with its newer snapshot, is not yet applied to.
//
// Own is what the state has, and what the other events of the fold say: those
// are one with the snapshot's list and can no longer be told from it. Equal
// attributes have an equal hash, so nothing is hashed unless something drifted.
func compare(s *device.State, f device.Fold, now time.Time) *SnapshotCheck {
	n := f.Snapshot
	check := &SnapshotCheck{Seq: n, Edge: f.Hash, At: now}
	before := device.SeqSet{}
	if s.Snapshot > 0 {
		before = device.SeqSet{{From: 1, To: s.Snapshot}}
	}
	before = before.Union(s.Seen)
	if !before.Union(f.Seqs).Covers(device.SeqSet{{From: 1, To: n}}) {
		return check
	}
	own := make(map[string]device.Attribute)
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		listed := f.Attributes[name]
		if listed.Seq > n {
			continue // a newer event of the fold hides what the list says
		}
		own[name] = listed
		have, ok := s.Attributes[name]
		switch {
		case have.Seq > n:
			continue
		case !before.Has(listed.Seq) && have.Seq < listed.Seq:
			continue // it came with this fold
		case !ok || have.Removed():
			delete(own, name)
		case have.Seq == listed.Seq && string(have.Value) == string(listed.Value):
			continue
		default:
			own[name] = have
		}
		check.Drift = append(check.Drift, name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Attributes)) {
		have := s.Attributes[name]
		since := device.Range{From: max(have.Seq, s.Snapshot) + 1, To: n - 1}
		if _, listed := f.Attributes[name]; listed || have.Removed() || have.Seq > n {
			continue
		}
		if since.From > since.To || before.Covers(device.SeqSet{since}) { // else one of the fold's events removed it
			own[name] = have
			check.Drift = append(check.Drift, name)
		}
	}
	if s.AsOf < n && f.Seqs.Last() == n { // else newer events hide the rest
		check.Cloud = f.Hash
		if len(check.Drift) > 0 {
			check.Cloud = device.Hash(own)
		}
	}
	return check
}

// uncorrected is the fold as code below Level 2 applied it: what a snapshot lists
// otherwise, though by seq it is no news, stays as the session has it. What the
// database was not told must not be in the state, nor in commands of a replay.
func uncorrected(s *device.State, f device.Fold) device.Fold {
	if f.Snapshot <= s.Snapshot {
		return f
	}
	f = cloneFold(f)
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		listed, have := f.Attributes[name], s.Attributes[name]
		if have.Seq > 0 && listed.Seq <= have.Seq && have.Seq <= f.Snapshot {
			f.Attributes[name] = have
		}
	}
	return f
}

// checked takes over what the comparison with a snapshot found.
func (s *session) checked(ctx workflow.Context, c *SnapshotCheck) {
	if c == nil {
		return
	}
	s.Check, s.LastSnapshotAt, s.Repair.Overdue = c, c.At, false
	s.Counters.Drift += int64(len(c.Drift))
	s.add(ctx, metricDrift, int64(len(c.Drift)))
	if len(c.Drift) > 0 {
		s.log.Error("drift: the session differed from the edge's snapshot though no event was missing",
			"snapshot", c.Seq, "attributes", c.Drift, "edge_hash", c.Edge, "cloud_hash", c.Cloud)
	}
}

// repairs is the card's line about a gap.
func (s *session) repairs() string {
	r := &s.Repair
	if !s.lacking() || s.Level == 0 {
		return ""
	}
	next := "; the next try at " + r.NextTryAt.UTC().Format(time.RFC3339)
	at := " at " + r.LastTryAt.UTC().Format(time.RFC3339)
	switch {
	case r.LastTryAt.Before(s.SyncSince) && r.Sent == 0:
		return "to be asked for at " + r.NextTryAt.UTC().Format(time.RFC3339) + ", unless what is missing comes by then"
	case r.Outcome == RequestDisabled:
		return "cannot be asked for: " + code(r.Detail) + next
	case r.Outcome == RequestDeferred:
		return "could not be asked for" + at + ": " + code(r.Detail) + next
	}
	return fmt.Sprintf("asked for %s, the last%s%s", plural(int64(r.Sent), "time"), at, next)
}
