// Package workflows holds the DeviceSession workflow: the one writer of a
// device session's record in the cloud.
//
// One workflow runs for each session. It takes batches of events as signals,
// keeps out what came before, folds the rest into the session's state, and has
// one apply at a time written to the database. Only then does its own state
// move: what a query shows is what the database has.
//
// Everything here is deterministic: no clock but workflow.Now, no randomness,
// no map in iteration order, no I/O. `workflowcheck -config
// workflows/workflowcheck.yaml ./workflows/...` and the replay tests over
// testdata/*.json guard that.
package workflows
