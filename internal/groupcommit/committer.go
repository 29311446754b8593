// Package groupcommit gathers the updates of many sessions into one database
// transaction each time, so that a commit, its fsync and its round trips are
// paid once for a group.
//
// The rule for when a group goes: as soon as a committer is free, unless more
// updates are likely within Linger. What comes while all committers are at work
// makes the next group, as in PostgreSQL's own group commit, so that groups grow
// with the load and no timer is needed when it is heavy. In between, where the
// database is quick and updates come every millisecond or two, an update waits
// for twice the usual gap between updates, Linger at most. When updates come
// further apart than Linger, none waits.
package groupcommit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rollcall-platform/rollcall/internal/store"
)

// ErrClosed is returned for updates that come after Close, or that it gave up.
var ErrClosed = errors.New("group commit is closed")

// groupBytes is past what one transaction takes no further update.
const groupBytes = 1 << 20

// Committer implements activities.Applier. Its methods may be called
// concurrently.
type Committer struct {
	o Options
	m *metrics

	sessions, bytes *semaphore.Weighted // room

	mu      sync.Mutex
	queue   []*item             // in order of arrival
	queued  int64               // bytes of queue
	busy    map[string]struct{} // sessions in a running transaction
	running map[*group]struct{}
	last    time.Time     // newest arrival
	gap     time.Duration // usual time between two arrivals
	timer   *time.Timer   // for the group that gathers
	closed  bool
	idle    chan struct{} // closed when closed is set and nothing is left
}

// item is one caller's update. It is in the queue, then in a group, then
// finished.
type item struct {
	update store.Update
	bytes  int64
	since  time.Time
	done   chan error // takes one result

	// Under the Committer's lock.
	group    *group // nil while queued
	left     bool   // its caller has
	finished bool
}

// group is a transaction, or the several that bisecting makes of it.
type group struct {
	items   []*item
	waiting int // items not finished whose callers have not left; under the Committer's lock
	ctx     context.Context
	cancel  context.CancelFunc
}

// New validates the options and registers the metrics. The Committer needs no
// goroutine while it has nothing to do.
func New(o Options) (*Committer, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &Committer{
		o:        o,
		sessions: semaphore.NewWeighted(int64(o.MaxSessions)),
		bytes:    semaphore.NewWeighted(o.MaxBytes),
		busy:     make(map[string]struct{}),
		running:  make(map[*group]struct{}),
		gap:      maxGap,
		idle:     make(chan struct{}),
	}
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.timer.Stop()
	var err error
	if c.m, err = newMetrics(o.Registerer, c.depth); err != nil {
		return nil, fmt.Errorf("group commit: %w", err)
	}
	return c, nil
}

// Apply returns when u is committed, or cannot be. An error that wraps
// store.ErrRefused is u's own and for good; any other is an outage, and u may
// have been committed all the same: apply it again. When ctx ends, the caller
// leaves; the group it was in goes on for the others.
func (c *Committer) Apply(ctx context.Context, u store.Update) error {
	it := &item{update: u, bytes: min(size(u), c.o.MaxBytes), since: time.Now(), done: make(chan error, 1)}
	if err := c.enter(ctx, it); err != nil {
		return fmt.Errorf("apply of session %s waits for room: %w", u.Session, err)
	}
	if err := c.enqueue(it); err != nil {
		c.exit(it)
		return err
	}
	select {
	case err := <-it.done:
		return err
	case <-ctx.Done():
	}
	if finished, err := c.leave(it); finished {
		return err // both at once: the result says more
	}
	return fmt.Errorf("apply of session %s: %w", u.Session, ctx.Err())
}

// enter waits, in line, for room. Every item that entered exits once.
func (c *Committer) enter(ctx context.Context, it *item) error {
	if err := c.sessions.Acquire(ctx, 1); err != nil {
		return err
	}
	if err := c.bytes.Acquire(ctx, it.bytes); err != nil {
		c.sessions.Release(1)
		return err
	}
	return nil
}

func (c *Committer) exit(it *item) {
	c.bytes.Release(it.bytes)
	c.sessions.Release(1)
}

func (c *Committer) enqueue(it *item) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.queue = append(c.queue, it)
	c.queued += it.bytes
	now := time.Now()
	c.gap = (7*c.gap + min(now.Sub(c.last), maxGap)) / 8
	c.last = now
	c.startLocked(now)
	return nil
}

// maxGap is what the gap after a pause counts as. One such gap puts the usual
// gap, an average over the last eight or so, past any sensible Linger.
const maxGap = time.Second

// dueLocked returns when the updates that wait go, if no more come. The zero time
// is now. Requires: the queue is not empty.
func (c *Committer) dueLocked() time.Time {
	if c.closed || c.gap >= c.o.Linger || len(c.queue) >= c.o.Sessions || c.queued >= groupBytes {
		return time.Time{}
	}
	most, quiet := c.queue[0].since.Add(c.o.Linger), c.last.Add(2*c.gap)
	if quiet.Before(most) {
		return quiet
	}
	return most
}

// startLocked begins the transactions that are due, as long as committers are
// free. It is called whenever one of these may have changed.
func (c *Committer) startLocked(now time.Time) {
	c.timer.Stop()
	for len(c.queue) > 0 && len(c.running) < c.o.Committers {
		if wait := c.dueLocked().Sub(now); wait > 0 {
			c.timer.Reset(wait)
			return
		}
		g := c.takeLocked()
		if g == nil {
			return // the sessions that wait are in running transactions
		}
		c.running[g] = struct{}{}
		go c.commit(g)
	}
}

func (c *Committer) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.startLocked(time.Now())
}

// takeLocked makes a group of what waits, the oldest first. It has a session once,
// and none that is in a running transaction: a second update of a session,
// which only a try that was given up can leave, goes after the first.
func (c *Committer) takeLocked() *group {
	g := &group{}
	var bytes int64
	rest := c.queue[:0]
	for _, it := range c.queue {
		_, busy := c.busy[it.update.Session]
		full := len(g.items) >= c.o.Sessions || len(g.items) > 0 && bytes+it.bytes > groupBytes
		if busy || full {
			rest = append(rest, it)
			continue
		}
		c.busy[it.update.Session] = struct{}{}
		it.group = g
		g.items = append(g.items, it)
		bytes += it.bytes
	}
	clear(c.queue[len(rest):])
	c.queue, c.queued = rest, c.queued-bytes
	if len(g.items) == 0 {
		return nil
	}
	g.waiting = len(g.items)
	g.ctx, g.cancel = context.WithTimeout(context.Background(), c.o.Timeout)
	return g
}

// commit runs a group's transactions and then what is due next.
func (c *Committer) commit(g *group) {
	begun := time.Now()
	for _, it := range g.items {
		c.m.wait.Observe(begun.Sub(it.since).Seconds())
	}
	c.apply(g.ctx, g.items)
	g.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, it := range g.items {
		delete(c.busy, it.update.Session)
	}
	delete(c.running, g)
	c.startLocked(time.Now())
	c.closeIdleLocked()
}

// apply has the items committed together. Where the database refuses that, each
// half is tried by itself, and so on: the guilty are found, and are refused
// alone. n updates of which one is bad take about 2·log2(n) transactions more.
func (c *Committer) apply(ctx context.Context, items []*item) {
	updates := make([]store.Update, len(items))
	for i, it := range items {
		updates[i] = it.update
	}
	begun := time.Now()
	err := c.o.Store.Apply(ctx, updates)
	c.m.observe(len(items), time.Since(begun), err)
	if errors.Is(err, store.ErrRefused) && len(items) > 1 {
		c.m.bisections.Inc()
		half := len(items) / 2
		c.apply(ctx, items[:half])
		c.apply(ctx, items[half:])
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, it := range items {
		if !it.left {
			it.group.waiting--
		}
		c.finishLocked(it, err)
	}
}

// finishLocked gives an item its result and its room back.
func (c *Committer) finishLocked(it *item, err error) {
	it.finished = true
	it.done <- err
	c.exit(it)
}

// leave takes an item out of the queue or, where its transaction runs, does
// without its result, unless there is one by now. A transaction that nobody
// waits for is given up.
func (c *Committer) leave(it *item) (finished bool, result error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch g := it.group; {
	case it.finished:
		return true, <-it.done
	case g == nil:
		c.dropLocked(it, context.Canceled)
		c.closeIdleLocked()
	default:
		it.left = true
		if g.waiting--; g.waiting == 0 {
			g.cancel()
		}
	}
	return false, nil
}

// dropLocked finishes an item that is queued.
func (c *Committer) dropLocked(it *item, err error) {
	i := slices.Index(c.queue, it)
	c.queue = slices.Delete(c.queue, i, i+1)
	c.queued -= it.bytes
	c.finishLocked(it, err)
}

// Close takes no more updates, and returns when those that were taken are
// done. When ctx ends first, it gives up what is left: its callers get
// ErrClosed, or the error of a cancelled transaction.
func (c *Committer) Close(ctx context.Context) error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.startLocked(time.Now()) // lingers no more
		c.closeIdleLocked()
	}
	c.mu.Unlock()
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	left := len(c.queue)
	for len(c.queue) > 0 {
		c.dropLocked(c.queue[len(c.queue)-1], ErrClosed)
	}
	for g := range c.running {
		left += len(g.items)
		g.cancel()
	}
	c.closeIdleLocked()
	c.mu.Unlock()
	<-c.idle // a cancelled transaction ends at once
	return fmt.Errorf("group commit: %d updates given up: %w", left, ctx.Err())
}

// closeIdleLocked closes idle when nothing is left, for Close.
func (c *Committer) closeIdleLocked() {
	if !c.closed || len(c.queue) > 0 || len(c.running) > 0 {
		return
	}
	select {
	case <-c.idle:
	default:
		close(c.idle)
	}
}

// depth is how many updates wait for a transaction, and their bytes.
func (c *Committer) depth() (sessions int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue), c.queued
}

// size estimates the bytes an update holds, from above.
func size(u store.Update) int64 {
	n := 1024 + 16*(len(u.Seen)+len(u.Missing)) + 64*len(u.Positions) + len(u.Reason)
	for name, a := range u.Write {
		n += len(name) + len(a.Value) + 128
	}
	for _, names := range [][]string{u.Repaired, u.OverLimit} {
		for _, name := range names {
			n += len(name) + 16
		}
	}
	return int64(n)
}
