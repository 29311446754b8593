package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// dormant is when a session without events ends. The next signal starts it
// again, with what the database knows, ingest positions included. Deadlines lie
// a tenth apart, so that sessions that fell silent together do not end together.
func (s *session) dormant() time.Time {
	return s.LastSignalAt.Add(s.options.IdleTimeout + time.Duration(s.fraction("idle", 0)*float64(s.options.IdleTimeout)/10))
}

// alarm is the one timer of a session. It only wakes it: what is due, look
// finds by the clock. It is not set again with each event, because timers are
// history too; a session that is busy starts one in each run.
type alarm struct {
	at     time.Time // zero: none runs
	cancel workflow.CancelFunc
}

// arm sees to it that the session wakes by its deadline. A timer that is early
// stays: it costs a look at the clock, and another timer only then.
func (s *session) arm(ctx workflow.Context, wake workflow.Selector) {
	if s.Level == 0 {
		return
	}
	at, what := s.deadline()
	if !s.alarm.at.IsZero() {
		if !at.Before(s.alarm.at) {
			return
		}
		s.alarm.cancel()
	}
	timer, cancel := workflow.WithCancel(s.applies)
	future := workflow.NewTimerWithOptions(timer, at.Sub(workflow.Now(ctx)), workflow.TimerOptions{Summary: "look at the clock: " + what})
	s.alarm = alarm{at: at, cancel: cancel}
	wake.AddFuture(future, func(f workflow.Future) {
		if f.Get(timer, nil) == nil { // not cancelled: it is the one that runs
			s.alarm = alarm{}
		}
	})
}

// raise asks the history of a session that older code began up to which Level it
// may have what that stands for.
func (s *session) raise(ctx workflow.Context) {
	if s.Level < Level {
		s.Level = max(s.Level, int(workflow.GetVersion(ctx, "level", workflow.DefaultVersion, Level)))
	}
	if s.LastSnapshotAt.IsZero() {
		s.LastSnapshotAt = workflow.Now(ctx)
	}
	if s.LastSignalAt.IsZero() {
		s.LastSignalAt = workflow.Now(ctx)
	}
}

// toldToClose takes the signals that say so.
func (s *session) toldToClose(ctx workflow.Context) {
	var raw converter.RawValue
	for s.closes.ReceiveAsync(&raw) {
		var c CloseRequest
		if err := converter.GetDefaultDataConverter().FromPayload(raw.Payload(), &c); err != nil || checkText(c.Reason) != nil {
			c = CloseRequest{}
		}
		if c.Reason == "" {
			c.Reason = "no reason was given"
		}
		s.raise(ctx)
		s.willClose(c)
	}
}

// willClose notes that the session is to be closed. The first reason stays, and
// the shortest wait.
func (s *session) willClose(c CloseRequest) {
	if s.Level < 2 {
		c.Quiet = 0
	}
	c.Quiet = min(max(c.Quiet, 0), maxQuiet)
	if s.CloseReason == "" {
		s.CloseReason, s.CloseQuiet = c.Reason, c.Quiet
	}
	s.CloseQuiet = min(s.CloseQuiet, c.Quiet)
}

const (
	// tailQuiet is how long a session must have been silent to be closed
	// because the device has a newer one. Its last events, and the edge's own
	// word of its end, may be in another partition of Kafka than the newer
	// session's first, and so come later; after the close they would be refused.
	tailQuiet = 5 * time.Minute
	maxQuiet  = time.Hour
)

// quietFrom is when the close that is to be done may be: not after the session
// would end as idle.
func (s *session) quietFrom() time.Time {
	return s.LastSignalAt.Add(min(s.CloseQuiet, s.options.IdleTimeout))
}

// shut closes the session for good after the newest event it has, through the
// same apply as an event. It takes no seq of its own: the edge may have used
// the next one already, and that event is then refused and counted, like all
// that come later.
func (s *session) shut(ctx workflow.Context) {
	reason := s.CloseReason
	s.CloseReason, s.CloseQuiet = "", 0
	at := s.State.AsOf
	if at == 0 || s.State.Closed > 0 {
		return
	}
	p := s.plan(intent{fold: device.Fold{
		RAE: s.rae, Session: s.id, Seqs: device.SeqSet{{From: at, To: at}}, First: s.State.Last, Last: s.State.Last,
		Closed: at, Reason: reason,
	}}, workflow.Now(ctx))
	p.request.Duplicates = 0 // it repeats no event
	if err := s.execute(ActivityApplyBatch, clip("close after seq "+fmt.Sprint(at)+": "+reason), p.request, nil); err != nil {
		s.log.Error("close was refused", "reason", reason, "err", err)
		return
	}
	s.done(ctx, p)
	s.log.Info("session closed", "closed", at, "reason", reason)
}

// attrMAC is what an edge knows a device by: it has at most one open session of
// a MAC.
const attrMAC = "network.mac"

// introduces reports whether the step is the first to say which device the
// session is of: then other sessions of it, which nobody else will close, can
// be found.
func (s *session) introduces(p *step) bool {
	was, is := s.State.Attributes[attrMAC], p.next.Attributes[attrMAC]
	return p.next.Closed == 0 && len(was.Value) == 0 && len(is.Value) > 0 && !is.Removed()
}

// SupersedeRequest is the argument of Supersede.
type SupersedeRequest struct {
	RAE           string   `json:"rae"`
	Session       string   `json:"session"` // the newer one
	OlderSessions []string `json:"older"`
}

// SupersededCloseRequest is the reason of a session's close by a newer one.
func SupersededCloseRequest(by string) CloseRequest {
	return CloseRequest{Reason: "superseded by " + by, Quiet: tailQuiet}
}

// supersede has the sessions closed that this one has taken the place of, and
// this one where a newer one was quicker to reach the database.
func (s *session) supersede(ctx workflow.Context, older []string, newer string) {
	if s.Level >= 2 && newer != "" {
		s.log.Info("the device has a newer session: this one closes when nothing comes for it", "newer", newer, "quiet", tailQuiet)
		s.willClose(SupersededCloseRequest(newer))
	}
	if s.Level == 0 || len(older) == 0 {
		return
	}
	s.log.Info("the device's older sessions are closed", "older", older)
	s.add(ctx, metricSuperseded, int64(len(older)))
	summary := clip("supersede " + strings.Join(older, ", "))
	if err := s.execute(ActivitySupersede, summary, SupersedeRequest{RAE: s.rae, Session: s.id, OlderSessions: older}, nil); err != nil {
		panic(fmt.Sprintf("session %s: supersede was refused: %v", s.id, err)) // it writes nothing that could be
	}
}
