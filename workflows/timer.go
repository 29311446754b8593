package workflows

import (
	"hash/fnv"
	"strconv"
	"time"

	"go.temporal.io/sdk/workflow"
)

// wakeTimer is a session's one timer. It only wakes the session, which then
// compares its deadlines with workflow.Now.
type wakeTimer struct {
	at     time.Time // zero: no timer runs
	cancel workflow.CancelFunc
}

// armTimer makes sure that the session wakes by its next deadline. A timer that
// fires before it is kept, and costs one comparison. So a timer, which is three
// events of history, is not started anew with each batch: a busy session starts
// one in each run.
func (s *session) armTimer(ctx workflow.Context, wake workflow.Selector) {
	at, purpose := s.nextDeadline()
	if !s.timer.at.IsZero() {
		if !at.Before(s.timer.at) {
			return
		}
		s.timer.cancel()
	}
	timer, cancel := workflow.WithCancel(s.uncancelled)
	future := workflow.NewTimerWithOptions(timer, at.Sub(workflow.Now(ctx)), workflow.TimerOptions{Summary: "check deadlines: " + purpose})
	s.timer = wakeTimer{at: at, cancel: cancel}
	wake.AddFuture(future, func(f workflow.Future) {
		if f.Get(timer, nil) == nil { // it fired, and so is the one that runs
			s.timer = wakeTimer{}
		}
	})
}

// nextDeadline is when the session next has something to do, and what that is.
func (s *session) nextDeadline() (time.Time, string) {
	at, purpose := s.idleAt(), "idle timeout"
	if s.State.AsOf > 0 && !s.Repair.Overdue && s.snapshotOverdueAt().Before(at) {
		at, purpose = s.snapshotOverdueAt(), "a snapshot is overdue"
	}
	if s.incomplete() && s.Repair.NextTryAt.Before(at) {
		at, purpose = s.Repair.NextTryAt, "request a snapshot"
	}
	if t := s.TestState; t != nil && !t.Until.IsZero() && t.Until.Before(at) {
		at, purpose = t.Until, "the lease of "+clip(t.Holder)+" ends"
	}
	if s.CloseReason != "" && s.closeAt().Before(at) {
		at, purpose = s.closeAt(), "close: "+s.CloseReason
	}
	return at, purpose
}

// handleDeadlines does what is due by workflow.Now, and reports whether anything
// was. serveRequests does the other two of nextDeadline.
func (s *session) handleDeadlines(ctx workflow.Context) bool {
	if s.Sync == SyncLoading || s.State.Closed > 0 {
		return false
	}
	now, worked := workflow.Now(ctx), false
	if s.State.AsOf > 0 && !s.Repair.Overdue && !now.Before(s.snapshotOverdueAt()) {
		s.Repair.Overdue, worked = true, true
		s.updateSyncState(ctx)
	}
	if s.incomplete() && !now.Before(s.Repair.NextTryAt) {
		s.requestSnapshot(ctx, s.describeMissing()+" missing")
		worked = true
	}
	if !s.idleTimeoutReached && !now.Before(s.idleAt()) {
		s.idleTimeoutReached, worked = true, true
	}
	return worked
}

// idleAt is when a session that receives nothing completes. The next signal starts
// it again with what the database knows, ingest positions included. The time is
// jittered over a tenth of the timeout, so that sessions that fell silent together
// do not complete together.
func (s *session) idleAt() time.Time {
	return s.LastSignalAt.Add(s.options.IdleTimeout + time.Duration(s.jitter("idle", 0)*float64(s.options.IdleTimeout)/10))
}

// jitter is a number from 0 up to 1 that differs between sessions, purposes and n.
// It is computed, not drawn, so that it is the same in a replay.
func (s *session) jitter(purpose string, n int64) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(purpose + strconv.FormatInt(n, 10) + s.id))
	x := h.Sum64() // FNV's high bits hardly differ between inputs that end alike: mix them
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}
