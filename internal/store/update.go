package store

import (
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Update is what one apply of one session writes: what changed, the session's
// row after the change, and how far ingestion has come.
type Update struct {
	RAE     string
	Session string

	// The device.State after applying.
	AsOf        int64
	Snapshot    int64
	SnapshotAt  time.Time
	Hash        string // of that snapshot
	Seen        device.SeqSet
	Missing     device.SeqSet
	Closed      int64
	Reason      string
	First, Last time.Time
	Received    time.Time

	Write     map[string]device.Attribute // upserts and tombstones
	Positions []device.Position

	// Increments of the session's counters.
	Repaired   []string
	OverLimit  []string
	Events     int64
	Records    int64
	Duplicates int64
	AfterClose int64
}
