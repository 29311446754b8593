package workflows

import "go.temporal.io/sdk/workflow"

// Level numbers what the workflow code of a worker may do. A change that adds,
// removes or reorders commands (timers, activities, search attributes) raises it
// by one, and does the new thing only where the session's own level is high
// enough: a replay must find the commands that its history has.
//
// Level 1 is the code of the first release. Level 0 is that of a session whose
// history does not say yet: see session.raiseLevel.
//
// The worker's level reaches a session in the answer to the load that begins a
// chain of runs. That load is a local activity, so the answer comes from the very
// process that runs the workflow, and is in the history already: it costs no
// marker. The session carries its level from run to run.
const Level = 1

// raiseLevel brings a session that older code began to the level of this code.
// workflow.GetVersion decides it, and so writes a marker, once in a run: a history
// that older code wrote has none, and keeps its level until the run ends.
//
// It also fills in the times that a session of no level does not have.
func (s *session) raiseLevel(ctx workflow.Context) {
	if s.Level < s.codeLevel {
		s.Level = max(s.Level, int(workflow.GetVersion(ctx, "level", workflow.DefaultVersion, workflow.Version(s.codeLevel))))
	}
	if s.LastSnapshotAt.IsZero() {
		s.LastSnapshotAt = workflow.Now(ctx)
	}
	if s.LastSignalAt.IsZero() {
		s.LastSignalAt = workflow.Now(ctx)
	}
}
