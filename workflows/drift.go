package workflows

import (
	"maps"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// compareWithSnapshot compares the session's own record with the snapshot that f
// brings. What differs though no event was missing has drifted.
//
// Requires: f has a newer snapshot than s, and is not yet applied to s.
//
// The session's own record is what s has, with what the other events of the fold
// say: those are merged with the snapshot's list and cannot be told from it any
// more. Equal attributes have an equal hash, so nothing is hashed unless something
// drifted.
func compareWithSnapshot(s *device.State, f device.Fold, now time.Time) *SnapshotCheck {
	n := f.Snapshot
	check := &SnapshotCheck{Seq: n, Edge: f.Hash, At: now}
	seen := seenSeqs(s)
	if !seen.Union(f.Seqs).Covers(device.SeqSet{{From: 1, To: n}}) {
		return check // events are missing: nothing can be said
	}
	own := make(map[string]device.Attribute)
	check.Drift = append(driftOfListed(s, f, seen, own), driftOfUnlisted(s, f, seen, own)...)
	if s.AsOf < n && f.Seqs.Last() == n { // otherwise newer events hide a part
		check.Cloud = f.Hash
		if len(check.Drift) > 0 {
			check.Cloud = device.Hash(own)
		}
	}
	return check
}

// driftOfListed returns, sorted, the attributes of the snapshot's list that the
// session has otherwise, and adds the session's own form of each to own.
func driftOfListed(s *device.State, f device.Fold, seen device.SeqSet, own map[string]device.Attribute) (drift []string) {
	n := f.Snapshot
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		listed := f.Attributes[name]
		if listed.Seq > n {
			continue // a newer event of the fold hides what the list says
		}
		own[name] = listed
		have, ok := s.Attributes[name]
		switch {
		case have.Seq > n:
			continue
		case !seen.Has(listed.Seq) && have.Seq < listed.Seq:
			continue // it came with this fold
		case !ok || have.Removed():
			delete(own, name)
		case have.Seq == listed.Seq && string(have.Value) == string(listed.Value):
			continue
		default:
			own[name] = have
		}
		drift = append(drift, name)
	}
	return drift
}

// driftOfUnlisted returns, sorted, the attributes that the session has and the
// snapshot's list has not, and adds them to own. One that an event of the fold may
// have removed is none.
func driftOfUnlisted(s *device.State, f device.Fold, seen device.SeqSet, own map[string]device.Attribute) (drift []string) {
	n := f.Snapshot
	for _, name := range slices.Sorted(maps.Keys(s.Attributes)) {
		have := s.Attributes[name]
		if _, listed := f.Attributes[name]; listed || have.Removed() || have.Seq > n {
			continue
		}
		since := device.Range{From: max(have.Seq, s.Snapshot) + 1, To: n - 1}
		if since.From > since.To || seen.Covers(device.SeqSet{since}) {
			own[name] = have
			drift = append(drift, name)
		}
	}
	return drift
}

// recordSnapshotCheck takes over the comparison with a snapshot that was applied;
// nil: the apply had none.
func (s *session) recordSnapshotCheck(ctx workflow.Context, c *SnapshotCheck) {
	if c == nil {
		return
	}
	s.Check, s.LastSnapshotAt, s.Repair.Overdue = c, c.At, false
	s.Counters.Drift += int64(len(c.Drift))
	s.add(ctx, metricDrift, int64(len(c.Drift)))
	if len(c.Drift) > 0 {
		s.log.Error("drift: the session differed from the edge's snapshot though no event was missing",
			"snapshot", c.Seq, "attributes", c.Drift, "edge_hash", c.Edge, "cloud_hash", c.Cloud)
	}
}
