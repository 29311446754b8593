package device

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Fold is what a run of a session's events comes to: the newest value of each
// attribute they touch. Folding is the whole of Rollcall's back-pressure: a
// device that changes a hundred times while its last batch is in flight costs
// one signal and one row for each changed attribute.
//
// The law, which property tests hold: Merge is associative, commutative and
// idempotent, so folds of the same events are equal whatever the order, the
// grouping and the repetitions in which the events arrived.
type Fold struct {
	RAE     string `json:"rae"`
	Session string `json:"session"`
	// Seqs are the events in it.
	Seqs SeqSet `json:"seqs"`
	// Snapshot is the seq of the newest snapshot in it, or 0. Attributes
	// with a seq up to it are that snapshot's list, complete: what is not
	// listed has no value at Snapshot.
	Snapshot int64 `json:"snapshot,omitempty"`
	// Hash is that snapshot's hash, SnapshotAt its observed time.
	Hash       string    `json:"hash,omitempty"`
	SnapshotAt time.Time `json:"snapshot_at,omitzero"`
	// Closed is the seq of the closed event, or 0; Reason is its reason.
	Closed int64  `json:"closed,omitempty"`
	Reason string `json:"reason,omitempty"`
	// First and Last are the earliest and the latest time at which the edge is
	// known to have observed the device, by its clock (see Event.Observed). A
	// snapshot is no observation; Last is zero where there was none.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`

	Attributes map[string]Attribute `json:"attributes,omitempty"`
}

// FoldOf is the fold of one event. It shares the event's attributes.
func FoldOf(e Event) Fold {
	f := Fold{
		RAE: e.RAE, Session: e.Session, Seqs: SeqSet{{e.Seq, e.Seq}},
		First: e.Time, Attributes: e.Attributes,
	}
	f.Last = e.Observed()
	if !f.Last.IsZero() && f.Last.Before(f.First) {
		f.First = f.Last
	}
	switch e.Type {
	case Snapshot:
		f.Snapshot, f.Hash, f.SnapshotAt = e.Seq, e.Hash, e.Time
	case Closed:
		f.Closed, f.Reason = e.Seq, e.Reason
	}
	return f
}

// Merge returns the fold of the events of both. It may use a's and b's maps:
// forget them.
//
// Requires: both are of one RAE and one session. Merge panics where they are not:
// one RAE's events must never become another's, and whoever merges has compared
// them before.
func Merge(a, b Fold) Fold {
	if len(a.Seqs) == 0 {
		return b
	}
	if len(b.Seqs) == 0 {
		return a
	}
	if a.RAE != b.RAE || a.Session != b.Session {
		panic(fmt.Sprintf("device: merge of folds of RAE %q session %q and RAE %q session %q", a.RAE, a.Session, b.RAE, b.Session))
	}
	hi, lo := a, b
	if lo.Snapshot > hi.Snapshot {
		hi, lo = lo, hi
	}
	if hi.Attributes == nil {
		hi.Attributes = make(map[string]Attribute, len(lo.Attributes))
	}
	mergeAttributes(hi.Attributes, hi.Snapshot, lo)
	hi.Seqs = a.Seqs.Union(b.Seqs)
	if lo.Snapshot == hi.Snapshot {
		hi.Hash = max(hi.Hash, lo.Hash)
		if lo.SnapshotAt.After(hi.SnapshotAt) {
			hi.SnapshotAt = lo.SnapshotAt
		}
	}
	switch {
	case hi.Closed == 0, lo.Closed != 0 && lo.Closed < hi.Closed:
		hi.Closed, hi.Reason = lo.Closed, lo.Reason
	case hi.Closed == lo.Closed:
		hi.Reason = max(hi.Reason, lo.Reason)
	}
	if lo.First.Before(hi.First) {
		hi.First = lo.First
	}
	if lo.Last.After(hi.Last) {
		hi.Last = lo.Last
	}
	return hi
}

// mergeAttributes folds lo into attributes, whose newest snapshot, at seq
// snapshot, is at least as new as lo's: that snapshot's list decides up to it,
// the newest seq beyond.
func mergeAttributes(attributes map[string]Attribute, snapshot int64, lo Fold) {
	for _, name := range slices.Sorted(maps.Keys(lo.Attributes)) {
		a := lo.Attributes[name]
		if a.Seq <= snapshot && lo.Snapshot < snapshot {
			continue
		}
		if old, ok := attributes[name]; !ok || a.newer(old) {
			attributes[name] = a
		}
	}
}

// Size estimates the bytes that f holds in memory and in a signal, from above.
func (f Fold) Size() int {
	n := 512 + len(f.RAE) + len(f.Reason) + 48*len(f.Seqs)
	for name, a := range f.Attributes {
		n += len(name) + len(a.Value) + attributeOverhead + 48
	}
	return n
}

// Events counts the events in f.
func (f Fold) Events() int64 { return f.Seqs.Len() }

// Confirms reports whether f only confirms what its session should already be:
// a snapshot and nothing else.
func (f Fold) Confirms() bool {
	return f.Closed == 0 && f.Snapshot != 0 && f.Seqs.Len() == 1
}
