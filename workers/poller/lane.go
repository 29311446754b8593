package poller

import (
	"bytes"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// lane is one session's place in an assignment.
//
// It holds: records enter in offset order, folds leave in the same order, and
// at most one of them is in flight. Only the last waiting fold takes records. A
// lane that is in flight or stopped is not ready; its assignment's lock guards
// all of it but place.
type lane struct {
	a       *assignment
	session string
	waiting []*chunk // the last one fills
	flying  bool
	stopped time.Time // when it may be tried again; zero: it is not stopped

	place int // in the scheduler's heap, -1 outside; guarded by its lock
	// oldest and offset are the head's, copied so that the scheduler need
	// not lock the assignment; they change only while place is -1.
	oldest time.Time
	offset int64
}

// chunk is a fold and the records in it. Once in flight it does not change.
type chunk struct {
	unit
	fold        device.Fold
	first, last int64     // offsets
	oldest      time.Time // Kafka timestamp of the first record
	newest      time.Time // the highest Kafka timestamp
	bytes       int       // fold.Size(), as counted against the budgets
}

const (
	// signalLimit leaves a margin for the batch around the fold.
	signalLimit = device.MaxSignalBytes - 4<<10
	// maxChunkRanges is below what a device.SeqSet holds before it forgets.
	maxChunkRanges = 32
	// maxEscape is how many bytes JSON may make of one: < becomes \u003c.
	maxEscape = 6
)

// add folds an event into the lane. It returns the chunk that took it and by
// how many bytes the lane grew.
func (l *lane) add(f device.Fold, r *kgo.Record) (*chunk, int) {
	var c *chunk
	if n := len(l.waiting); n > 0 && l.waiting[n-1].takes(f) {
		c = l.waiting[n-1]
	} else {
		c = &chunk{first: r.Offset, oldest: r.Timestamp}
		l.waiting = append(l.waiting, c)
	}
	c.fold = device.Merge(c.fold, f)
	c.last = r.Offset
	if r.Timestamp.After(c.newest) {
		c.newest = r.Timestamp
	}
	before := c.bytes
	c.bytes = c.fold.Size()
	return c, c.bytes - before
}

// takes reports whether f may be folded in: never past a close, because what
// comes after it is refused and must not hide what came before; and never past
// what one signal, or a set of seqs, can hold.
func (c *chunk) takes(f device.Fold) bool {
	if c.fold.Closed != 0 || len(c.fold.Seqs) >= maxChunkRanges {
		return false
	}
	if maxEscape*(c.bytes+f.Size()) <= signalLimit {
		return true
	}
	return encodedSize(c.fold)+encodedSize(f) <= signalLimit
}

// encodedSize bounds f's JSON from above. Values are JSON already, and
// encoding/json escapes five characters of it again.
func encodedSize(f device.Fold) int {
	n := f.Size() + (maxEscape-1)*(len(f.RAE)+len(f.Reason))
	for _, a := range f.Attributes {
		for _, c := range []byte("<>&") {
			n += (maxEscape - 1) * bytes.Count(a.Value, []byte{c})
		}
		n += 3 * bytes.Count(a.Value, []byte("\u2028")[:2])
	}
	return n
}

func (c *chunk) batch(topic string, partition int32) device.Batch {
	return device.Batch{
		Version: device.BatchVersion, Topic: topic, Partition: partition, First: c.first, Last: c.last,
		Records: c.records, Received: c.newest.UTC(), Fold: c.fold,
	}
}
