package poller

import (
	"sync"
	"sync/atomic"
	"time"
)

// budget is the bytes that all assignments hold together.
type budget struct{ bytes atomic.Int64 }

func (b *budget) add(n int) { b.bytes.Add(int64(n)) }

// valve pauses a partition's fetch while the partition, or all together, hold
// too much or for too long, and resumes it when they hold less than half of
// that.
//
// Invariant: a pause that should have ended has ended. Every decision is made and
// carried out under one lock, from what is held then. One is made after every
// change, and each second for the age. The end of a pause is always in reach:
// every ack makes less what is held, and 0 is below half of any mark. Pausing throws away what the
// client had buffered of the partition, hence the distance between the marks.
type valve struct {
	partitionBytes, partitionRecords int
	partitionAge                     time.Duration
	now                              func() time.Time
	total                            *budget
	totalBytes                       int64
	pause, resume                    func(partition int32)
	paused                           func(n int) // tells the metric

	mu       sync.Mutex
	full     bool
	adjusted map[int32]*gate
}

type gate struct {
	a    *assignment
	shut bool
}

// open registers a new assignment and resumes its partition: a pause survives a rebalance in the
// client, so that what was paused before is resumed here.
func (v *valve) open(a *assignment) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.adjusted[a.partition] = &gate{a: a}
	v.resume(a.partition)
}

// forget is called when a is gone.
func (v *valve) forget(a *assignment) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if g := v.adjusted[a.partition]; g != nil && g.a == a {
		delete(v.adjusted, a.partition)
	}
	v.adjustAllLocked()
}

// adjust decides for a, and for all where the total has crossed a mark.
func (v *valve) adjust(a *assignment) {
	v.mu.Lock()
	defer v.mu.Unlock()
	held := v.total.bytes.Load()
	if (!v.full && held >= v.totalBytes) || (v.full && held < v.totalBytes/2) {
		v.adjustAllLocked()
		return
	}
	if g := v.adjusted[a.partition]; g != nil && g.a == a {
		v.decideLocked(g)
	}
}

func (v *valve) adjustAllLocked() {
	held := v.total.bytes.Load()
	v.full = held >= v.totalBytes || v.full && held >= v.totalBytes/2
	for _, g := range v.adjusted {
		v.decideLocked(g)
	}
	v.tellLocked()
}

// decideLocked pauses a partition that has reached a mark (its bytes, its
// records, its age, or the bytes of all) and resumes one that is below half of
// every mark.
func (v *valve) decideLocked(g *gate) {
	l := g.a.load()
	var age time.Duration
	if l.span > 0 {
		age = v.now().Sub(l.arrived)
	}
	shut := v.full || l.bytes >= v.partitionBytes || l.span >= v.partitionRecords || age >= v.partitionAge
	if g.shut {
		shut = v.full || l.bytes > 0 && l.bytes >= v.partitionBytes/2 || l.span > v.partitionRecords/2 || age >= v.partitionAge/2 && age > 0
	}
	if shut == g.shut {
		return
	}
	g.shut = shut
	if shut {
		v.pause(g.a.partition)
	} else {
		v.resume(g.a.partition)
	}
	v.tellLocked()
}

func (v *valve) tellLocked() { v.paused(v.countLocked()) }

// shut reports whether any partition is paused.
func (v *valve) shut() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.countLocked() > 0
}

func (v *valve) countLocked() int {
	n := 0
	for _, g := range v.adjusted {
		if g.shut {
			n++
		}
	}
	return n
}
