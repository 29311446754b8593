package workflows

import (
	"fmt"
	"strconv"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// How a gap is healed. The missing events may only be late, so a gap is first
// given a grace. Then the edge is asked for a snapshot, and again after pauses
// that grow, until one comes: it heals by the rule of device.State. Newer events
// go on being applied meanwhile.
const (
	minGrace = 2 * time.Second
	maxGrace = 10 * time.Second
	minPause = 30 * time.Second
	maxPause = time.Hour
	// overdueIntervals is after how many intervals without a snapshot a session
	// counts as one with a gap: a loss of the newest events shows in no later seq.
	overdueIntervals = 3
	// snapshotRequestTimeout bounds one request: where Kafka does not answer by
	// then, the session asks later.
	snapshotRequestTimeout = 3 * time.Second
)

// Repair is what is being done about a gap.
type Repair struct {
	NextTryAt time.Time      `json:"next,omitzero"`    // when to ask; zero: nothing is missing
	Tries     int            `json:"tries,omitempty"`  // since the back-off began
	Sent      int            `json:"sent,omitempty"`   // requests for this gap
	LastTryAt time.Time      `json:"last,omitzero"`    //
	Outcome   RequestOutcome `json:"result,omitempty"` // of the last try
	Detail    string         `json:"detail,omitempty"` // of the last try
	Overdue   bool           `json:"overdue,omitempty"`
}

// SnapshotRequest is the argument of RequestSnapshot.
type SnapshotRequest struct {
	RAE     string        `json:"rae"`
	Session string        `json:"session"`
	Nonce   string        `json:"nonce"` // the same when the activity is tried again: the edge then does it once
	Reason  string        `json:"reason,omitempty"`
	Life    time.Duration `json:"life"` // how long the edge may take to do it
}

// incomplete reports whether events or a snapshot are missing.
func (c *CarriedState) incomplete() bool { return c.Repair.Overdue || len(c.missing()) > 0 }

// updateSyncState moves the session between live, gap and resync.
func (s *session) updateSyncState(ctx workflow.Context) {
	sync := SyncLive
	switch {
	case s.incomplete() && s.Repair.Sent > 0:
		sync = SyncResync
	case s.incomplete():
		sync = SyncGap
	}
	if sync == s.Sync {
		return
	}
	now := workflow.Now(ctx)
	s.Sync, s.SyncSince = sync, now
	switch sync {
	case SyncGap:
		s.log.Warn("events are missing: newer ones go on being applied", "missing", s.describeMissing(), "as_of", s.State.AsOf)
		s.add(ctx, metricGaps, 1)
		s.Repair.NextTryAt = s.firstRequestAt(now)
	case SyncResync:
		s.log.Info("snapshot requested", "missing", s.describeMissing(), "as_of", s.State.AsOf)
	default:
		s.Repair.NextTryAt, s.Repair.Sent = time.Time{}, 0
		s.log.Info("no events are missing any more", "as_of", s.State.AsOf)
	}
}

// describeMissing says for people what is missing.
func (s *session) describeMissing() string {
	if missing := s.missing(); len(missing) > 0 {
		return "seq " + missing.String()
	}
	return "a snapshot, the newest came before " + s.LastSnapshotAt.UTC().Format(time.RFC3339)
}

// firstRequestAt is when to ask about a gap that begins now: after the grace, and
// not before the back-off of the previous gap allows it. So a session that keeps
// losing events does not ask as often as it loses them.
func (s *session) firstRequestAt(now time.Time) time.Time {
	r := &s.Repair
	if now.Sub(r.LastTryAt) > 2*s.requestBackOff(r.Tries) {
		r.Tries = 0
	}
	next := now
	if !r.Overdue { // the deadline of an overdue snapshot has its own jitter
		next = now.Add(minGrace + time.Duration(s.jitter("grace", s.State.AsOf)*float64(maxGrace-minGrace)))
	}
	if r.Tries > 0 && r.LastTryAt.Add(s.requestBackOff(r.Tries)).After(next) {
		next = r.LastTryAt.Add(s.requestBackOff(r.Tries))
	}
	return next
}

// requestBackOff is the pause after so many tries: it doubles from minPause to
// maxPause, and is jittered over its upper half. Where no seq is missing it goes up
// to the interval at which the edge, once it is back, sends a snapshot unasked: the
// sessions of a RAE that is off for days then cost next to nothing.
func (s *session) requestBackOff(tries int) time.Duration {
	pause := maxPause
	if len(s.missing()) == 0 {
		pause = max(pause, s.options.SnapshotInterval)
	}
	if tries < 12 {
		pause = min(minPause<<max(tries-1, 0), pause)
	}
	return pause/2 + time.Duration(s.jitter("again", int64(tries))*float64(pause/2))
}

// snapshotOverdueAt is when the session counts as one with a gap because no
// snapshot came.
func (s *session) snapshotOverdueAt() time.Time {
	after := overdueIntervals * s.options.SnapshotInterval
	return s.LastSnapshotAt.Add(after + time.Duration(s.jitter("overdue", 0)*float64(s.options.SnapshotInterval)/2))
}

// requestSnapshot has the edge asked for a snapshot, and returns what became of
// the request. It does not wait for the edge: the snapshot comes as an event.
// Whatever the outcome is, it sets the time of the next try.
func (s *session) requestSnapshot(ctx workflow.Context, reason string) SnapshotRequestResult {
	r := &s.Repair
	r.Tries++
	r.LastTryAt = workflow.Now(ctx)
	pause := s.requestBackOff(r.Tries)
	result := s.sendSnapshotRequest(ctx, reason, max(pause, minPause))
	switch result.Outcome {
	case RequestSent:
		s.Counters.Requests++
		r.Sent++
	case RequestDisabled:
		pause = maxPause/2 + pause/2 // another worker may be able to
	default:
		result.Outcome = RequestDeferred
		if result.Wait > 0 { // the worker's rate limit, which says when to come again
			r.Tries--
			pause = result.Wait + time.Duration(s.jitter("wait", s.State.AsOf)*float64(result.Wait/4))
		}
	}
	r.Outcome, r.Detail = result.Outcome, result.Detail
	s.count(ctx, metricRequests, "outcome", string(result.Outcome))
	if s.incomplete() {
		r.NextTryAt = r.LastTryAt.Add(pause)
	} else {
		r.Sent = 0
		if result.Outcome == RequestSent {
			r.Tries-- // a person's request does not delay the requests for a later gap
		}
	}
	s.updateSyncState(ctx)
	return result
}

// sendSnapshotRequest tries once to send the request. An error is the outcome
// RequestDeferred.
func (s *session) sendSnapshotRequest(ctx workflow.Context, reason string, life time.Duration) SnapshotRequestResult {
	request := SnapshotRequest{
		RAE: s.rae, Session: s.id, Reason: clip(reason), Life: life,
		Nonce: workflow.GetInfo(ctx).WorkflowExecution.RunID + "/" + strconv.FormatInt(s.Counters.Requests, 10) + "/" + strconv.Itoa(s.Repair.Tries),
	}
	var result SnapshotRequestResult
	err := workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(s.uncancelled, workflow.LocalActivityOptions{
		ScheduleToCloseTimeout: snapshotRequestTimeout,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
		Summary:                clip("request a snapshot: " + reason),
	}), ActivityRequestSnapshot, request).Get(s.uncancelled, &result)
	if err != nil {
		return SnapshotRequestResult{Outcome: RequestDeferred, Detail: clip(err.Error())}
	}
	return result
}

// repairText is the status card's line about a gap; empty where there is none.
func (s *session) repairText() string {
	r := &s.Repair
	if !s.incomplete() {
		return ""
	}
	next := "; the next try is at " + r.NextTryAt.UTC().Format(time.RFC3339)
	at := " at " + r.LastTryAt.UTC().Format(time.RFC3339)
	switch {
	case r.LastTryAt.Before(s.SyncSince) && r.Sent == 0:
		return "will be requested at " + r.NextTryAt.UTC().Format(time.RFC3339) + ", unless what is missing comes before"
	case r.Outcome == RequestDisabled:
		return "cannot be requested: " + code(r.Detail) + next
	case r.Outcome == RequestDeferred:
		return "could not be requested" + at + ": " + code(r.Detail) + next
	}
	return fmt.Sprintf("requested %s, the last%s%s", plural(int64(r.Sent), "time"), at, next)
}
