package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// SnapshotRequestArgs is the argument of the update request-snapshot.
type SnapshotRequestArgs struct {
	Reason string `json:"reason,omitempty"` // why, for people
}

// RequestOutcome is what became of a wish for a snapshot.
type RequestOutcome string

// Outcomes.
const (
	RequestSent     RequestOutcome = "sent"     // Kafka has the command
	RequestDeferred RequestOutcome = "later"    // this worker sends no more just now, or Kafka does not answer
	RequestDisabled RequestOutcome = "disabled" // this worker has no Kafka to send it to
)

// SnapshotRequestResult answers a wish for a snapshot. The snapshot itself comes as an event.
type SnapshotRequestResult struct {
	Outcome RequestOutcome `json:"outcome"`
	Command string         `json:"command,omitempty"` // ID of the command, where it was sent
	Detail  string         `json:"detail,omitempty"`
	Expires time.Time      `json:"expires,omitzero"`
	Wait    time.Duration  `json:"wait,omitempty"` // of later: when this worker may send one; 0: not known
}

// CloseRequest is the argument of the update close, and of the signal.
type CloseRequest struct {
	Reason string `json:"reason"`
	// Quiet, of a signal, is how long nothing must have come for the session
	// before it closes: what is still on its way would be refused. 0: it closes
	// at once.
	Quiet time.Duration `json:"quiet,omitempty"`
}

// AppliedState says what the database has of a session.
type AppliedState struct {
	AsOf      int64             `json:"as_of_seq"`
	Closed    int64             `json:"closed_seq,omitempty"`
	Reason    string            `json:"closed_reason,omitempty"`
	Positions []device.Position `json:"positions"`
	Events    int64             `json:"events"`  // applied since the chain of runs began
	Signals   int64             `json:"signals"` // received since then
}

// ErrNotDone is the type of the application error with which an update that was
// accepted could not do what it was for.
const ErrNotDone = "NotDone"

// maxText bounds what people say in an update, in bytes.
const maxText = 300

// wishes are what updates ask of the session. A handler only notes what it
// wants and waits: all is done by the one loop, between two applies.
type wishes struct {
	drains, drained int // asked for, done
	snapshots       []*snapshotWish
	wake            workflow.Channel // of capacity 1
}

type snapshotWish struct {
	reason string
	asked  *SnapshotRequestResult
}

// pending reports whether the loop has something to do for an update.
func (w *wishes) pending() bool { return w.drained < w.drains || len(w.snapshots) > 0 }

// stir wakes the loop. One that is awake, or has been woken, needs no more.
func (w *wishes) stir() { w.wake.SendAsync(struct{}{}) }

func (s *session) setUpdates(ctx workflow.Context) error {
	return errors.Join(
		workflow.SetUpdateHandlerWithOptions(ctx, UpdateRequestSnapshot, s.requestSnapshot, workflow.UpdateHandlerOptions{
			Description: "Asks the edge for a snapshot now; answers what became of the request, not with the snapshot.",
			Validator: func(a SnapshotRequestArgs) error {
				if s.State.Closed > 0 {
					return fmt.Errorf("the session was closed at seq %d", s.State.Closed)
				}
				return checkText(a.Reason)
			},
		}),
		workflow.SetUpdateHandlerWithOptions(ctx, UpdateDrain, s.drainAll, workflow.UpdateHandlerOptions{
			Description: "Answers when the database has all that was signalled before, with a receipt.",
		}),
		workflow.SetUpdateHandlerWithOptions(ctx, UpdateClose, s.close, workflow.UpdateHandlerOptions{
			Description: "Closes the session for good after its newest event; answers when the database has it, with a receipt.",
			Validator: func(c CloseRequest) error {
				switch {
				case strings.TrimSpace(c.Reason) == "":
					return errors.New("close needs a reason")
				case c.Quiet != 0:
					return errors.New("an update closes at once: to have the session wait for quiet, signal " + SignalClose)
				}
				return checkText(c.Reason)
			},
		}),
	)
}

func checkText(s string) error {
	switch {
	case len(s) > maxText:
		return fmt.Errorf("the reason has %d bytes, more than %d", len(s), maxText)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return errors.New("the reason is not UTF-8, or holds a NUL")
	}
	return nil
}

func (s *session) requestSnapshot(ctx workflow.Context, a SnapshotRequestArgs) (SnapshotRequestResult, error) {
	w := &snapshotWish{reason: a.Reason}
	s.wishes.snapshots = append(s.wishes.snapshots, w)
	err := s.await(ctx, func() bool { return w.asked != nil })
	if err != nil {
		return SnapshotRequestResult{}, err
	}
	return *w.asked, nil
}

func (s *session) drainAll(ctx workflow.Context) (AppliedState, error) {
	s.wishes.drains++
	mine := s.wishes.drains
	err := s.await(ctx, func() bool { return s.wishes.drained >= mine })
	return s.receipt(), err
}

func (s *session) close(ctx workflow.Context, c CloseRequest) (AppliedState, error) {
	if s.CloseReason == "" {
		s.CloseReason = c.Reason
	}
	s.CloseQuiet = 0
	s.wishes.drains++ // what was signalled before counts
	mine := s.wishes.drains
	err := s.await(ctx, func() bool { return s.wishes.drained >= mine })
	switch {
	case err != nil:
	case s.State.AsOf == 0:
		err = temporal.NewNonRetryableApplicationError("no event of the session is known: there is nothing to close", ErrNotDone, nil)
	case s.State.Closed == 0:
		err = temporal.NewNonRetryableApplicationError("the database refused the close: see the worker's log", ErrNotDone, nil)
	}
	return s.receipt(), err
}

// await waits in an update's handler, also in a session that is cancelled.
func (s *session) await(ctx workflow.Context, done func() bool) error {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	s.wishes.stir()
	err := workflow.Await(ctx, done)
	s.wishes.stir() // the loop may wait for this handler to end
	return err
}

// attend does what updates, the signal to close and the clock ask for, and
// reports whether that was anything. Told says that the session is to be closed,
// and has applied what came before it was told.
func (s *session) attend(ctx workflow.Context, told bool) bool {
	did := false
	if told && (s.Level > 0 || s.wishes.pending()) && !workflow.Now(ctx).Before(s.quietFrom()) {
		s.shut(ctx)
		did = true
	}
	if wishes := s.wishes.snapshots; len(wishes) > 0 {
		s.wishes.snapshots = nil
		asked := s.ask(ctx, wishes[0].reason) // one snapshot answers them all
		for _, w := range wishes {
			w.asked = &asked
		}
		did = true
	}
	did = s.look(ctx) || did
	return s.retest(ctx) || did
}

func (s *session) receipt() AppliedState {
	return AppliedState{
		AsOf: s.State.AsOf, Closed: s.State.Closed, Reason: s.State.Reason, Positions: slices.Clone(s.Positions),
		Events: s.Counters.Events, Signals: s.Counters.Signals,
	}
}

// Progress answers the query "progress": what the session is doing now.
type Progress struct {
	Sync           SyncState      `json:"sync_state"`
	PendingBatches int            `json:"pending_batches"`     // taken and not yet applied
	PendingBytes   int            `json:"pending_bytes"`       // of their signals
	InFlight       string         `json:"in_flight,omitempty"` // what the session waits for
	InFlightSince  time.Time      `json:"in_flight_since,omitzero"`
	Escalated      bool           `json:"escalated,omitempty"`      // the local activity did not succeed: a regular one is tried until it does
	LastError      string         `json:"last_error,omitempty"`     // of a local activity that did not succeed, the newest in this run
	LastErrorAt    time.Time      `json:"last_error_at,omitzero"`   //
	NextTimer      time.Time      `json:"next_timer,omitzero"`      // when the session next looks at the clock
	NextRequest    time.Time      `json:"next_request,omitzero"`    // when it asks for a snapshot, unless it is whole by then
	Requests       int            `json:"requests,omitempty"`       // sent for the gap there is
	LastRequest    RequestOutcome `json:"last_request,omitempty"`   // what became of the newest
	LastRequestAt  time.Time      `json:"last_request_at,omitzero"` //
	Runs           int            `json:"runs"`                     // of this chain, this one included
	Signals        int            `json:"signals_in_run"`
}

// doing is what the session waits for just now.
type doing struct {
	what      string
	since     time.Time
	escalated bool
	err       string // the newest
	errAt     time.Time
}

func (s *session) progress() Progress {
	return Progress{
		Sync: s.Sync, PendingBatches: len(s.Waiting) + len(s.PendingRefusals), PendingBytes: s.bytes(),
		InFlight: s.doing.what, InFlightSince: s.doing.since, Escalated: s.doing.what != "" && s.doing.escalated,
		LastError: s.doing.err, LastErrorAt: s.doing.errAt,
		NextTimer: s.alarm.at, NextRequest: s.Repair.NextTryAt, Requests: s.Repair.Sent,
		LastRequest: s.Repair.Outcome, LastRequestAt: s.Repair.LastTryAt,
		Runs: s.Runs, Signals: s.signals,
	}
}
