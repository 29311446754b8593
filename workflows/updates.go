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

// RequestOutcome is what became of a request for a snapshot.
type RequestOutcome string

// Outcomes of a request for a snapshot.
const (
	RequestSent     RequestOutcome = "sent"     // Kafka has the command
	RequestDeferred RequestOutcome = "later"    // the worker's rate limit is reached, or Kafka does not answer
	RequestDisabled RequestOutcome = "disabled" // this worker has no Kafka to send it to
)

// SnapshotRequestResult answers a request for a snapshot. The snapshot itself
// comes as an event.
type SnapshotRequestResult struct {
	Outcome RequestOutcome `json:"outcome"`
	Command string         `json:"command,omitempty"` // ID of the command, where it was sent
	Detail  string         `json:"detail,omitempty"`
	Expires time.Time      `json:"expires,omitzero"`
	Wait    time.Duration  `json:"wait,omitempty"` // of "later": when this worker may send one; 0: not known
}

// ReloadArgs is the argument of the update reload.
type ReloadArgs struct {
	Reason string `json:"reason,omitempty"` // why, for people
}

// ReloadResult answers the update reload: what the session was and is, and what
// became of its request for a snapshot.
type ReloadResult struct {
	Mismatch *Mismatch             `json:"mismatch,omitempty"` // nil: the database had the row that the session believed
	Lost     device.SeqSet         `json:"lost,omitempty"`     // seqs that the database lacks and a snapshot has to bring back
	AsOf     int64                 `json:"as_of_seq"`          // of the database
	Snapshot SnapshotRequestResult `json:"snapshot"`
}

// CloseRequest is the argument of the update close, and of the signal.
type CloseRequest struct {
	Reason string `json:"reason"`
	// Quiet, of a signal, is how long no batch must have come for the session
	// before it is closed: what is still on its way would be refused. 0: it is
	// closed at once.
	Quiet time.Duration `json:"quiet,omitempty"`
}

// AppliedState is what the database has of a session: the answer to the updates
// drain and close.
type AppliedState struct {
	AsOf      int64             `json:"as_of_seq"`
	Closed    int64             `json:"closed_seq,omitempty"`
	Reason    string            `json:"closed_reason,omitempty"`
	Positions []device.Position `json:"positions"`
	Events    int64             `json:"events"`  // applied since the chain of runs began
	Signals   int64             `json:"signals"` // received since then
}

// ErrNotDone is the type of the application error with which an accepted update
// says that it could not do what it was for.
const ErrNotDone = "NotDone"

// maxReason bounds the reason that people give in an update, in bytes.
const maxReason = 300

// updateRequests is what updates have asked the session for.
//
// Invariant: a handler only notes its request, wakes the loop and waits. The
// session's one loop does all the work, between two applies.
type updateRequests struct {
	drainsRequested, drainsDone int // counted: a drain is done when drainsDone has reached it
	snapshots                   []*snapshotUpdate
	reloads                     []*reloadUpdate
	wake                        workflow.Channel // of capacity 1
}

// snapshotUpdate is an update request-snapshot that waits for its result.
type snapshotUpdate struct {
	reason string
	result *SnapshotRequestResult // nil: not yet
}

// reloadUpdate is an update reload that waits for its result.
type reloadUpdate struct {
	reason string
	result *ReloadResult // nil: not yet
}

// pending reports whether the loop has something to do for an update.
func (u *updateRequests) pending() bool {
	return u.drainsDone < u.drainsRequested || len(u.snapshots) > 0 || len(u.reloads) > 0
}

// wakeLoop wakes the loop. It does nothing where the loop is awake or about to be.
func (u *updateRequests) wakeLoop() { u.wake.SendAsync(struct{}{}) }

func (s *session) setUpdateHandlers(ctx workflow.Context) error {
	return errors.Join(
		workflow.SetUpdateHandlerWithOptions(ctx, UpdateRequestSnapshot, s.handleRequestSnapshot, workflow.UpdateHandlerOptions{
			Description: "Asks the edge for a snapshot now; answers what became of the request, not with the snapshot.",
			Validator: func(a SnapshotRequestArgs) error {
				if s.State.Closed > 0 {
					return fmt.Errorf("the session was closed at seq %d", s.State.Closed)
				}
				return checkReason(a.Reason)
			},
		}),
		workflow.SetUpdateHandlerWithOptions(ctx, UpdateReload, s.handleReload, workflow.UpdateHandlerOptions{
			Description: "Takes what the database has of the session for the session's own, and asks the edge for a snapshot, which heals what differs.",
			Validator: func(a ReloadArgs) error {
				if s.State.Closed > 0 {
					return fmt.Errorf("the session was closed at seq %d", s.State.Closed)
				}
				return checkReason(a.Reason)
			},
		}),
		workflow.SetUpdateHandlerWithOptions(ctx, UpdateDrain, s.handleDrain, workflow.UpdateHandlerOptions{
			Description: "Answers when the database has all that was signalled before, with what it then has.",
		}),
		workflow.SetUpdateHandlerWithOptions(ctx, UpdateClose, s.handleClose, workflow.UpdateHandlerOptions{
			Description: "Closes the session after its newest event until an event past it comes; answers when the database has it, with what it then has.",
			Validator: func(c CloseRequest) error {
				switch {
				case strings.TrimSpace(c.Reason) == "":
					return errors.New("close needs a reason")
				case c.Quiet != 0:
					return errors.New("an update closes at once: to have the session wait for quiet, signal " + SignalClose)
				}
				return checkReason(c.Reason)
			},
		}),
	)
}

func checkReason(s string) error {
	switch {
	case len(s) > maxReason:
		return fmt.Errorf("the reason has %d bytes, more than %d", len(s), maxReason)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return errors.New("the reason is not UTF-8, or holds a NUL")
	}
	return nil
}

func (s *session) handleRequestSnapshot(ctx workflow.Context, a SnapshotRequestArgs) (SnapshotRequestResult, error) {
	u := &snapshotUpdate{reason: a.Reason}
	s.updates.snapshots = append(s.updates.snapshots, u)
	err := s.awaitLoop(ctx, func() bool { return u.result != nil })
	if err != nil {
		return SnapshotRequestResult{}, err
	}
	return *u.result, nil
}

func (s *session) handleReload(ctx workflow.Context, a ReloadArgs) (ReloadResult, error) {
	u := &reloadUpdate{reason: a.Reason}
	s.updates.reloads = append(s.updates.reloads, u)
	if err := s.awaitLoop(ctx, func() bool { return u.result != nil }); err != nil {
		return ReloadResult{}, err
	}
	return *u.result, nil
}

func (s *session) handleDrain(ctx workflow.Context) (AppliedState, error) {
	err := s.awaitDrain(ctx)
	return s.appliedState(), err
}

func (s *session) handleClose(ctx workflow.Context, c CloseRequest) (AppliedState, error) {
	if s.CloseReason == "" {
		s.CloseReason = c.Reason
	}
	s.CloseQuiet = 0
	err := s.awaitDrain(ctx) // what was signalled before the update counts
	switch {
	case err != nil:
	case s.State.AsOf == 0:
		err = temporal.NewNonRetryableApplicationError("no event of the session is known: there is nothing to close", ErrNotDone, nil)
	case s.State.Closed == 0:
		err = temporal.NewNonRetryableApplicationError("the database refused the close: see the worker's log", ErrNotDone, nil)
	}
	return s.appliedState(), err
}

// awaitDrain waits, in an update's handler, until the database has all that was
// signalled before.
func (s *session) awaitDrain(ctx workflow.Context) error {
	s.updates.drainsRequested++
	n := s.updates.drainsRequested
	return s.awaitLoop(ctx, func() bool { return s.updates.drainsDone >= n })
}

// awaitLoop wakes the loop and waits, in an update's handler, until it has done
// what the handler asked for. It does so in a session that is cancelled, too.
func (s *session) awaitLoop(ctx workflow.Context, done func() bool) error {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	s.updates.wakeLoop()
	err := workflow.Await(ctx, done)
	s.updates.wakeLoop() // the loop may wait for this handler to return
	return err
}

// serveRequests does what updates and signals ask for, and what is due by the
// clock. It reports whether anything was. closeRequested says that a close was
// asked for before the batches that are now applied were received: those that had
// come before the request count.
func (s *session) serveRequests(ctx workflow.Context, closeRequested bool) bool {
	worked := false
	if closeRequested && !workflow.Now(ctx).Before(s.closeAt()) {
		s.closeSession(ctx)
		worked = true
	}
	if updates := s.updates.snapshots; len(updates) > 0 {
		s.updates.snapshots = nil
		result := s.requestSnapshot(ctx, updates[0].reason) // one snapshot answers them all
		for _, u := range updates {
			u.result = &result
		}
		worked = true
	}
	if updates := s.updates.reloads; len(updates) > 0 {
		s.updates.reloads = nil
		result := s.reloadForPerson(ctx, updates[0].reason)
		for _, u := range updates {
			u.result = &result
		}
		worked = true
	}
	worked = s.handleDeadlines(ctx) || worked
	return s.refreshTestState(ctx) || worked
}

func (s *session) appliedState() AppliedState {
	return AppliedState{
		AsOf: s.State.AsOf, Closed: s.State.Closed, Reason: s.State.Reason, Positions: slices.Clone(s.Positions),
		Events: s.Counters.Events, Signals: s.Counters.Signals,
	}
}
