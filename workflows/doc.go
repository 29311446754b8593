// Package workflows holds the DeviceSession workflow: the one writer of a device
// session's record in the cloud.
//
// One workflow runs for each session. It receives batches of events as signals,
// drops duplicates, folds the rest into the session's state, and executes one apply
// at a time.
//
// Invariant: its own state changes only after the database has an apply. What a
// query shows is what the database has.
//
// Everything here is deterministic: no clock but workflow.Now, no randomness, no map
// in iteration order, no I/O. `workflowcheck -config workflows/workflowcheck.yaml
// ./workflows/...` checks that, and the replay tests over testdata/histories do.
//
//   - session.go: the workflow, its one loop, and how it continues as new
//   - level.go: which commands a session's history may have
//   - intake.go: signals become waiting batches, or refusals
//   - load.go, apply.go, execute.go: from waiting batches to the database and back
//   - reconcile.go, drift.go: gaps, requests for snapshots, and what a snapshot shows
//   - lifecycle.go, timer.go: how a session ends, and what is due when
//   - updates.go, teststate.go: what people ask for, and reserve
//   - contract.go, carried.go, views.go: what others and the next run read
//   - show.go, metrics.go: status card, search attributes, metrics
package workflows
