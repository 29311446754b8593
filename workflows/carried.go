package workflows

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// carriedVersion is the form of CarriedState that this code writes. Fields may be
// added without a new version; a changed meaning needs one, and code that
// still reads the old.
const carriedVersion = 1

// CarriedState is the whole state of a session workflow: what one run hands to the
// next. Nothing that matters lives outside it.
type CarriedState struct {
	Version      int               `json:"v"`
	State        device.State      `json:"state"`
	Positions    []device.Position `json:"positions,omitempty"`
	LastReceived time.Time         `json:"received,omitzero"`

	Sync      SyncState `json:"sync"`
	SyncSince time.Time `json:"since,omitzero"`

	Counters       Counters         `json:"counters"`
	RecentRefusals []Refusal        `json:"refused,omitempty"` // the newest, at most maxRefused
	Runs           int              `json:"runs"`
	Builds         []AppliedByBuild `json:"builds,omitempty"` // the last to apply, newest last, at most maxBuilds

	// Waiting are batches that were taken from the signal channel and not
	// yet applied, in order of arrival; Refusing are refusals whose position
	// the database does not have yet.
	Waiting         []WaitingBatch `json:"waiting,omitempty"`
	PendingRefusals []Refusal      `json:"refusing,omitempty"`

	SearchAttributes bool `json:"search_attributes,omitempty"`

	Level          int            `json:"level,omitempty"`      // see Level
	LastSignalAt   time.Time      `json:"active,omitzero"`      // when the newest signal came
	LastSnapshotAt time.Time      `json:"snapshotted,omitzero"` // when the newest snapshot was applied, or the chain began
	Repair         Repair         `json:"repair,omitzero"`
	Check          *SnapshotCheck `json:"check,omitempty"`
	CloseReason    string         `json:"closing,omitempty"` // the reason of a close that is to be done

	// Quiet is how long nothing must have come before Closing is done.
	CloseQuiet time.Duration `json:"quiet,omitempty"`

	TestState *TestState `json:"test,omitempty"` // of the device; nil: to be read
}

// WaitingBatch is a batch and the bytes its signal had.
type WaitingBatch struct {
	Batch device.Batch `json:"batch"`
	Bytes int          `json:"bytes"`
}

// maxRefused bounds the refusals a session remembers. The counter goes on.
const maxRefused = 16

// next is what a run begins with. A version that this code does not know stops
// the workflow task, not the workflow: Temporal tries the task again until a
// worker that knows it is there.
func (c *CarriedState) next() CarriedState {
	if c == nil {
		return CarriedState{Version: carriedVersion, Sync: SyncLoading, Runs: 1}
	}
	if c.Version != carriedVersion {
		panic(fmt.Sprintf("the run before carried state version %d, this worker reads version %d: run a worker of the version that wrote it, or a newer one", c.Version, carriedVersion))
	}
	out := *c
	out.Runs++
	return out
}

// refusalBytes is what a waiting refusal counts, from above.
const refusalBytes = 1 << 10

// bytes is what waits, about as large as it is when it is carried.
func (c *CarriedState) bytes() int {
	n := len(c.PendingRefusals) * refusalBytes
	for _, w := range c.Waiting {
		n += w.Bytes
	}
	return n
}

// idle reports whether nothing waits to be applied.
func (c *CarriedState) idle() bool { return len(c.Waiting) == 0 && len(c.PendingRefusals) == 0 }

func (c *CarriedState) refuse(r Refusal) {
	c.Counters.Refused++
	c.RecentRefusals = append(c.RecentRefusals, r)
	if n := len(c.RecentRefusals) - maxRefused; n > 0 {
		c.RecentRefusals = slices.Delete(c.RecentRefusals, 0, n)
	}
}

// known are the seqs that need not be applied again: seen, or covered by a
// snapshot, or past the close and so refused for ever.
func known(s *device.State) device.SeqSet {
	var k device.SeqSet
	if s.Snapshot > 0 {
		k = device.SeqSet{{From: 1, To: s.Snapshot}}
	}
	k = k.Union(s.Seen)
	if s.Closed > 0 {
		k = k.Union(device.SeqSet{{From: s.Closed, To: device.MaxSeq}})
	}
	return k
}

// cloneState returns a state that Apply may change without touching s.
func cloneState(s device.State) device.State {
	s.Attributes = maps.Clone(s.Attributes)
	return s
}

func cloneFold(f device.Fold) device.Fold {
	f.Attributes = maps.Clone(f.Attributes)
	return f
}
