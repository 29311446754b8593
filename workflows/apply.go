package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// applyWaiting applies all that waits: one apply in the common case. In the first
// run of a chain it loads the session first.
func (s *session) applyWaiting(ctx workflow.Context) {
	if s.Sync == SyncLoading {
		s.loadSession(ctx)
	}
	for _, group := range splitAfterClose(s.newBatches(ctx)) {
		s.applyGroup(ctx, group)
	}
	s.Waiting = nil
	s.quarantineRefusals(ctx)
}

// splitAfterClose splits batches behind each one that closes the session. What
// comes after a close would, in the same fold, hide what came before it.
func splitAfterClose(batches []device.Batch) [][]device.Batch {
	var groups [][]device.Batch
	first := 0
	for i, b := range batches {
		if b.Fold.Closed != 0 || i == len(batches)-1 {
			groups = append(groups, batches[first:i+1])
			first = i + 1
		}
	}
	return groups
}

// applyGroup applies batches in one apply. Where the database refuses that, it
// applies each by itself, so that only a batch at fault is kept out.
func (s *session) applyGroup(ctx workflow.Context, batches []device.Batch) {
	err := s.apply(ctx, foldBatches(batches))
	for _, b := range batches {
		if err == nil {
			break
		}
		refusal := err
		if len(batches) > 1 {
			refusal = s.apply(ctx, foldBatches([]device.Batch{b}))
		}
		if refusal != nil {
			s.PendingRefusals = append(s.PendingRefusals, Refusal{
				Topic: b.Topic, TopicID: b.TopicID, Partition: b.Partition, First: b.First, Last: b.Last,
				Cause: CauseDatabase, Detail: clip(fmt.Sprintf("seq %s: %v", b.Fold.Seqs, refusal)), At: workflow.Now(ctx),
			})
		}
	}
}

// newBatches returns the waiting batches that are not duplicates. A batch is a
// duplicate only when its position was reached and all its events are known. In a
// topic that was created again the position is of another incarnation, and the
// seqs alone decide what is new.
func (s *session) newBatches(ctx workflow.Context) []device.Batch {
	var batches []device.Batch
	var duplicates int64
	seqs, positions := knownSeqs(&s.State), slices.Clone(s.Positions)
	for _, w := range s.Waiting {
		b := w.Batch
		if device.Reached(positions, b.Position()) && seqs.Covers(b.Fold.Seqs) {
			duplicates += b.Fold.Events()
			continue
		}
		seqs, positions = seqs.Union(b.Fold.Seqs), device.Advance(positions, b.Position())
		batches = append(batches, b)
	}
	if duplicates > 0 {
		s.Counters.Duplicates += duplicates
		s.add(ctx, metricDuplicates, duplicates)
	}
	return batches
}

// foldedBatches are batches that go into one apply.
type foldedBatches struct {
	fold       device.Fold
	positions  []device.Position
	batches    int64
	records    int64
	duplicates int64     // events that more than one of the batches has
	received   time.Time // Kafka timestamp of the newest record
}

// foldBatches folds batches. It does not change them.
func foldBatches(batches []device.Batch) foldedBatches {
	var folded foldedBatches
	for i, b := range batches {
		fold := b.Fold
		if len(batches) > 1 {
			fold = cloneFold(fold) // Merge may write into both
		}
		if i == 0 {
			folded.fold = fold
		} else {
			folded.fold = device.Merge(folded.fold, fold)
		}
		folded.batches++
		folded.records += int64(b.Records)
		folded.duplicates += b.Fold.Events()
		folded.positions = device.Advance(folded.positions, b.Position())
		if b.Received.After(folded.received) {
			folded.received = b.Received
		}
	}
	folded.duplicates -= folded.fold.Events()
	return folded
}

// plannedApply is an apply that is worked out and not yet executed.
type plannedApply struct {
	foldedBatches
	next    device.State // the session's state, once the database has the apply
	change  device.Change
	check   *SnapshotCheck // nil: the fold has no newer snapshot
	request ApplyRequest
}

// planApply works out what the batches change. It changes nothing.
func (s *session) planApply(in foldedBatches, now time.Time) plannedApply {
	p := plannedApply{foldedBatches: in, next: cloneState(s.State)}
	p.change = p.next.Apply(in.fold)
	if p.next.Snapshot > s.State.Snapshot {
		p.check = compareWithSnapshot(&s.State, in.fold, now)
		p.check.Repaired = p.change.Repaired
	}
	p.request = s.newApplyRequest(&p.next, in.positions)
	if in.received.After(s.LastReceived) {
		p.request.Received = in.received
	}
	p.request.BatchReceived = in.received
	p.request.Write, p.request.Corrected = p.change.Write, p.change.Corrected
	p.request.Repaired, p.request.OverLimit = p.change.Repaired, p.change.OverLimit
	p.request.Records = in.records
	p.request.Duplicates = in.duplicates + p.change.Duplicates
	p.request.AfterClose = p.change.AfterClose
	p.request.Stale = p.change.Stale
	p.request.Events = in.fold.Events() - p.change.Duplicates - p.change.AfterClose
	p.request.IdentifiesDevice = s.identifiesDevice(&p)
	return p
}

// apply applies batches: the database first, then the session's own state. It
// returns an error only for a refusal.
func (s *session) apply(ctx workflow.Context, in foldedBatches) error {
	if in.batches == 0 {
		return nil
	}
	p := s.planApply(in, workflow.Now(ctx))
	var answer LoadedSession // stays empty unless the request identifies the device
	if err := s.executeActivity(ActivityApplyBatch, p.summary(), p.request, &answer); err != nil {
		return err
	}
	s.recordApply(ctx, p)
	s.setTestState(answer.TestState)
	s.resolveRivals(ctx, answer.OlderSessions, answer.NewerSession)
	return nil
}

// recordApply makes an apply that the database has the session's own state.
//
// Invariant: nothing else changes State, Positions and the counters of applied
// events, but loadSession and, for positions, quarantineRefusals.
func (s *session) recordApply(ctx workflow.Context, p plannedApply) {
	s.State, s.LastReceived = p.next, p.request.Received
	s.advancePositions(p.positions)
	s.Counters.Batches += p.batches
	s.Counters.Events += p.request.Events
	s.Counters.Records += p.request.Records
	s.Counters.Duplicates += p.request.Duplicates
	s.Counters.AfterClose += p.request.AfterClose
	s.Counters.Repaired += int64(len(p.change.Repaired))
	s.Counters.OverLimit += int64(len(p.change.OverLimit))
	s.Counters.Stale += p.change.Stale
	s.countForBuild(workflow.GetInfo(ctx).GetCurrentBuildID(), p.request.Events)
	s.reportApply(ctx, p.request, p.change)
	s.recordSnapshotCheck(ctx, p.check)
	s.updateSyncState(ctx)
}

// newApplyRequest returns a request that writes the session's row as state has it
// and advances positions, and writes no attribute.
func (s *session) newApplyRequest(state *device.State, positions []device.Position) ApplyRequest {
	r := ApplyRequest{
		RAE: s.rae, Session: s.id,
		AsOf: state.AsOf, Snapshot: state.Snapshot, SnapshotAt: state.SnapshotAt, Hash: state.Hash,
		Seen: state.Seen, Missing: state.Missing(), Closed: state.Closed, Reason: state.Reason,
		First: state.First, Last: state.Last, Received: s.LastReceived,
	}
	for _, p := range positions {
		if !device.Reached(s.Positions, p) {
			r.Positions = append(r.Positions, p)
		}
	}
	return r
}

// advancePositions keeps the session's own positions. Foreign ones are the
// database's alone, for the poller to read: here nothing would bound them.
func (s *session) advancePositions(positions []device.Position) {
	for _, p := range positions {
		if !p.IsForeign() {
			s.Positions = device.Advance(s.Positions, p)
		}
	}
}

// quarantineRefusals has the database quarantine the refused batches and advance past
// their positions. The poller waits for these positions, and would otherwise send
// the same batches for ever.
func (s *session) quarantineRefusals(ctx workflow.Context) {
	if len(s.PendingRefusals) == 0 {
		return
	}
	var positions []device.Position
	for _, r := range s.PendingRefusals {
		if r.Topic != "" && !device.Reached(s.Positions, r.position()) {
			positions = device.Advance(positions, r.position())
		}
	}
	request := s.newApplyRequest(&s.State, positions)
	request.QuarantineOnly, request.Quarantined = true, s.PendingRefusals
	if err := s.executeActivity(ActivityApplyBatch, "quarantine "+plural(int64(len(s.PendingRefusals)), "refused batch"), request, nil); err != nil {
		panic(fmt.Sprintf("session %s: an apply that only quarantines was refused: %v", s.id, err)) // see ApplyRequest.QuarantineOnly
	}
	s.advancePositions(positions)
	for _, r := range s.PendingRefusals {
		s.rememberRefusal(r)
		s.count(ctx, metricRefused, "cause", r.Cause)
		s.log.Error("batch refused for good: its events are missing from the session until a snapshot heals it",
			"topic", r.Topic, "topic_id", r.TopicID, "partition", r.Partition, "offset", r.First, "last_offset", r.Last, "cause", r.Cause, "foreign_rae", r.Foreign, "err", r.Detail)
	}
	s.PendingRefusals = nil
}
