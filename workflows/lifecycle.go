package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// How a session ends: it is closed by its edge for good, by an operator or by a newer
// session of its device until an event past the close comes, or it is idle for long
// enough.

const (
	// supersededQuiet is how long no batch must have come for a session before it
	// is closed because its device has a newer one. Its last events, and the
	// edge's own closed event, may be in another partition of Kafka than the newer
	// session's first event, and so come later. After the close they would reopen it.
	supersededQuiet = 5 * time.Minute
	maxQuiet        = time.Hour
)

// SupersedeRequest is the argument of Supersede.
type SupersedeRequest struct {
	RAE           string   `json:"rae"`
	Session       string   `json:"session"` // the newer one
	OlderSessions []string `json:"older"`
}

// SupersededCloseRequest closes a session of whose device a newer one is open.
func SupersededCloseRequest(newerSession string) CloseRequest {
	return CloseRequest{Reason: "superseded by " + newerSession, Quiet: supersededQuiet}
}

// receiveCloseSignals takes the signals to close that have arrived, without
// blocking. One whose argument cannot be read closes the session too.
func (s *session) receiveCloseSignals(ctx workflow.Context) {
	var raw converter.RawValue
	for s.closeSignals.ReceiveAsync(&raw) {
		var c CloseRequest
		if err := converter.GetDefaultDataConverter().FromPayload(raw.Payload(), &c); err != nil || checkReason(c.Reason) != nil {
			c = CloseRequest{}
		}
		if c.Reason == "" {
			c.Reason = "no reason was given"
		}
		s.raiseLevel(ctx)
		s.scheduleClose(c)
	}
}

// scheduleClose notes that the session is to be closed. Of several requests the
// first one's reason and the shortest wait count.
func (s *session) scheduleClose(c CloseRequest) {
	c.Quiet = min(max(c.Quiet, 0), maxQuiet)
	if s.CloseReason == "" {
		s.CloseReason, s.CloseQuiet = c.Reason, c.Quiet
	}
	s.CloseQuiet = min(s.CloseQuiet, c.Quiet)
}

// closeAt is when a scheduled close is done. It does not wait for longer than the
// idle timeout, which would end the session before.
func (s *session) closeAt() time.Time {
	return s.LastSignalAt.Add(min(s.CloseQuiet, s.options.IdleTimeout))
}

// closeSession closes the session provisionally after the newest event it has,
// through the same apply as an event. The close takes no seq of its own: no edge sent
// it, and an event from past it reopens the session.
func (s *session) closeSession(ctx workflow.Context) {
	reason := s.CloseReason
	s.CloseReason, s.CloseQuiet = "", 0
	for {
		seq := s.State.AsOf
		if seq == 0 || s.State.Closed > 0 {
			return
		}
		p := s.planApply(foldedBatches{fold: device.Fold{
			RAE: s.rae, Session: s.id, Seqs: device.SeqSet{{From: seq, To: seq}}, First: s.State.Last, Last: s.State.Last,
		}}, workflow.Now(ctx))
		p.next.CloseProvisionally(reason)
		p.request.Closed, p.request.Reason, p.request.Provisional = p.next.Closed, p.next.Reason, p.next.Provisional
		p.request.Duplicates = 0 // the fold has the seq of an event, and repeats none
		switch _, err := s.executeApply(ctx, clip("close after seq "+fmt.Sprint(seq)+" until an event past it comes: "+reason), &p.request); {
		case errors.Is(err, errReloaded):
			continue // closed at the newest event that the database has
		case err != nil:
			s.log.Error("close was refused", "reason", reason, "err", err)
		default:
			s.recordApply(ctx, p)
			s.log.Info("session closed until an event past it comes", "closed", seq, "reason", reason)
		}
		return
	}
}

// identifiesDevice reports whether the apply is the first to have the session's
// MAC, by which the edge knows the device. An edge has at most one open session of
// a MAC, so other sessions that the database has open can then be found and closed.
func (s *session) identifiesDevice(p *plannedApply) bool {
	before, after := s.State.Attributes[device.AttrMAC], p.next.Attributes[device.AttrMAC]
	return p.next.Closed == 0 && len(before.Value) == 0 && len(after.Value) > 0 && !after.Removed()
}

// resolveRivals closes the sessions that this one supersedes, and schedules the
// close of this one where a newer session reached the database first.
func (s *session) resolveRivals(ctx workflow.Context, older []string, newer string) {
	if newer != "" {
		s.log.Info("the device has a newer session: this one closes when no batch has come for it for a while", "newer", newer, "quiet", supersededQuiet)
		s.scheduleClose(SupersededCloseRequest(newer))
	}
	if len(older) == 0 {
		return
	}
	s.log.Info("closing the device's older sessions", "older", older)
	s.add(ctx, metricSuperseded, int64(len(older)))
	summary := clip("supersede " + strings.Join(older, ", "))
	if err := s.executeActivity(ActivitySupersede, summary, SupersedeRequest{RAE: s.rae, Session: s.id, OlderSessions: older}, nil); err != nil {
		panic(fmt.Sprintf("session %s: supersede was refused: %v", s.id, err)) // it writes nothing that could be refused
	}
}
