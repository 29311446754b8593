package workflows

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// carriedVersion is the form of CarriedState that this code writes. Fields may be
// added without a new version. A field whose meaning changes needs a new one, and
// code that still reads the old.
const carriedVersion = 1

// CarriedState is the whole state of a session's workflow: what one run hands to
// the next.
//
// Invariant: nothing that must outlive a run is kept anywhere else.
type CarriedState struct {
	Version      int               `json:"v"`
	State        device.State      `json:"state"`
	Positions    []device.Position `json:"positions,omitempty"`
	Revision     Revision          `json:"revision,omitzero"` // of the row that State and Positions are of
	LastReceived time.Time         `json:"received,omitzero"` // Kafka timestamp of the newest record applied

	// Lost are seqs that had been applied and that the database then lacked, until
	// their events or a snapshot bring them back.
	Lost     device.SeqSet `json:"lost,omitempty"`
	Mismatch *Mismatch     `json:"mismatch,omitempty"` // the newest

	Sync      SyncState `json:"sync"`
	SyncSince time.Time `json:"since,omitzero"`

	Counters       Counters         `json:"counters"`
	RecentRefusals []Refusal        `json:"refused,omitempty"` // the newest, at most maxRefused
	Runs           int              `json:"runs"`
	Builds         []AppliedByBuild `json:"builds,omitempty"` // the last to apply, newest last, at most maxBuilds

	// Waiting are batches that were received and not yet applied, in order of
	// arrival. PendingRefusals are refusals whose positions the database does not
	// have yet.
	Waiting         []WaitingBatch `json:"waiting,omitempty"`
	PendingRefusals []Refusal      `json:"refusing,omitempty"`

	SearchAttributes bool `json:"search_attributes,omitempty"` // see LoadedSession

	Level          int            `json:"level,omitempty"`      // see the constant Level
	LastSignalAt   time.Time      `json:"active,omitzero"`      // when the newest batch was received
	LastSnapshotAt time.Time      `json:"snapshotted,omitzero"` // when the newest snapshot was applied, or the chain began
	Repair         Repair         `json:"repair,omitzero"`
	Check          *SnapshotCheck `json:"check,omitempty"`

	// CloseReason is that of a close that is scheduled; empty: none is.
	// CloseQuiet is how long no batch must have come before it is done.
	CloseReason string        `json:"closing,omitempty"`
	CloseQuiet  time.Duration `json:"quiet,omitempty"`

	TestState *TestState `json:"test,omitempty"` // of the device; nil: not read yet
}

// WaitingBatch is a batch and the bytes its signal had.
type WaitingBatch struct {
	Batch device.Batch `json:"batch"`
	Bytes int          `json:"bytes"`
}

// maxRefused bounds the refusals a session remembers. Counters.Refused goes on.
const maxRefused = 16

// nextRun returns what a run begins with; c is nil in the first run of a chain. It
// panics for a version that this code does not know. That fails the workflow task,
// not the workflow: Temporal tries the task again until a worker that knows the
// version runs it.
func (c *CarriedState) nextRun() CarriedState {
	if c == nil {
		return CarriedState{Version: carriedVersion, Sync: SyncLoading, Runs: 1}
	}
	if c.Version != carriedVersion {
		panic(fmt.Sprintf("the previous run carried state version %d, this worker reads version %d: run a worker of the version that wrote it, or a newer one", c.Version, carriedVersion))
	}
	out := *c
	out.Runs++
	return out
}

// refusalBytes is an upper bound of the bytes of a pending refusal.
const refusalBytes = 1 << 10

// waitingBytes is about how many bytes what waits adds to the carried state.
func (c *CarriedState) waitingBytes() int {
	n := len(c.PendingRefusals) * refusalBytes
	for _, w := range c.Waiting {
		n += w.Bytes
	}
	return n
}

// nothingWaits reports whether no batch waits to be applied, or quarantined.
func (c *CarriedState) nothingWaits() bool { return len(c.Waiting) == 0 && len(c.PendingRefusals) == 0 }

func (c *CarriedState) rememberRefusal(r Refusal) {
	c.Counters.Refused++
	c.RecentRefusals = append(c.RecentRefusals, r)
	if n := len(c.RecentRefusals) - maxRefused; n > 0 {
		c.RecentRefusals = slices.Delete(c.RecentRefusals, 0, n)
	}
}

// knownSeqs are the seqs that need not be applied again: seen, or covered by a
// snapshot, or past the edge's close and so refused for ever.
func knownSeqs(s *device.State) device.SeqSet {
	known := seenSeqs(s)
	if final := s.Final(); final > 0 {
		known = known.Union(device.SeqSet{{From: final, To: device.MaxSeq}})
	}
	return known
}

// seenSeqs are the seqs whose events the state has, be it by a snapshot.
func seenSeqs(s *device.State) device.SeqSet {
	var seen device.SeqSet
	if s.Snapshot > 0 {
		seen = device.SeqSet{{From: 1, To: s.Snapshot}}
	}
	return seen.Union(s.Seen)
}

// cloneState returns a state that Apply may change without changing s.
func cloneState(s device.State) device.State {
	s.Attributes = maps.Clone(s.Attributes)
	return s
}

func cloneFold(f device.Fold) device.Fold {
	f.Attributes = maps.Clone(f.Attributes)
	return f
}
