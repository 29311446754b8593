package bridge

import (
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// offsets knows which records of the assigned partitions are not done, and
// marks for commit what all before is done of.
//
// The invariant: nothing is marked for a partition that has gone. franz-go
// checks no ownership when it is told to mark; a mark after the revocation
// would commit over the next owner. So marking and going share one lock, and
// each assignment has a span of its own.
type offsets struct {
	topic string
	mark  func(map[string]map[int32]kgo.EpochOffset)

	mu      sync.Mutex
	spans   map[int32]*span
	stopped bool
}

// span is one assignment of a partition.
type span struct {
	ctx    context.Context //nolint:containedctx // ends with the assignment
	cancel context.CancelFunc
	open   []entry // in the order of offsets; the front is not done
}

type entry struct {
	offset int64
	epoch  int32
	done   bool
}

type spanKey struct{}

func newOffsets(topic string, mark func(map[string]map[int32]kgo.EpochOffset)) *offsets {
	return &offsets{topic: topic, mark: mark, spans: map[int32]*span{}}
}

func (o *offsets) assigned(partitions []int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range partitions {
		s := &span{}
		s.ctx, s.cancel = context.WithCancel(context.WithValue(context.Background(), spanKey{}, s))
		if o.stopped {
			s.cancel()
		}
		o.spans[p] = s
	}
}

// gone returns how many records it has forgotten.
func (o *offsets) gone(partitions []int32) (forgotten int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range partitions {
		if s := o.spans[p]; s != nil {
			s.cancel()
			delete(o.spans, p)
			forgotten += len(s.open)
		}
	}
	return forgotten
}

// stop ends the contexts of all records. What is done may still be marked.
func (o *offsets) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	for _, s := range o.spans {
		s.cancel()
	}
}

// begin notes a fetched record. The context ends at stop or when the partition
// goes; ok is false where it has gone.
func (o *offsets) begin(r *kgo.Record) (_ context.Context, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.spans[r.Partition]
	if s == nil {
		return nil, false
	}
	s.open = append(s.open, entry{offset: r.Offset, epoch: r.LeaderEpoch})
	return s.ctx, true
}

// done marks what is done without a gap, and returns how many records it has
// so forgotten. ctx is the one that begin returned.
func (o *offsets) done(ctx context.Context, r *kgo.Record) (forgotten int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.spans[r.Partition]
	if s == nil || ctx.Value(spanKey{}) != s {
		return 0
	}
	i, found := slices.BinarySearchFunc(s.open, r.Offset, func(e entry, offset int64) int { return int(e.offset - offset) })
	if !found {
		return 0
	}
	s.open[i].done = true
	var last *entry
	for len(s.open) > 0 && s.open[0].done {
		last, s.open = &s.open[0], s.open[1:]
		forgotten++
	}
	if last != nil {
		o.mark(map[string]map[int32]kgo.EpochOffset{o.topic: {r.Partition: {Epoch: last.epoch, Offset: last.offset + 1}}})
	}
	return forgotten
}
