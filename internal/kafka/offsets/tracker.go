package offsets

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Tracker tracks the records of all assigned partitions of one topic, and marks
// for commit what may be committed. Safe for concurrent use.
//
// Invariant: nothing is marked for a partition that has gone. franz-go checks no
// ownership when it is told to mark, and a mark after the revocation would
// commit over the next owner's offset. So Done marks under the lock under which
// Revoke closes the partition's Span, and each assignment has a Span of its own.
type Tracker struct {
	topic string
	mark  func(map[string]map[int32]kgo.EpochOffset)

	mu          sync.Mutex
	assignments map[int32]*assignment
	stopped     bool
}

type assignment struct {
	span   Span
	ctx    context.Context //nolint:containedctx // ends with the assignment
	cancel context.CancelFunc
}

// Record is a fetched record that a Tracker has taken.
type Record struct {
	*kgo.Record

	assignment *assignment
	unit       Unit
}

// Context ends at Stop, or when the record's partition goes.
func (r *Record) Context() context.Context { return r.assignment.ctx }

// NewTracker returns a Tracker of topic without partitions. It calls mark with
// its lock held: mark must not call the Tracker.
func NewTracker(topic string, mark func(map[string]map[int32]kgo.EpochOffset)) *Tracker {
	return &Tracker{topic: topic, mark: mark, assignments: map[int32]*assignment{}}
}

// Assign begins a fresh Span for each of the partitions.
func (t *Tracker) Assign(partitions []int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revokeLocked(partitions)
	for _, p := range partitions {
		a := &assignment{span: NewSpan()}
		a.ctx, a.cancel = context.WithCancel(context.Background())
		if t.stopped {
			a.cancel()
		}
		t.assignments[p] = a
	}
}

// Revoke lets the partitions go. It returns how many records it has forgotten.
func (t *Tracker) Revoke(partitions []int32) (forgotten int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revokeLocked(partitions)
}

func (t *Tracker) revokeLocked(partitions []int32) (forgotten int) {
	for _, p := range partitions {
		if a := t.assignments[p]; a != nil {
			a.cancel()
			a.span.Close()
			forgotten += a.span.Len()
			delete(t.assignments, p)
		}
	}
	return forgotten
}

// Stop ends the contexts of all records. What is done may still be marked.
func (t *Tracker) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	for _, a := range t.assignments {
		a.cancel()
	}
}

// Fetched notes a fetched record. It returns nil where its partition has gone.
func (t *Tracker) Fetched(r *kgo.Record) *Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.assignments[r.Partition]
	if a == nil {
		return nil
	}
	out := &Record{Record: r, assignment: a}
	a.span.Fetched(r.Offset, r.LeaderEpoch, &out.unit)
	return out
}

// Done notes that r is done, and marks what is done without a gap. It returns
// how many records it has so forgotten: 0 where one before is not done, and
// where r's partition has gone.
func (t *Tracker) Done(r *Record) (forgotten int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &r.assignment.span
	before := s.Len()
	s.Complete(&r.unit)
	if forgotten = before - s.Len(); forgotten == 0 {
		return 0
	}
	if next, ok := s.Committable(); ok {
		t.mark(map[string]map[int32]kgo.EpochOffset{t.topic: {r.Partition: next}})
	}
	return forgotten
}
