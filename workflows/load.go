package workflows

import (
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
		loaded = s.readStored("load session " + s.id)
	}
	s.SearchAttributes = loaded.SearchAttributes
	if !s.inFlight.escalated { // the answer is from this very worker, not from another build
		s.Level = loaded.Level
	}
	s.raiseLevel(ctx)
	s.takeStored(loaded)
	s.Sync, s.SyncSince = SyncLive, workflow.Now(ctx)
	s.updateSyncState(ctx)
	if answered && !loaded.Found {
		s.Waiting = slices.Delete(s.Waiting, 0, 1)
		s.Revision = first.request.revision()
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
	first.request.identify(Revision{})
	return first, s.executeActivity(ActivityApplyBatch, s.summary(&first), first.request, loaded) == nil
}
