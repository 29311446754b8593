// Package offsets tracks which fetched records of a partition are done, and
// hence which offset may be committed.
//
// Span is the arithmetic of one assignment, for a consumer that has a lock of
// its own for each partition. Tracker holds a Span for each partition of a topic
// behind one lock, for a consumer that has none.
package offsets

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Unit is a group of records that are done together: one record, or all that
// were folded into one batch. The zero Unit is ready to use.
type Unit struct {
	// Fetched is when the unit's first record was fetched, Written that
	// record's Kafka timestamp. They are for the user: nothing here reads them.
	Fetched, Written time.Time

	records int
	done    bool
}

// Records is how many fetched records belong to u.
func (u *Unit) Records() int { return u.records }

// Span tracks the records of one assignment of a partition. A partition that is
// assigned again has a fresh Span. Not safe for concurrent use.
//
// Invariant: the committable offset is one past the last record below which
// every fetched record is done. Offsets that were never fetched (transaction
// markers, compaction) do not count.
//
// Invariant: once a Span is closed, nothing is marked done and nothing is
// committable, whatever comes late. Requires: what reads Committable hands it to
// the client under the lock under which the Span is closed. franz-go checks no
// ownership at a commit, so a later one would overwrite the next owner's.
type Span struct {
	pending []pendingRecord // in the order they were fetched; from head on
	head    int
	next    kgo.EpochOffset // Offset -1: nothing is done yet
	last    int64           // last fetched offset, -1 for none
	closed  bool
}

type pendingRecord struct {
	offset int64
	epoch  int32
	unit   *Unit
}

// NewSpan returns the Span of a new assignment.
func NewSpan() Span {
	return Span{next: kgo.EpochOffset{Epoch: -1, Offset: -1}, last: -1}
}

// Fetched notes that the record at offset belongs to u. It reports false where
// the offset is not above all earlier ones: the log was cut or made again.
func (s *Span) Fetched(offset int64, epoch int32, u *Unit) (ahead bool) {
	ahead = offset > s.last
	u.records++
	s.last = offset
	s.pending = append(s.pending, pendingRecord{offset, epoch, u})
	return ahead
}

// Complete marks u's records done. It reports false, and does nothing, where the
// Span is closed or u was done before.
func (s *Span) Complete(u *Unit) bool {
	if s.closed || u.done {
		return false
	}
	u.done = true
	for s.head < len(s.pending) && s.pending[s.head].unit.done {
		r := s.pending[s.head]
		s.pending[s.head].unit = nil
		s.head++
		s.next = kgo.EpochOffset{Epoch: r.epoch, Offset: r.offset + 1}
	}
	if s.head > len(s.pending)/2 {
		n := copy(s.pending, s.pending[s.head:])
		clear(s.pending[n:])
		s.pending, s.head = s.pending[:n], 0
	}
	return true
}

// Close ends the Span: its partition is no longer ours.
func (s *Span) Close() { s.closed = true }

// Closed reports whether Close was called.
func (s *Span) Closed() bool { return s.closed }

// Committable returns the offset that may be committed, and false for none.
func (s *Span) Committable() (kgo.EpochOffset, bool) {
	return s.next, !s.closed && s.next.Offset >= 0
}

// Next is the offset up to which all fetched records are done, -1 where none is.
func (s *Span) Next() int64 { return s.next.Offset }

// Last is the offset that was fetched last, -1 for none.
func (s *Span) Last() int64 { return s.last }

// Len counts the records from the first that is not done to the last fetched.
func (s *Span) Len() int { return len(s.pending) - s.head }

// Oldest returns the unit of the oldest record that is not done, nil where all
// are. That record is the unit's first, because a unit is done as a whole.
func (s *Span) Oldest() *Unit {
	if s.head == len(s.pending) {
		return nil
	}
	return s.pending[s.head].unit
}

// Undone says which records are not done: how many, and the first and the last
// offset.
func (s *Span) Undone() (records int, first, last int64) {
	for _, r := range s.pending[s.head:] {
		if r.unit.done {
			continue
		}
		if records == 0 {
			first = r.offset
		}
		records++
		last = r.offset
	}
	return records, first, last
}
