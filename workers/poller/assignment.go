package poller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/offsets"
)

// recordBytes is what a record that is not done costs beside its fold.
const recordBytes = 64

// assignment is one partition from when it is assigned until it is revoked or
// lost. A partition that comes back is a new assignment: nothing that is late
// for the old one can reach it.
//
// Invariant: bytes is the sum of its chunks, dead letters and pending records,
// until it is closed. Every pending record belongs to a waiting chunk, a flight or a
// dead letter. Once leaving is set no new flight begins; once the span is closed
// nothing has an effect.
type assignment struct {
	topic     string
	partition int32
	ctx       context.Context // ends when the assignment is closed
	cancel    context.CancelFunc
	total     *budget
	tally     *tally

	mu          sync.Mutex
	span        offsets.Span
	lanes       map[laneKey]*lane
	seqs        *seqs
	bytes       int
	outstanding int           // flights and dead letters that have not ended
	leaving     bool          // nothing new is sent
	idle        chan struct{} // closed when leaving is set and outstanding is 0

	started   int64 // first offset fetched, -1 before
	replayed  int64 // an earlier owner may have sent what is below; see newAssignment
	maxSpan   int64
	committed int64 // last offset committed by us, -1 before
	end       int64 // where what can be fetched ended when last fetched
	next      int64 // the offset that the next fetch is to begin with; -1: any
	left      Left  // what was not done when it was closed
}

// newAssignment is for a partition that was just assigned. maxSpan is how many
// records past the committed offset an earlier owner may have sent. That, and
// the partition's end at the first fetch, bound what may be a replay.
func newAssignment(ctx context.Context, topic string, partition int32, maxSpan int, total *budget, tally *tally) *assignment {
	a := &assignment{
		topic: topic, partition: partition, total: total, tally: tally, span: offsets.NewSpan(), lanes: map[laneKey]*lane{}, seqs: newSeqs(),
		idle: make(chan struct{}), started: -1, maxSpan: int64(maxSpan), committed: -1, next: -1,
	}
	a.ctx, a.cancel = context.WithCancel(ctx)
	return a
}

// incoming is a record as it was decoded.
type incoming struct {
	record  *kgo.Record
	topicID string // of the incarnation that it was fetched from
	arrived time.Time
	fold    device.Fold
	bad     *device.Invalid // not nil: it becomes a dead letter
	account *account
	strip   bool   // the dead letter goes without the value
	clamped string // whose clock was ahead and is not believed: clockKafka, clockEdge; empty: none
}

// Whose clock was ahead, as the metric counts it.
const (
	clockKafka = "kafka"
	clockEdge  = "edge"
)

// maxAhead is how far past the poller's own clock a record's timestamp may be. A
// bridge or broker whose clock is further ahead, or that takes microseconds for
// milliseconds, would have its sessions be the newest for as long.
const maxAhead = time.Minute

// decode reads a record. Of an event it clamps times that are too far ahead: the
// record's timestamp to when it arrived, the event's own times to that timestamp. A
// dead letter keeps what it has.
func decode(r *kgo.Record, topicID string, arrived time.Time) incoming {
	in := incoming{record: r, topicID: topicID, arrived: arrived}
	if r.Attrs.IsControl() {
		return in
	}
	e, err := device.DecodeRecord(string(r.Key), r.Value)
	if err == nil {
		if r.Timestamp.After(arrived.Add(maxAhead)) {
			r.Timestamp, in.clamped = arrived, clockKafka
		}
		if e.ClampTimes(r.Timestamp) && in.clamped == "" {
			in.clamped = clockEdge
		}
		in.fold = device.FoldOf(e)
		return in
	}
	if !errors.As(err, &in.bad) {
		in.bad = &device.Invalid{Cause: "undecodable", Detail: err.Error()}
	}
	return in
}

// flight is a chunk that has left its lane. One goroutine at a time owns it.
type flight struct {
	lane      *lane
	chunk     *chunk
	ticket    *ticket
	batch     device.Batch
	fresh     bool      // false: look before sending whether it was applied already
	signalled time.Time // zero: it has not been
}

// add takes decoded records, in offset order. It returns the lanes to offer to
// the scheduler, because they became ready or have a change now, the dead
// letters, how often the offsets went back, and how many of in are markers of
// transactions, which are done at once.
func (a *assignment) add(in []incoming, end int64, deadLetterOf func(incoming) *kafka.Letter) (ready []*lane, letters []*deadLetter, rewinds, markers int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.span.Closed() || a.leaving {
		return nil, nil, 0, 0
	}
	a.end = end
	for _, i := range in {
		r := i.record
		if a.started < 0 {
			a.started, a.replayed = r.Offset, min(r.Offset+a.maxSpan, end)
		}
		a.next = r.Offset + 1
		if r.Attrs.IsControl() {
			markers++
			u := &offsets.Unit{Fetched: i.arrived, Written: r.Timestamp}
			if !a.span.Fetched(r.Offset, r.LeaderEpoch, u) {
				rewinds++
			}
			a.span.Complete(u)
			continue
		}
		grown := recordBytes
		u := &offsets.Unit{Fetched: i.arrived, Written: r.Timestamp}
		if i.bad != nil {
			l := &deadLetter{a: a, unit: u, letter: deadLetterOf(i), reason: string(i.bad.Cause)}
			l.bytes = l.letter.Bytes()
			grown += l.bytes
			letters = append(letters, l)
			a.outstanding++
		} else {
			l := a.laneLocked(i.fold, i.account)
			changes := !a.seqs.confirms(i.fold)
			c, more := l.add(i.fold, r, i.topicID, i.arrived)
			u, grown = &c.Unit, grown+more
			c.changes = c.changes || changes
			switch {
			case l.inFlight || !l.stopped.IsZero():
			case len(l.waiting) == 1 && c.Records() == 0:
				l.ready()
				ready = append(ready, l)
			case changes && !l.changes.Swap(true):
				ready = append(ready, l)
			}
		}
		if !a.span.Fetched(r.Offset, r.LeaderEpoch, u) {
			rewinds++
		}
		a.growLocked(grown)
	}
	return ready, letters, rewinds, markers
}

// begin notes that offset is the first to be fetched.
func (a *assignment) begin(offset int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next = offset
}

// skipped is how many offsets are gone of those before first, the offset that was
// fetched, because the log now begins at start.
func (a *assignment) skipped(first, start int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next < 0 {
		return 0
	}
	return max(0, min(first, start)-a.next)
}

func (a *assignment) laneLocked(f device.Fold, account *account) *lane {
	key := laneKey{f.RAE, f.Session}
	l := a.lanes[key]
	if l == nil {
		l = &lane{a: a, laneKey: key, account: account}
		a.lanes[key] = l
	}
	return l
}

func (a *assignment) growLocked(n int) {
	a.bytes += n
	a.total.add(n)
}

// take moves l's head chunk into flight. It is nil where nothing may be sent.
func (a *assignment) take(l *lane, t *ticket) *flight {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.span.Closed() || a.leaving || l.inFlight || len(l.waiting) == 0 {
		return nil
	}
	c := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	l.inFlight, l.stopped = true, time.Time{}
	a.outstanding++
	return &flight{lane: l, chunk: c, ticket: t, batch: c.batch(a.topic, a.partition), fresh: c.first >= a.replayed}
}

// applied marks f's records done. It reports how many there were, 0 for an ack
// that came too late, and whether the lane is ready again.
func (a *assignment) applied(f *flight) (records int, again bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := f.lane
	l.inFlight = false
	if a.span.Complete(&f.chunk.Unit) {
		records = f.chunk.Records()
		a.growLocked(-f.chunk.bytes - records*recordBytes)
		if f.signalled.IsZero() {
			a.tally.duplicates.Add(int64(records))
		} else {
			a.tally.applied.Add(int64(records))
		}
	}
	if again = len(l.waiting) > 0; again {
		l.ready()
	} else {
		delete(a.lanes, l.laneKey)
	}
	a.landedLocked()
	return records, again && !a.leaving
}

// refused puts f's chunk back and stops its lane until then.
func (a *assignment) refused(f *flight, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := f.lane
	l.inFlight, l.stopped = false, until
	l.waiting = append([]*chunk{f.chunk}, l.waiting...)
	l.ready()
	a.landedLocked()
}

// dropped forgets f: its assignment is closed.
func (a *assignment) dropped() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.landedLocked()
}

// deadLettered marks l's record done: its produce was acknowledged.
func (a *assignment) deadLettered(l *deadLetter) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	done := a.span.Complete(l.unit)
	if done {
		a.growLocked(-l.bytes - recordBytes)
		a.tally.deadLettered.Add(1)
	}
	a.landedLocked()
	return done
}

// landedLocked is called for each flight and dead letter that has ended.
func (a *assignment) landedLocked() {
	a.outstanding--
	if a.leaving && a.outstanding == 0 {
		close(a.idle)
	}
}

// sweep returns the lanes whose stop is over, how many are still stopped, and
// how many fill while their batch is in flight.
func (a *assignment) sweep(now time.Time) (ready []*lane, stopped, filling int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.lanes {
		switch {
		case l.inFlight && len(l.waiting) > 0:
			filling++
		case l.stopped.IsZero():
		case now.Before(l.stopped):
			stopped++
		default:
			l.stopped = time.Time{}
			l.ready()
			ready = append(ready, l)
		}
	}
	return ready, stopped, filling
}

// leave lets no new flight begin. idle is closed when the last one has ended.
func (a *assignment) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.leaving {
		a.leaving = true
		if a.outstanding == 0 {
			close(a.idle)
		}
	}
}

// close ends the assignment and returns what may be committed of it. From here
// on nothing that is late has an effect. What is not done is left.
func (a *assignment) close() (kgo.EpochOffset, bool) {
	a.leave()
	a.mu.Lock()
	defer a.mu.Unlock()
	offset, ok := a.uncommittedLocked()
	if !a.span.Closed() {
		a.left.Records, a.left.From, a.left.To = a.span.Undone()
		a.left.Partition = a.partition
	}
	a.span.Close()
	a.growLocked(-a.bytes)
	a.lanes = nil
	a.cancel()
	return offset, ok
}

// uncommittedLocked returns the offset that may be committed and has not been.
func (a *assignment) uncommittedLocked() (kgo.EpochOffset, bool) {
	o, ok := a.span.Committable()
	return o, ok && o.Offset > a.committed
}

// load is what an assignment holds, for the valve and the metrics.
type load struct {
	bytes, span int
	lag         int64
	// arrived is when the oldest record that is not done was fetched, written
	// its Kafka timestamp. Zero where all are done.
	arrived, written time.Time
}

func (a *assignment) load() load {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := load{bytes: a.bytes, span: a.span.Len()}
	if u := a.span.Oldest(); u != nil {
		l.arrived, l.written = u.Fetched, u.Written
	}
	if done := max(a.span.Next(), a.started); done >= 0 {
		l.lag = max(0, a.end-done)
	}
	return l
}

// unread is how many records of the partition were not fetched yet, as of the
// last fetch.
func (a *assignment) unread() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.span.Last() < 0 {
		return 0
	}
	return max(0, a.end-a.span.Last()-1)
}
