package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Metrics of the workflow. The SDK's handler counts them once, however often a
// history is replayed. The Prometheus bridge adds _total to each name.
const (
	metricEvents     = "rollcall_session_events"          // applied, each once
	metricDuplicates = "rollcall_session_duplicates"      // events that had been applied before
	metricAfterClose = "rollcall_session_after_close"     // events refused after the close
	metricOverLimit  = "rollcall_session_over_limit"      // attributes refused at the state's limits
	metricRepaired   = "rollcall_session_repaired"        // attributes that a snapshot had to correct
	metricGaps       = "rollcall_session_gaps"            // times a session went from live to gap
	metricRefused    = "rollcall_session_refused_batches" // by cause
	metricEscalated  = "rollcall_session_escalations"     // local activities that became regular ones, by activity
	metricContinued  = "rollcall_session_continued"       // continue-as-new, by reason
	metricStale      = "rollcall_session_stale"           // attribute writes that lost against a newer seq
	metricDrift      = "rollcall_session_drift"           // attributes that differed from a snapshot though no event was missing
	metricRequests   = "rollcall_session_requests"        // tries to request a snapshot, by outcome
	metricSuperseded = "rollcall_session_superseded"      // sessions closed because their device opened a newer one
	metricMismatches = "rollcall_session_mismatches"      // times the database lacked what had been applied
	metricReopened   = "rollcall_session_reopened"        // sessions reopened by an event past a close that no edge had sent
	metricEnded      = "rollcall_session_ended"           // workflows that completed, by reason
)

func (s *session) add(ctx workflow.Context, name string, n int64) {
	if n > 0 {
		workflow.GetMetricsHandler(ctx).Counter(name).Inc(n)
	}
}

func (s *session) count(ctx workflow.Context, name, label, value string) {
	workflow.GetMetricsHandler(ctx).WithTags(map[string]string{label: value}).Counter(name).Inc(1)
}

// reportApply counts and logs an apply that the database has.
func (s *session) reportApply(ctx workflow.Context, r ApplyRequest, c device.Change) {
	s.add(ctx, metricEvents, r.Events)
	s.add(ctx, metricDuplicates, r.Duplicates)
	s.add(ctx, metricAfterClose, r.AfterClose)
	s.add(ctx, metricStale, r.Stale)
	s.add(ctx, metricReopened, r.Reopened)
	s.add(ctx, metricOverLimit, int64(len(c.OverLimit)))
	s.add(ctx, metricRepaired, int64(len(c.Repaired)))
	if len(c.OverLimit) > 0 {
		s.log.Error("attributes refused: the session's state would no longer fit one event", "attributes", c.OverLimit, "as_of", r.AsOf)
	}
	if c.AfterClose > 0 {
		s.log.Warn("events refused: the session was closed before them", "events", c.AfterClose, "closed", r.Closed)
	}
	if len(c.Repaired) > 0 || len(c.Healed) > 0 {
		s.log.Info("snapshot applied", "snapshot", r.Snapshot, "healed", c.Healed.String(), "repaired", c.Repaired)
	}
}
