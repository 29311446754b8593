package poller

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// unit is a group of records that are done together: a fold, or a dead letter.
type unit struct {
	done    bool
	records int
	arrived time.Time // when its first record was fetched
	written time.Time // Kafka timestamp of its first record
}

// tracker knows which fetched offsets of one assignment are done.
//
// It holds: next is the offset after the last record below which every fetched
// record is done. Offsets that were never fetched (transaction markers,
// compaction) do not count. Once closed, nothing is marked and nothing may be
// committed, whatever comes late. Each assignment has a fresh one; its
// assignment's lock guards it.
type tracker struct {
	pending []pendingRecord // in the order they were fetched; from head on
	head    int
	next    kgo.EpochOffset // Offset -1: nothing is done yet
	last    int64           // last fetched offset, -1 for none
	closed  bool
}

type pendingRecord struct {
	offset int64
	epoch  int32
	unit   *unit
}

func newTracker() tracker {
	return tracker{next: kgo.EpochOffset{Epoch: -1, Offset: -1}, last: -1}
}

// fetched notes that the record at offset belongs to u. It reports false where
// the offset is not above all earlier ones: the log was cut or made again.
func (t *tracker) fetched(offset int64, epoch int32, u *unit) bool {
	ahead := offset > t.last
	u.records++
	t.last = offset
	t.pending = append(t.pending, pendingRecord{offset, epoch, u})
	return ahead
}

// complete marks u's records done. It reports false, and does nothing, when the
// partition is no longer ours or u was done before.
func (t *tracker) complete(u *unit) bool {
	if t.closed || u.done {
		return false
	}
	u.done = true
	for t.head < len(t.pending) && t.pending[t.head].unit.done {
		r := t.pending[t.head]
		t.pending[t.head].unit = nil
		t.head++
		t.next = kgo.EpochOffset{Epoch: r.epoch, Offset: r.offset + 1}
	}
	if t.head > len(t.pending)/2 {
		n := copy(t.pending, t.pending[t.head:])
		clear(t.pending[n:])
		t.pending, t.head = t.pending[:n], 0
	}
	return true
}

// committable is what may be committed, if anything.
func (t *tracker) committable() (kgo.EpochOffset, bool) {
	return t.next, !t.closed && t.next.Offset >= 0
}

// span counts the records from the first that is not done to the last fetched.
func (t *tracker) span() int { return len(t.pending) - t.head }

// first is the unit of the oldest record that is not done, nil where all are.
// That record is the unit's first, because a unit is done as a whole.
func (t *tracker) first() *unit {
	if t.head == len(t.pending) {
		return nil
	}
	return t.pending[t.head].unit
}

// left says which records are not done: how many, the first and the last.
func (t *tracker) left() (records int, from, to int64) {
	for _, r := range t.pending[t.head:] {
		if r.unit.done {
			continue
		}
		if records == 0 {
			from = r.offset
		}
		records++
		to = r.offset
	}
	return records, from, to
}
