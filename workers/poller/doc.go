// Package poller carries device events from Kafka to the sessions' workflows,
// and commits an offset only when everything up to it is applied.
//
// A record is decoded, folded into its session's lane, and sent to the
// session's workflow with SignalWithStart, one un-applied batch a session. That
// Temporal accepted a signal says nothing about the database, so the poller
// reads the ingest positions back: they are the acks that free the window and
// let the Kafka offset be committed. When the load is light a record is
// signalled the moment it comes; when it is heavy the acks clock the source. No
// mode and no setting switches between the two.
//
// The parts, each with its invariant over it:
//
//	lane        a topic's folds: at most one in flight, the last one filling
//	assignment  one partition while it is ours: lock, offsets.Span, lanes, bytes
//	scheduler   which lane is next, and how many may be in flight
//	acker       reads positions of what is in flight
//	deadLetters dead letters, until their produce is acknowledged
//	valve       pauses and resumes partitions by what they hold
//	committer   commits, at a cadence and at each rebalance
//
// Locks are taken in this order: committer, valve, assignment. The scheduler's,
// the acker's and the dead letters' are leaves: nothing is called while they are held.
package poller
