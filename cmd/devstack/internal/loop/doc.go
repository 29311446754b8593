// Package loop holds the benchmark of the session worker on the real Temporal
// Server: what a session's apply costs beside the floor, which is the same loop
// with a workflow and an activity that do nothing.
package loop
