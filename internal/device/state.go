package device

import (
	"bytes"
	"maps"
	"slices"
	"time"
)

// State is what the cloud knows of one device session: everything its applied
// events come to. The workflow carries it from run to run; the store keeps the
// same as rows.
//
// A State is a Fold of all events so far, less what no longer matters: seqs up
// to the newest snapshot, and tombstones that it covers. So State, too, does
// not depend on the order in which events arrive, except in what it refuses:
// events past an edge's close, and attributes past the limits. A close that no edge
// sent refuses nothing: an event from past it reopens the session.
type State struct {
	RAE     string `json:"rae"`
	Session string `json:"session"`

	AsOf     int64  `json:"as_of"`              // highest seq applied
	Snapshot int64  `json:"snapshot,omitempty"` // seq of the newest snapshot applied
	Hash     string `json:"hash,omitempty"`     // its hash
	Seen     SeqSet `json:"seen,omitempty"`     // seqs applied past Snapshot
	Closed   int64  `json:"closed,omitempty"`   // seq of the closed event
	Reason   string `json:"reason,omitempty"`   // of the close
	// Provisional says that no edge sent the close: the cloud concluded that the
	// session had ended. Events past it reopen the session.
	Provisional bool `json:"provisional,omitempty"`

	First      time.Time `json:"first"`                // earliest observed time
	Last       time.Time `json:"last"`                 // latest observed time
	SnapshotAt time.Time `json:"snapshot_at,omitzero"` // when the edge took it

	Attributes map[string]Attribute `json:"attributes"` // with tombstones past Snapshot
}

// Change is what applying a Fold does to a State.
type Change struct {
	// Write holds the attributes to upsert, tombstones among them: where a
	// newer snapshot no longer lists an attribute, its tombstone is here
	// with the snapshot's seq.
	Write map[string]Attribute
	// Repaired names the attributes that a snapshot had to correct: what the
	// deltas that did arrive had missed.
	Repaired []string
	// Corrected names those of Repaired that are written though the seq is not
	// newer than what was known: no event was missing, and the edge's list has
	// something else all the same.
	Corrected []string
	// OverLimit names the attributes that were refused because the session's
	// state would no longer fit one event.
	OverLimit []string
	// AfterClose counts the events that were refused because the session was
	// closed before them.
	AfterClose int64
	// Duplicates counts the events that had been applied before, as far as
	// the state still knows: those up to the newest snapshot count too.
	Duplicates int64
	// Stale counts the attribute writes of events that were new and that lost
	// against a newer seq.
	Stale int64
	// Reopened says that the session was closed provisionally, and that an event
	// past the close has reopened it.
	Reopened bool
	// Healed are the seqs that were missing and that a snapshot now covers.
	Healed SeqSet
}

// Missing are the seqs that have not been applied, and that no snapshot covers,
// below the highest one that was.
func (s *State) Missing() SeqSet { return s.Seen.Holes(s.Snapshot + 1) }

// Apply folds f into s and says what changed. f is not kept.
func (s *State) Apply(f Fold) Change {
	var c Change
	if s.Provisional && f.Seqs.Last() > s.Closed {
		s.Closed, s.Reason, s.Provisional = 0, "", false
		c.Reopened = true
	}
	f, c.AfterClose = s.refuseAfterClose(f)
	if len(f.Seqs) == 0 {
		return c
	}
	known := SeqSet{}
	if s.Snapshot > 0 {
		known = SeqSet{{1, s.Snapshot}}
	}
	known = known.Union(s.Seen)
	c.Duplicates = known.Len() + f.Seqs.Len() - known.Union(f.Seqs).Len()
	missing := s.Seen.Union(f.Seqs.After(s.Snapshot)).Holes(s.Snapshot + 1)

	s.write(f, known, &c)

	if s.RAE == "" {
		s.RAE, s.Session, s.First, s.Last = f.RAE, f.Session, f.First, f.Last
	}
	if f.First.Before(s.First) {
		s.First = f.First
	}
	if f.Last.After(s.Last) {
		s.Last = f.Last
	}
	if f.Snapshot > s.Snapshot {
		s.Snapshot, s.Hash, s.SnapshotAt = f.Snapshot, f.Hash, f.SnapshotAt
		for _, r := range missing {
			if r.From <= s.Snapshot {
				c.Healed = append(c.Healed, Range{r.From, min(r.To, s.Snapshot)})
			}
		}
	}
	s.Seen = s.Seen.Union(f.Seqs).After(s.Snapshot)
	s.AsOf = max(s.AsOf, f.Seqs.Last())
	if f.Closed != 0 && (s.Closed == 0 || s.Provisional || f.Closed < s.Closed) {
		s.Closed, s.Reason, s.Provisional = f.Closed, f.Reason, false
	}
	return c
}

// CloseProvisionally closes s behind the newest event that it has, for a reason
// that is not the edge's word. It takes no seq. A State that is empty or closed stays
// as it is.
func (s *State) CloseProvisionally(reason string) {
	if s.AsOf > 0 && s.Closed == 0 {
		s.Closed, s.Reason, s.Provisional = s.AsOf, reason, true
	}
}

// Final is the seq past which events are refused for good, or 0.
func (s *State) Final() int64 {
	if s.Provisional {
		return 0
	}
	return s.Closed
}

// write applies f's attributes: where f has the newer snapshot, that decides up
// to its seq, else the state's own does; beyond both, the newest seq wins.
func (s *State) write(f Fold, known SeqSet, c *Change) {
	c.Write = make(map[string]Attribute)
	if s.Attributes == nil {
		s.Attributes = make(map[string]Attribute)
	}
	seen := s.Seen.Union(f.Seqs)
	if f.Snapshot > s.Snapshot {
		s.tombstone(f, seen, c)
	}
	live, size := s.live()
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		a, old := f.Attributes[name], s.Attributes[name]
		corrects := s.corrects(f, name)
		if !corrects && (a.Seq <= old.Seq || a.Seq <= s.Snapshot && f.Snapshot < s.Snapshot) {
			if a.Seq < old.Seq && !known.Has(a.Seq) {
				c.Stale++
			}
			continue
		}
		if !a.Removed() {
			grown, more := attributeBytes(name, a.Value), 1
			if !old.Removed() {
				grown, more = grown-attributeBytes(name, old.Value), 0
			}
			if live+more > MaxAttributes || size+grown > MaxStateBytes {
				c.OverLimit = append(c.OverLimit, name)
				continue
			}
			live, size = live+more, size+grown
		} else if !old.Removed() {
			live, size = live-1, size-attributeBytes(name, old.Value)
		} else if old.Seq == 0 && len(s.Attributes) >= 2*MaxAttributes {
			c.OverLimit = append(c.OverLimit, name)
			continue
		}
		if corrects {
			c.Corrected = append(c.Corrected, name)
		}
		if corrects || a.Seq <= f.Snapshot && !seen.Has(a.Seq) {
			c.Repaired = append(c.Repaired, name)
		}
		s.Attributes[name], c.Write[name] = a, a
	}
	slices.Sort(c.Repaired)
	if f.Snapshot > s.Snapshot {
		maps.DeleteFunc(s.Attributes, func(_ string, a Attribute) bool { return a.Removed() && a.Seq <= f.Snapshot })
	}
}

// corrects reports whether f's snapshot lists what contradicts s, though by
// seq it is no news: another value of the same event, or an event older than
// the one that s knows, or than the snapshot that did not list it. The newer
// snapshot decides.
func (s *State) corrects(f Fold, name string) bool {
	a, old := f.Attributes[name], s.Attributes[name]
	if f.Snapshot <= s.Snapshot || a.Seq > f.Snapshot || old.Seq > f.Snapshot {
		return false
	}
	return a.Seq <= max(old.Seq, s.Snapshot) && (a.Seq != old.Seq || !bytes.Equal(a.Value, old.Value))
}

// tombstone removes what f's snapshot no longer lists. That is a repair unless
// every event since the attribute was set is known: then one of them removed it.
func (s *State) tombstone(f Fold, seen SeqSet, c *Change) {
	for _, name := range slices.Sorted(maps.Keys(s.Attributes)) {
		old := s.Attributes[name]
		if _, listed := f.Attributes[name]; listed || old.Seq > f.Snapshot || old.Removed() {
			continue
		}
		gone := Attribute{Value: null, Seq: f.Snapshot, At: f.SnapshotAt}
		c.Write[name], s.Attributes[name] = gone, gone
		since := max(old.Seq, s.Snapshot) + 1
		if f.Confirms() || !seen.Covers(SeqSet{{since, f.Snapshot}}) {
			c.Repaired = append(c.Repaired, name)
		}
	}
}

func (s *State) live() (n, size int) {
	for _, name := range slices.Sorted(maps.Keys(s.Attributes)) {
		if a := s.Attributes[name]; !a.Removed() {
			n, size = n+1, size+attributeBytes(name, a.Value)
		}
	}
	return n, size
}

// refuseAfterClose returns f without the events past the close, be it one that
// s knows or one in f itself.
func (s *State) refuseAfterClose(f Fold) (Fold, int64) {
	closed := s.Final()
	if f.Closed != 0 && (closed == 0 || f.Closed < closed) {
		closed = f.Closed
	}
	if closed == 0 || f.Seqs.Last() <= closed {
		return f, 0
	}
	if f.Snapshot > closed {
		// Its list may hide what it overwrote: nothing of it can be kept.
		return Fold{}, f.Events()
	}
	late := f.Seqs.After(closed).Len()
	kept := SeqSet{}
	for _, r := range f.Seqs {
		if r.From <= closed {
			kept = append(kept, Range{r.From, min(r.To, closed)})
		}
	}
	f.Seqs = kept
	attributes := make(map[string]Attribute, len(f.Attributes))
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		if a := f.Attributes[name]; a.Seq <= closed {
			attributes[name] = a
		}
	}
	f.Attributes = attributes
	if f.Closed > closed {
		f.Closed, f.Reason = 0, ""
	}
	return f, late
}

// Live returns the attributes that have a value.
func (s *State) Live() map[string]Attribute {
	out := maps.Clone(s.Attributes)
	maps.DeleteFunc(out, func(_ string, a Attribute) bool { return a.Removed() })
	return out
}
