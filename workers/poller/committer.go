package poller

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// committer commits what the assignments allow, every interval or number of done
// records. What may be committed of a partition is decided by its assignment
// (uncommittedLocked), by means of offsets.Span: the offsets below the first
// record that is not done.
//
// Invariant: what it reads from the assignments and the commit of it are enqueued
// with the client under one lock, and an assignment is closed under the same
// lock. So no commit of a partition is enqueued after the partition was let go;
// and the synchronous commit at a revoke waits for all that were before. A
// commit that fails is made again at the next turn, because what was committed
// is noted only on success.
type committer struct {
	topic       string
	interval    time.Duration
	records     int64
	assignments func() []*assignment
	client      *kgo.Client
	log         *slog.Logger
	metrics     *metrics

	mu      sync.Mutex
	done    atomic.Int64 // records since the last commit
	trigger chan struct{}
}

// completed counts records that were done.
func (c *committer) completed(records int) {
	if c.done.Add(int64(records)) >= c.records {
		select {
		case c.trigger <- struct{}{}:
		default:
		}
	}
}

func (c *committer) run(ctx context.Context) {
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.trigger:
		}
		if err := <-c.enqueue(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("commit failed, trying again at the next", "err", err)
		}
	}
}

// enqueue starts a commit of all assignments. The channel yields its result.
func (c *committer) enqueue(ctx context.Context) <-chan error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done.Store(0)
	of := map[int32]*assignment{}
	next := map[int32]kgo.EpochOffset{}
	for _, a := range c.assignments() {
		a.mu.Lock()
		if o, ok := a.uncommittedLocked(); ok {
			of[a.partition], next[a.partition] = a, o
		}
		a.mu.Unlock()
	}
	result := make(chan error, 1)
	if len(next) == 0 {
		result <- nil
		return result
	}
	c.client.CommitOffsets(ctx, map[string]map[int32]kgo.EpochOffset{c.topic: next},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			result <- c.committed(of, next, resp, err)
		})
	return result
}

// close closes as, and commits what may be committed of them, twice if the
// first fails. When it returns nothing of them will be committed any more.
func (c *committer) close(ctx context.Context, as []*assignment) error {
	c.mu.Lock()
	of := map[int32]*assignment{}
	next := map[int32]kgo.EpochOffset{}
	for _, a := range as {
		if o, ok := a.close(); ok {
			of[a.partition], next[a.partition] = a, o
		}
	}
	c.mu.Unlock()
	if len(next) == 0 {
		return nil
	}
	var err error
	for range 2 {
		c.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{c.topic: next},
			func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, e error) {
				err = c.committed(of, next, resp, e)
			})
		if err == nil {
			return nil
		}
	}
	return err
}

// lose closes as and commits nothing: they are somebody else's already.
func (c *committer) lose(as []*assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range as {
		a.close()
	}
}

// committed notes a commit's outcome.
func (c *committer) committed(of map[int32]*assignment, next map[int32]kgo.EpochOffset, resp *kmsg.OffsetCommitResponse, err error) error {
	if err != nil {
		c.metrics.commits.WithLabelValues("error").Inc()
		return err
	}
	var errs []error
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
				errs = append(errs, e)
				continue
			}
			if a := of[p.Partition]; a != nil {
				a.mu.Lock()
				a.committed = max(a.committed, next[p.Partition].Offset)
				a.mu.Unlock()
			}
		}
	}
	outcome := "ok"
	if len(errs) > 0 {
		outcome = "error"
	}
	c.metrics.commits.WithLabelValues(outcome).Inc()
	return errors.Join(errs...)
}
