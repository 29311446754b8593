package poller

import (
	"bytes"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka/offsets"
)

// laneKey is an MQTT topic, taken apart: the key of its records, which says who
// may write them. The session alone would let one RAE's record into the fold of
// another's.
type laneKey struct{ rae, session string }

// lane is one topic's place in an assignment.
//
// Invariant: records enter in offset order, folds leave in the same order, and
// at most one of them is in flight. Only the last waiting fold takes records. A
// lane that is in flight or stopped is not ready; its assignment's lock guards
// all of it but place.
type lane struct {
	a *assignment
	laneKey
	account  *account // of its RAE; nil in tests
	waiting  []*chunk // the last one fills
	inFlight bool
	stopped  time.Time // when it may be tried again; zero: it is not stopped

	own   *class    // by its RAE's serial; the scheduler's lock guards these four
	class *class    // the one it waits in: over its budget of events, another
	queue *laneHeap // nil: it does not wait for the window
	place int       // in queue
	// What the scheduler orders by, copied so that it need not lock the
	// assignment. oldest and offset are the head's and change only while the
	// lane is in no queue; changes says that something in waiting does more
	// than confirm, and may become true at any time.
	oldest  time.Time
	offset  int64
	changes atomic.Bool
}

// chunk is a fold and the records in it. Once in flight it does not change.
type chunk struct {
	offsets.Unit
	fold        device.Fold
	topicID     string    // of the incarnation that its records are of
	first, last int64     // offsets
	newest      time.Time // the highest Kafka timestamp
	bytes       int       // fold.Size(), as counted against the budgets
	changes     bool      // does more than confirm
}

// headStart is how much earlier than its arrival a record may claim to be when
// lanes are ordered. It keeps a producer's slow clock from starving others.
const headStart = time.Minute

// age is what lanes are ordered by: the time of the first record, as far as it
// can be believed.
func (c *chunk) age() time.Time {
	switch earliest := c.Fetched.Add(-headStart); {
	case c.Written.Before(earliest):
		return earliest
	case c.Written.After(c.Fetched):
		return c.Fetched
	}
	return c.Written
}

// ready copies what the scheduler orders by. It is called when the head is new.
func (l *lane) ready() {
	l.oldest, l.offset = l.waiting[0].age(), l.waiting[0].first
	l.changes.Store(slices.ContainsFunc(l.waiting, func(c *chunk) bool { return c.changes }))
}

const (
	// signalLimit leaves a margin for the batch around the fold.
	signalLimit = device.MaxSignalBytes - 4<<10
	// maxChunkRanges is below what a device.SeqSet holds before it forgets.
	maxChunkRanges = 32
	// maxEscape is how many bytes JSON may make of one: < becomes \u003c.
	maxEscape = 6
)

// add folds an event into the lane that arrived now. It returns the chunk that
// took it and by how many bytes the lane grew.
func (l *lane) add(f device.Fold, r *kgo.Record, topicID string, arrived time.Time) (*chunk, int) {
	var c *chunk
	if n := len(l.waiting); n > 0 && l.waiting[n-1].topicID == topicID && l.waiting[n-1].takes(f) {
		c = l.waiting[n-1]
	} else {
		c = &chunk{Unit: offsets.Unit{Fetched: arrived, Written: r.Timestamp}, topicID: topicID, first: r.Offset}
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
		Version: device.BatchVersion, Topic: topic, TopicID: c.topicID, Partition: partition, First: c.first, Last: c.last,
		Records: c.Records(), Received: c.newest.UTC(), Fold: c.fold,
	}
}
