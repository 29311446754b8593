package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// applyWaiting applies all that waits: one apply in the common case. In the first
// run of a chain it loads the session first.
func (s *session) applyWaiting(ctx workflow.Context) {
	loading := s.Sync == SyncLoading
	if loading {
		s.loadSession(ctx)
	}
	for checked := loading; s.applyBatches(ctx, checked); checked = true {
		s.rejectForeignBatches(workflow.Now(ctx)) // the database may say that the session is another RAE's
	}
	s.Waiting = nil
	s.quarantineRefusals(ctx)
}

// applyBatches applies the batches that wait. It reports true where the session had
// to take what the database has: then they are judged and applied anew.
//
// The poller sends a batch again where the database does not say that it is
// applied. So where nothing waits but what the session knows, and the database was
// not just read, it is asked: it may have lost it.
func (s *session) applyBatches(ctx workflow.Context, checked bool) (reloaded bool) {
	batches, duplicates := s.newBatches()
	if len(batches) == 0 && duplicates > 0 && !checked && s.reload(ctx, "what was applied came again") {
		return true
	}
	for _, group := range splitAfterClose(batches) {
		if s.applyGroup(ctx, group) {
			return true
		}
	}
	s.Counters.Duplicates += duplicates
	s.add(ctx, metricDuplicates, duplicates)
	return false
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
// applies each by itself, so that only a batch at fault is kept out. It reports
// true, and has refused none, where the session had to take what the database has.
func (s *session) applyGroup(ctx workflow.Context, batches []device.Batch) (reloaded bool) {
	err := s.apply(ctx, foldBatches(batches))
	var refusals []Refusal
	for _, b := range batches {
		if err == nil {
			break
		}
		refusal := err
		if len(batches) > 1 && !errors.Is(err, errReloaded) {
			refusal = s.apply(ctx, foldBatches([]device.Batch{b}))
		}
		if errors.Is(refusal, errReloaded) {
			return true
		}
		if refusal != nil {
			refusals = append(refusals, Refusal{
				Topic: b.Topic, TopicID: b.TopicID, Partition: b.Partition, First: b.First, Last: b.Last,
				Cause: CauseDatabase, Detail: clip(fmt.Sprintf("seq %s: %v", b.Fold.Seqs, refusal)), At: workflow.Now(ctx),
			})
		}
	}
	s.PendingRefusals = append(s.PendingRefusals, refusals...)
	return false
}

// newBatches returns the waiting batches that are not duplicates, and how many
// events the others have. A batch is a
// duplicate only when its position was reached and all its events are known. In a
// topic that was created again the position is of another incarnation, and the
// seqs alone decide what is new.
func (s *session) newBatches() (batches []device.Batch, duplicates int64) {
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
	return batches, duplicates
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
	if p.change.Reopened {
		p.request.Reopened = 1
	}
	p.request.IdentifiesDevice = p.change.Reopened || s.identifiesDevice(&p)
	return p
}

// apply applies batches: the database first, then the session's own state. It
// returns errReloaded, or an error for a refusal.
func (s *session) apply(ctx workflow.Context, in foldedBatches) error {
	if in.batches == 0 {
		return nil
	}
	p := s.planApply(in, workflow.Now(ctx))
	answer, err := s.executeApply(ctx, clip(s.summary(&p)+s.anewText()), &p.request)
	if err != nil {
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
// events, but takeStored and, for positions, quarantineRefusals.
func (s *session) recordApply(ctx workflow.Context, p plannedApply) {
	if p.change.Reopened {
		s.log.Warn("session reopened: an event came from past a close that no edge had sent", "closed", s.State.Closed, "reason", s.State.Reason, "as_of", p.next.AsOf)
	}
	s.State, s.LastReceived = p.next, p.request.Received
	s.Lost = s.Lost.Minus(seenSeqs(&s.State))
	s.advancePositions(p.positions)
	s.Counters.Batches += p.batches
	s.Counters.Events += p.request.Events
	s.Counters.Records += p.request.Records
	s.Counters.Duplicates += p.request.Duplicates
	s.Counters.AfterClose += p.request.AfterClose
	s.Counters.Repaired += int64(len(p.change.Repaired))
	s.Counters.OverLimit += int64(len(p.change.OverLimit))
	s.Counters.Stale += p.change.Stale
	s.Counters.Reopened += p.request.Reopened
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
		Seen: state.Seen, Missing: state.Missing(), Closed: state.Closed, Reason: state.Reason, Provisional: state.Provisional,
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
	for {
		var positions []device.Position
		for _, r := range s.PendingRefusals {
			if r.Topic != "" && !device.Reached(s.Positions, r.position()) {
				positions = device.Advance(positions, r.position())
			}
		}
		request := s.newApplyRequest(&s.State, positions)
		request.QuarantineOnly, request.Quarantined = true, s.PendingRefusals
		_, err := s.executeApply(ctx, "quarantine "+plural(int64(len(s.PendingRefusals)), "refused batch"), &request)
		if err == nil {
			s.advancePositions(positions)
			break
		}
		if !errors.Is(err, errReloaded) {
			panic(fmt.Sprintf("session %s: an apply that only quarantines was refused: %v", s.id, err)) // see ApplyRequest.QuarantineOnly
		}
	}
	for _, r := range s.PendingRefusals {
		s.rememberRefusal(r)
		s.count(ctx, metricRefused, "cause", r.Cause)
		s.log.Error("batch refused for good: its events are missing from the session until a snapshot heals it",
			"topic", r.Topic, "topic_id", r.TopicID, "partition", r.Partition, "offset", r.First, "last_offset", r.Last, "cause", r.Cause, "foreign_rae", r.Foreign, "err", r.Detail)
	}
	s.PendingRefusals = nil
}
