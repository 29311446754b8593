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

// Register makes the workflows known to a worker, under their names.
func Register(r worker.WorkflowRegistry) {
	r.RegisterWorkflowWithOptions(DeviceSession, workflow.RegisterOptions{Name: DeviceSessionName})
}

// DeviceSession keeps one device session's record until the session is closed.
// A signal with start brings it to life; it ends when the closed event is
// applied and nothing waits, and a later signal starts it again with what the
// database knows. It has no retry policy and no timeout: it does not fail. A
// cancelled session first finishes what it has taken, however long the database
// makes it wait; a terminated one loses nothing either, because what was not
// applied has no position in the database and is sent again.
//
// The exception is an input that names no session, or a workflow ID that is not
// that session's: two workflows must never write one session.
func DeviceSession(ctx workflow.Context, in Input) (Result, error) {
	if err := checkInput(ctx, in); err != nil {
		return Result{}, temporal.NewNonRetryableApplicationError(err.Error(), ErrBadInput, nil)
	}
	s := &session{
		CarriedState: in.Carried.next(),
		rae:          in.RAE,
		id:           in.Session,
		options:      in.Options.withDefaults(),
		given:        in.Options,
		log:          log.With(workflow.GetLogger(ctx), "session", in.Session, "rae", in.RAE),
	}
	if err := s.setup(ctx); err != nil {
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

// session is one run of a DeviceSession. What outlives the run is in Carried.
//
// The invariant: State, Positions and the counters change only after an apply
// succeeded, and then all together. A batch leaves Waiting only then, or as a
// duplicate. So nothing is lost in whatever way an apply, a worker or a run
// ends.
type session struct {
	CarriedState
	rae, id string
	options Options
	given   Options // as they came, for the next run
	log     log.Logger

	inbox  workflow.ReceiveChannel
	nudges workflow.ReceiveChannel
	closes workflow.ReceiveChannel
	tests  workflow.ReceiveChannel
	wishes wishes
	alarm  alarm
	doing  doing
	// applies is the context of everything that must be finished once it was
	// begun: it is not cancelled with the workflow.
	applies   workflow.Context
	signals   int  // received in this run
	nudged    bool // in this run
	putOff    bool // to continue as new, until updates have their answers
	cancelled bool // the workflow was asked to stop
	ended     bool // it is idle for good
	details   string
}

// setup makes the session reachable.
func (s *session) setup(ctx workflow.Context) error {
	s.wishes.wake = workflow.NewBufferedChannel(ctx, 1)
	err := workflow.SetQueryHandlerWithOptions(ctx, QueryState, func() (StateView, error) { return s.view(), nil },
		workflow.QueryHandlerOptions{Description: "The session's record as the database has it: attributes, as-of seq, sync state, missing ranges, counters, ingest positions."})
	if err != nil {
		return fmt.Errorf("set query handler: %w", err)
	}
	err = workflow.SetQueryHandlerWithOptions(ctx, QueryProgress, func() (Progress, error) { return s.progress(), nil },
		workflow.QueryHandlerOptions{Description: "What the session is doing: what waits, what is in flight and since when, the last error, the next timer."})
	if err != nil {
		return fmt.Errorf("set query handler: %w", err)
	}
	if err := s.setUpdates(ctx); err != nil {
		return fmt.Errorf("set update handlers: %w", err)
	}
	s.inbox = workflow.GetSignalChannelWithOptions(ctx, device.SignalEvents, workflow.SignalChannelOptions{
		Description: "A batch: a fold of the session's events and the Kafka coordinates it covers. Sent by the poller.",
	})
	s.nudges = workflow.GetSignalChannelWithOptions(ctx, SignalNudge, workflow.SignalChannelOptions{
		Description: "Wakes an idle session, which then moves to the worker version it should run on. It changes and counts nothing.",
	})
	s.closes = workflow.GetSignalChannelWithOptions(ctx, SignalClose, workflow.SignalChannelOptions{
		Description: "Closes the session for good after its newest event, as the update close. Sent by a newer session of the same device.",
	})
	s.tests = workflow.GetSignalChannelWithOptions(ctx, SignalTestState, workflow.SignalChannelOptions{
		Description: "Has the session read its device's test state from the database. Sent by who has changed it there. It counts as no event.",
	})
	s.applies, _ = workflow.NewDisconnectedContext(ctx)
	if s.Sync != SyncLoading {
		s.raise(ctx)
		s.show(ctx)
	}
	return nil
}

// load picks up a session that an earlier chain of runs has written. Most have
// none: the batch that brought the session to life is then applied in the same
// activity.
func (s *session) load(ctx workflow.Context) {
	var loaded LoadedSession
	first, taken := s.introduce(&loaded)
	if !taken {
		if err := s.execute(ActivityLoadSession, "load session "+s.id, s.id, &loaded); err != nil {
			panic(fmt.Sprintf("session %s: a load was refused: %v", s.id, err)) // it writes nothing that could be
		}
	}
	s.SearchAttributes = loaded.SearchAttributes
	if !s.doing.escalated { // it was this worker that answered
		s.Level = loaded.Level
	}
	s.raise(ctx)
	s.know(loaded.TestState)
	s.Positions = loaded.Positions
	s.Counters.add(loaded.Counters)
	if loaded.Found && loaded.State.AsOf > 0 {
		// A row without an event holds positions only: it was written to
		// step over a refused batch.
		s.State = loaded.State
		if s.State.RAE != s.rae {
			s.log.Warn("session was started for another RAE than it is of", "session_rae", s.State.RAE)
			s.rae = s.State.RAE
			s.disown(workflow.Now(ctx))
		}
	}
	s.Sync, s.SyncSince = SyncLive, workflow.Now(ctx)
	s.judge(ctx)
	if taken && !loaded.Found {
		s.Waiting = nil
		s.done(ctx, first)
	}
	s.supersede(ctx, loaded.OlderSessions, loaded.NewerSession)
}

// introduce applies the one batch that waits as that of a new session, and
// reports whether the database answered. What it refuses is left for the turn
// to find out about, and so is everything but the usual case.
func (s *session) introduce(loaded *LoadedSession) (step, bool) {
	if len(s.Waiting) != 1 || len(s.PendingRefusals) > 0 {
		return step{}, false
	}
	first := s.plan(merge([]device.Batch{s.Waiting[0].Batch}), workflow.Now(s.applies))
	first.request.NewSession = true
	return first, s.execute(ActivityApplyBatch, first.summary(), first.request, loaded) == nil
}

// run is the session's life: wait, take, apply, show.
func (s *session) run(ctx workflow.Context) (Result, error) {
	woken := s.wakers(ctx)
	for {
		s.toldToClose(ctx)
		told, asked := s.CloseReason != "", s.wishes.drains // before what is taken now
		all := s.drain(ctx, s.options.TurnBytes)
		worked := s.Sync == SyncLoading || !s.idle()
		if worked {
			s.turn(ctx)
		}
		if all && s.idle() {
			worked = s.attend(ctx, told) || worked
			s.wishes.drained = asked
		}
		why := s.due(ctx)
		if worked {
			s.show(ctx)
		}
		if why != "" && (worked || s.nudged || s.putOff) {
			s.putOff = !workflow.AllHandlersFinished(ctx)
			if !s.putOff && s.drain(ctx, s.options.CarryBytes) {
				return Result{}, s.continueAsNew(ctx, why)
			}
		}
		switch {
		case worked || s.wishes.pending() || !s.idle():
			continue
		case s.State.Closed == 0 && !s.cancelled && !s.ended:
			s.arm(ctx, woken)
			woken.Select(ctx)
		case workflow.AllHandlersFinished(ctx):
			return s.end(ctx)
		default:
			_ = workflow.Await(s.applies, func() bool { return s.wishes.pending() || workflow.AllHandlersFinished(ctx) })
		}
	}
}

// wakers is what a session that has nothing to do waits for.
func (s *session) wakers(ctx workflow.Context) workflow.Selector {
	woken := workflow.NewSelector(ctx)
	woken.AddReceive(s.inbox, func(c workflow.ReceiveChannel, _ bool) {
		var raw converter.RawValue
		c.Receive(ctx, &raw)
		s.take(ctx, raw)
	})
	woken.AddReceive(s.nudges, func(c workflow.ReceiveChannel, _ bool) {
		c.Receive(ctx, nil)
		s.nudged = true
	})
	woken.AddReceive(s.closes, func(workflow.ReceiveChannel, bool) { s.toldToClose(ctx) })
	woken.AddReceive(s.tests, func(workflow.ReceiveChannel, bool) {}) // attend takes them
	woken.AddReceive(s.wishes.wake, func(c workflow.ReceiveChannel, _ bool) { c.Receive(ctx, nil) })
	woken.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) { s.cancelled = true })
	return woken
}

// end completes the workflow. Nothing waits, and no update does.
func (s *session) end(ctx workflow.Context) (Result, error) {
	switch {
	case s.State.Closed > 0:
		s.count(ctx, metricEnded, "reason", "closed")
	case s.cancelled:
		s.count(ctx, metricEnded, "reason", "cancelled")
		return Result{}, ctx.Err()
	default:
		s.count(ctx, metricEnded, "reason", "idle")
		s.log.Info("session ends as idle: its next event starts it again", "as_of", s.State.AsOf)
	}
	return s.result(), nil
}

// due says why the session should continue as new now, or nothing.
func (s *session) due(ctx workflow.Context) string {
	info := workflow.GetInfo(ctx)
	switch {
	case s.cancelled || s.State.Closed > 0 && s.idle():
		return "" // it ends instead
	case info.GetTargetWorkerDeploymentVersionChanged():
		return "version"
	case info.GetContinueAsNewSuggested():
		return "suggested"
	case s.signals >= s.options.SignalsPerRun:
		return "signals"
	}
	return ""
}

// continueAsNew hands everything on. The channel was drained in this very step
// of the workflow, with nothing that blocks since: a signal that comes later
// makes the server refuse the command, and the step is run again with it.
func (s *session) continueAsNew(ctx workflow.Context, why string) error {
	s.count(ctx, metricContinued, "reason", why)
	for s.nudges.ReceiveAsync(nil) {
		s.nudged = true // and has what it wants
	}
	s.toldToClose(ctx)
	s.forgetTest()
	in := Input{RAE: s.rae, Session: s.id, Carried: &s.CarriedState, Options: s.given}
	var options workflow.ContinueAsNewErrorOptions
	if why == "version" {
		options.InitialVersioningBehavior = workflow.ContinueAsNewVersioningBehaviorAutoUpgrade
	}
	return workflow.NewContinueAsNewErrorWithOptions(ctx, options, DeviceSessionName, in)
}
