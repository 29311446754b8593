package workflows

import (
	"fmt"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Register registers the workflows with a worker, under their names.
func Register(r worker.WorkflowRegistry) {
	r.RegisterWorkflowWithOptions(DeviceSession, workflow.RegisterOptions{Name: DeviceSessionName})
}

// DeviceSession keeps one device session's record until the session is closed.
// A signal with start begins it. It completes when the closed event is applied
// and nothing waits, or when it was idle for long enough; a later signal starts
// it again with what the database knows. It has no retry policy and no timeout,
// and does not fail. When it is cancelled it first finishes what it has taken,
// however long the database is away. When it is terminated nothing is lost
// either: what was not applied has no position in the database, so the poller
// sends it again.
//
// It fails only where its input names no session, or its workflow ID is not that
// session's: two workflows must never write one session.
func DeviceSession(ctx workflow.Context, in Input) (Result, error) {
	return runSession(ctx, in, Level)
}

// runSession is DeviceSession as code of that level.
func runSession(ctx workflow.Context, in Input, codeLevel int) (Result, error) {
	if err := checkInput(ctx, in); err != nil {
		return Result{}, temporal.NewNonRetryableApplicationError(err.Error(), ErrBadInput, nil)
	}
	s := &session{
		CarriedState: in.Carried.nextRun(),
		rae:          in.RAE,
		id:           in.Session,
		codeLevel:    codeLevel,
		options:      in.Options.withDefaults(),
		inputOptions: in.Options,
		log:          log.With(workflow.GetLogger(ctx), "session", in.Session, "rae", in.RAE),
	}
	if err := s.setUp(ctx); err != nil {
		return Result{}, err
	}
	return s.run(ctx)
}

func checkInput(ctx workflow.Context, in Input) error {
	if err := device.CheckSession(in.Session); err != nil {
		return err
	}
	if err := device.CheckRAE(in.RAE); err != nil {
		return err
	}
	if id := workflow.GetInfo(ctx).WorkflowExecution.ID; id != device.WorkflowID(in.Session) {
		return fmt.Errorf("workflow ID %q is not %q", clip(id), device.WorkflowID(in.Session))
	}
	return nil
}

// session is one run of a DeviceSession. What outlives the run is in
// CarriedState.
//
// Invariant: State, Positions and the counters change only after an apply
// succeeded, and then together. A batch leaves Waiting only then, or as a
// duplicate. So nothing is lost, however an apply, a worker or a run ends.
type session struct {
	CarriedState
	rae, id      string
	codeLevel    int // of this worker's code; Level is the session's own
	options      Options
	inputOptions Options // without the defaults, for the next run
	log          log.Logger

	eventSignals     workflow.ReceiveChannel
	nudgeSignals     workflow.ReceiveChannel
	closeSignals     workflow.ReceiveChannel
	testStateSignals workflow.ReceiveChannel

	updates  updateRequests
	timer    wakeTimer
	inFlight activityStatus
	// uncancelled is the context of everything that must be finished once it
	// was begun: it is not cancelled with the workflow.
	uncancelled workflow.Context

	signalsInRun       int
	mismatches         int    // in a row: see pauseBetweenMismatches
	nudged             bool   // in this run
	continuePending    bool   // it continues as new once updates have their answers
	cancelled          bool   // the workflow was asked to stop
	idleTimeoutReached bool   // and nothing came since
	shownCard          string // the status card as it is shown
}

// setUp registers the session's query, update and signal handlers.
func (s *session) setUp(ctx workflow.Context) error {
	s.updates.wake = workflow.NewBufferedChannel(ctx, 1)
	err := workflow.SetQueryHandlerWithOptions(ctx, QueryState, func() (StateView, error) { return s.stateView(), nil },
		workflow.QueryHandlerOptions{Description: "The session's record as the database has it: attributes, as-of seq, sync state, missing ranges, counters, ingest positions."})
	if err != nil {
		return fmt.Errorf("set query handler: %w", err)
	}
	err = workflow.SetQueryHandlerWithOptions(ctx, QueryProgress, func() (Progress, error) { return s.progress(), nil },
		workflow.QueryHandlerOptions{Description: "What the session is doing: what waits, what is in flight and since when, the last error, the next timer."})
	if err != nil {
		return fmt.Errorf("set query handler: %w", err)
	}
	if err := s.setUpdateHandlers(ctx); err != nil {
		return fmt.Errorf("set update handlers: %w", err)
	}
	s.eventSignals = workflow.GetSignalChannelWithOptions(ctx, device.SignalEvents, workflow.SignalChannelOptions{
		Description: "A batch: a fold of the session's events and the Kafka coordinates it covers. Sent by the poller.",
	})
	s.nudgeSignals = workflow.GetSignalChannelWithOptions(ctx, SignalNudge, workflow.SignalChannelOptions{
		Description: "Wakes an idle session, which then moves to the worker version it should run on. It changes and counts nothing.",
	})
	s.closeSignals = workflow.GetSignalChannelWithOptions(ctx, SignalClose, workflow.SignalChannelOptions{
		Description: "Closes the session after its newest event until an event past it comes, as the update close. Sent by a newer session of the same device.",
	})
	s.testStateSignals = workflow.GetSignalChannelWithOptions(ctx, SignalTestState, workflow.SignalChannelOptions{
		Description: "Has the session read its device's test state from the database. Sent by who has changed it there. It counts as no event.",
	})
	s.uncancelled, _ = workflow.NewDisconnectedContext(ctx)
	if s.Sync != SyncLoading {
		s.raiseLevel(ctx)
		s.show(ctx)
	}
	return nil
}

// run is the session's one loop: receive signals, apply them, answer updates, do
// what is due, show the result, and wait for more.
//
// Invariant: it never blocks while anything that it could do waits.
func (s *session) run(ctx workflow.Context) (Result, error) {
	wake := s.newWakeSelector(ctx)
	for {
		s.receiveCloseSignals(ctx)
		closeRequested, drains := s.CloseReason != "", s.updates.drainsRequested // before what is received now
		receivedAll := s.receiveBatches(ctx, s.options.TurnBytes)
		worked := s.Sync == SyncLoading || !s.nothingWaits()
		if worked {
			s.applyWaiting(ctx)
		}
		if receivedAll && s.nothingWaits() {
			worked = s.serveRequests(ctx, closeRequested) || worked
			s.updates.drainsDone = drains
		}
		reason := s.continueAsNewReason(ctx)
		if worked {
			s.show(ctx)
		}
		if reason != "" && (worked || s.nudged || s.continuePending) {
			s.continuePending = !workflow.AllHandlersFinished(ctx)
			if !s.continuePending && s.receiveBatches(ctx, s.options.CarryBytes) {
				return Result{}, s.continueAsNew(ctx, reason)
			}
		}
		switch {
		case worked || s.updates.pending() || !s.nothingWaits():
			continue
		case s.State.Closed == 0 && !s.cancelled && !s.idleTimeoutReached:
			s.armTimer(ctx, wake)
			wake.Select(ctx)
		case workflow.AllHandlersFinished(ctx):
			return s.complete(ctx)
		default:
			_ = workflow.Await(s.uncancelled, func() bool { return s.updates.pending() || workflow.AllHandlersFinished(ctx) })
		}
	}
}

// newWakeSelector selects over everything that ends the loop's wait.
func (s *session) newWakeSelector(ctx workflow.Context) workflow.Selector {
	wake := workflow.NewSelector(ctx)
	wake.AddReceive(s.eventSignals, func(c workflow.ReceiveChannel, _ bool) {
		var raw converter.RawValue
		c.Receive(ctx, &raw)
		s.takeSignal(ctx, raw)
	})
	wake.AddReceive(s.nudgeSignals, func(c workflow.ReceiveChannel, _ bool) {
		c.Receive(ctx, nil)
		s.nudged = true
	})
	wake.AddReceive(s.closeSignals, func(workflow.ReceiveChannel, bool) { s.receiveCloseSignals(ctx) })
	wake.AddReceive(s.testStateSignals, func(workflow.ReceiveChannel, bool) {}) // refreshTestState receives them
	wake.AddReceive(s.updates.wake, func(c workflow.ReceiveChannel, _ bool) { c.Receive(ctx, nil) })
	wake.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) { s.cancelled = true })
	return wake
}

// complete ends the workflow.
//
// Requires: nothing waits to be applied, and no update waits for its answer.
func (s *session) complete(ctx workflow.Context) (Result, error) {
	switch {
	case s.State.Closed > 0:
		s.count(ctx, metricEnded, "reason", "closed")
	case s.cancelled:
		s.count(ctx, metricEnded, "reason", "cancelled")
		return Result{}, ctx.Err()
	default:
		s.count(ctx, metricEnded, "reason", "idle")
		s.log.Info("session is idle and completes: its next event starts it again", "as_of", s.State.AsOf)
	}
	return s.result(), nil
}

// continueAsNewReason says why the session should continue as new now; empty: it
// should not.
func (s *session) continueAsNewReason(ctx workflow.Context) string {
	info := workflow.GetInfo(ctx)
	switch {
	case s.cancelled || s.State.Closed > 0 && s.nothingWaits():
		return "" // it completes instead
	case info.GetTargetWorkerDeploymentVersionChanged():
		return "version"
	case info.GetContinueAsNewSuggested():
		return "suggested"
	case s.signalsInRun >= s.options.SignalsPerRun:
		return "signals"
	}
	return ""
}

// continueAsNew hands everything on to the next run.
//
// Invariant: no signal is lost. Requires that the event channel was emptied, and
// that nothing has blocked since. A signal that arrives later makes the server
// refuse the command, and the SDK runs the workflow task again with it.
func (s *session) continueAsNew(ctx workflow.Context, reason string) error {
	s.count(ctx, metricContinued, "reason", reason)
	for s.nudgeSignals.ReceiveAsync(nil) {
		s.nudged = true // a new run is what a nudge is for
	}
	s.receiveCloseSignals(ctx)
	s.receiveTestStateSignals()
	in := Input{RAE: s.rae, Session: s.id, Carried: &s.CarriedState, Options: s.inputOptions}
	var options workflow.ContinueAsNewErrorOptions
	if reason == "version" {
		options.InitialVersioningBehavior = workflow.ContinueAsNewVersioningBehaviorAutoUpgrade
	}
	return workflow.NewContinueAsNewErrorWithOptions(ctx, options, DeviceSessionName, in)
}
