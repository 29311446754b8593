package poller

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// The callbacks run in the client's group loop, never two at once, and never
// while the poll loop holds records (BlockRebalanceOnPoll): a record of an old
// assignment cannot get into a new one.

func (p *consumer) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	<-p.built
	p.joined.Store(true)
	p.lastProgress.Store(time.Now().UnixNano())
	p.lastFetch.Store(time.Now().UnixNano())
	p.metrics.rebalances.WithLabelValues("assigned").Inc()
	for _, n := range partitions[p.opts.Topic] {
		a := newAssignment(p.work, p.opts.Topic, n, p.opts.PartitionRecords, &p.total, &p.tally)
		p.mu.Lock()
		p.assignments[n] = a
		p.mu.Unlock()
		p.valve.open(a)
	}
	if ns := partitions[p.opts.Topic]; len(ns) > 0 {
		p.log.Info("partitions assigned", "partitions", ns)
	}
}

func (p *consumer) locate(ctx context.Context, starts map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	<-p.built
	committed := starts[p.opts.Topic]
	p.anew.Place(committed)
	lost := kafka.Locate(ctx, p.client, p.log, starts)
	for n, o := range committed {
		if a := p.assignment(n); a != nil {
			p.noteLost(a, lost[p.opts.Topic][n])
			a.begin(o.EpochOffset().Offset)
		}
	}
	return starts, nil
}

// revoked forgets what is queued, waits for what is in flight, commits, and
// lets go. The wait is bounded: the group waits for us.
func (p *consumer) revoked(ctx context.Context, _ *kgo.Client, partitions map[string][]int32) {
	p.metrics.rebalances.WithLabelValues("revoked").Inc()
	as := p.assignmentsOf(partitions)
	if len(as) == 0 {
		return
	}
	for _, a := range as {
		a.leave()
		p.sched.forget(a)
	}
	landed := waitFor(ctx, as, p.opts.RevokeTimeout)
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	if err := p.commits.close(ctx, as); err != nil {
		p.log.Warn("commit at revoke failed: the next owner reads again what was done", "err", err)
	}
	p.release(as, true)
	p.log.Info("partitions revoked", "partitions", partitions[p.opts.Topic], "all_applied", landed)
}

func (p *consumer) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	p.metrics.rebalances.WithLabelValues("lost").Inc()
	p.joined.Store(false)
	as := p.assignmentsOf(partitions)
	p.commits.lose(as)
	p.release(as, true)
	if len(as) > 0 {
		p.log.Warn("partitions lost: nothing of them is committed", "partitions", partitions[p.opts.Topic])
	}
}

// assignmentsOf returns the assignments of partitions, in order.
func (p *consumer) assignmentsOf(partitions map[string][]int32) []*assignment {
	var as []*assignment
	for _, n := range slices.Sorted(slices.Values(partitions[p.opts.Topic])) {
		if a := p.assignment(n); a != nil {
			as = append(as, a)
		}
	}
	return as
}

// release forgets closed assignments, and returns those that nobody has before.
// What was left of them is others' to do where it is handed over.
func (p *consumer) release(as []*assignment, handedOver bool) (released []*assignment) {
	for _, a := range as {
		p.mu.Lock()
		if p.assignments[a.partition] == a {
			released = append(released, a)
			delete(p.assignments, a.partition)
			p.metrics.lag.DeleteLabelValues(label(a.partition))
			p.metrics.lagSeconds.DeleteLabelValues(label(a.partition))
			if handedOver {
				p.tally.handedOver.Add(int64(a.left.Records))
			}
		}
		p.mu.Unlock()
		p.sched.forget(a)
		p.valve.forget(a)
	}
	return released
}

// waitFor waits until nothing of as is in flight, and reports whether that came
// within the time.
func waitFor(ctx context.Context, as []*assignment, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for _, a := range as {
		select {
		case <-a.idle:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
