package workflows

import (
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// loadSession begins a chain of runs with what the database knows of the session.
// For most sessions that is nothing, and the batch that started the workflow is
// then applied by the same activity.
func (s *session) loadSession(ctx workflow.Context) {
	var loaded LoadedSession
	first, answered := s.applyAsNewSession(&loaded)
	if !answered {
		if err := s.executeActivity(ActivityLoadSession, "load session "+s.id, s.id, &loaded); err != nil {
			panic(fmt.Sprintf("session %s: a load was refused: %v", s.id, err)) // a load writes nothing that could be refused
		}
	}
	s.SearchAttributes = loaded.SearchAttributes
	if !s.inFlight.escalated { // the answer is from this very worker, not from another build
		s.Level = loaded.Level
	}
	s.raiseLevel(ctx)
	s.setTestState(loaded.TestState)
	s.Positions = slices.DeleteFunc(loaded.Positions, device.Position.IsForeign)
	s.Counters.addStored(loaded.Counters)
	if loaded.Found && loaded.State.AsOf > 0 {
		// A row without an event holds positions only: it was written to quarantine a
		// refused batch.
		s.State = loaded.State
		if s.State.RAE != s.rae {
			s.log.Warn("session was started with another RAE than its own", "session_rae", s.State.RAE)
			s.rae = s.State.RAE
		}
	}
	s.Sync, s.SyncSince = SyncLive, workflow.Now(ctx)
	s.updateSyncState(ctx)
	if answered && !loaded.Found {
		s.Waiting = slices.Delete(s.Waiting, 0, 1)
		s.recordApply(ctx, first)
	}
	s.rejectForeignBatches(workflow.Now(ctx))
	s.resolveRivals(ctx, loaded.OlderSessions, loaded.NewerSession)
}

// applyAsNewSession applies the one batch that waits as the first of a new
// session, and reports whether the database answered. It does so only in the
// usual case of a single batch. A refusal is left to applyWaiting, which tries the
// batch again and records it.
func (s *session) applyAsNewSession(loaded *LoadedSession) (plannedApply, bool) {
	if len(s.Waiting) != 1 || len(s.PendingRefusals) > 0 || s.Waiting[0].Batch.Fold.RAE != s.rae {
		return plannedApply{}, false
	}
	first := s.planApply(foldBatches([]device.Batch{s.Waiting[0].Batch}), workflow.Now(s.uncancelled))
	first.request.NewSession = true
	return first, s.executeActivity(ActivityApplyBatch, first.summary(), first.request, loaded) == nil
}
