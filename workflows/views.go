package workflows

import (
	"slices"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// What the workflow says of a session: the answers to its queries, and its result.

// SyncState is how a session's record relates to the edge's.
type SyncState string

// Sync states.
const (
	SyncLoading SyncState = "loading" // asking the database what it knows
	SyncLive    SyncState = "live"    // every event up to as_of_seq is applied
	SyncGap     SyncState = "gap"     // events are missing below as_of_seq, or a snapshot is overdue; newer events go on being applied
	SyncResync  SyncState = "resync"  // as gap, and the edge has been asked for a snapshot
)

// Counters count from the first run of a chain. A session that is started again
// from the database goes on from the counters that the database keeps, and counts
// the others from 0.
type Counters struct {
	Signals    int64 `json:"signals"`     // received
	Batches    int64 `json:"batches"`     // applied
	Events     int64 `json:"events"`      // applied, each once
	Records    int64 `json:"records"`     // Kafka records in the applied batches
	Duplicates int64 `json:"duplicates"`  // events that had been applied before
	AfterClose int64 `json:"after_close"` // events refused because the session was closed
	OverLimit  int64 `json:"over_limit"`  // attributes refused because the state would not fit one event
	Repaired   int64 `json:"repaired"`    // attributes that a snapshot had to correct
	Refused    int64 `json:"refused"`     // batches that can never be applied
	Stale      int64 `json:"stale"`       // attribute writes that lost against a newer seq
	Drift      int64 `json:"drift"`       // attributes that differed from a snapshot though no event was missing
	Requests   int64 `json:"requests"`    // snapshots asked for
	Mismatches int64 `json:"mismatches"`  // times the database lacked what had been applied: see Mismatch
	Reopened   int64 `json:"reopened"`    // times that an event past a close that no edge sent has reopened it
}

// setStored sets the counters that the database keeps to what it has.
func (c *Counters) setStored(stored Counters) {
	c.Events = stored.Events
	c.Records = stored.Records
	c.Duplicates = stored.Duplicates
	c.AfterClose = stored.AfterClose
	c.OverLimit = stored.OverLimit
	c.Repaired = stored.Repaired
	c.Stale = stored.Stale
	c.Reopened = stored.Reopened
}

// SnapshotCheck compares the session with the edge, at the newest snapshot applied.
type SnapshotCheck struct {
	Seq  int64  `json:"seq"`  // of that snapshot
	Edge string `json:"edge"` // the edge's hash of its state at Seq
	// Cloud is the hash of the session's own state at Seq, before the snapshot
	// was applied. Empty: events were missing, or newer ones had come first, so
	// the two cannot be compared.
	Cloud string `json:"cloud,omitempty"`
	// Drift names the attributes that differed though no event was missing.
	Drift []string `json:"drift,omitempty"`
	// Repaired names the attributes that the snapshot had to correct.
	Repaired []string  `json:"repaired,omitempty"`
	At       time.Time `json:"at"`
}

// Refusal is a batch that was refused for good. Its events are missing from the
// session until a snapshot heals it. Its coordinates say where in Kafka its records
// are.
type Refusal struct {
	Topic     string    `json:"topic,omitempty"`    // empty: the payload had no readable coordinates
	TopicID   string    `json:"topic_id,omitempty"` // of the topic's incarnation: see device.Position
	Partition int32     `json:"partition"`
	First     int64     `json:"first"`
	Last      int64     `json:"last"`
	Cause     string    `json:"cause"` // one word, for counting: see the Cause constants
	Detail    string    `json:"detail"`
	At        time.Time `json:"at"`
	// Foreign is the RAE that sent the batch, where the session is another's.
	Foreign string `json:"foreign_rae,omitempty"`
}

// Causes of a Refusal.
const (
	CausePayload  = "payload"  // not JSON of a batch
	CauseVersion  = "version"  // a schema version that this worker does not read
	CauseInvalid  = "invalid"  // a batch that is not as its format demands
	CauseForeign  = "foreign"  // of another session, or of another RAE than the session's
	CauseDatabase = "database" // the database will never take the values
)

// StateView answers the query "state": the session's record as the database
// has it. It is bounded by the limits of package device.
type StateView struct {
	Session string `json:"session"`
	RAE     string `json:"rae"`

	Attributes map[string]device.Attribute `json:"attributes"` // that have a value
	AsOf       int64                       `json:"as_of_seq"`  // highest seq applied
	Hash       string                      `json:"hash"`       // device.Hash of Attributes

	FirstObserved time.Time `json:"first_observed,omitzero"` // by the edge's clock
	LastObserved  time.Time `json:"last_observed,omitzero"`  // by the edge's clock
	LastReceived  time.Time `json:"last_received,omitzero"`  // Kafka timestamp of the newest record applied

	Sync      SyncState      `json:"sync_state"`
	SyncSince time.Time      `json:"sync_since,omitzero"`
	Missing   device.SeqSet  `json:"missing,omitempty"`  // ranges [from,to] of seq
	Lost      device.SeqSet  `json:"lost,omitempty"`     // those of Missing that had been applied, before the database lost them
	Revision  Revision       `json:"revision"`           // of the session's row
	Mismatch  *Mismatch      `json:"mismatch,omitempty"` // when the database last was not what the session believed
	Snapshot  int64          `json:"snapshot_seq,omitempty"`
	Check     *SnapshotCheck `json:"check,omitempty"` // nil: no snapshot was applied since the chain of runs began

	Closed int64  `json:"closed_seq,omitempty"`
	Reason string `json:"closed_reason,omitempty"`
	// Provisional says that no edge sent the close: an event past it reopens the session.
	Provisional bool `json:"closed_provisionally,omitempty"`

	TestState *TestState `json:"test,omitempty"` // of the device; nil: not read yet

	Counters       Counters          `json:"counters"`
	RecentRefusals []Refusal         `json:"refused,omitempty"` // the newest ones
	Repair         *Repair           `json:"repair,omitempty"`  // what is being done about a gap; nil: there is none
	Waiting        int               `json:"waiting"`           // batches taken and not yet applied
	Runs           int               `json:"runs"`              // of this chain, this one included
	Builds         []AppliedByBuild  `json:"builds,omitempty"`  // which builds applied the events, newest last
	Positions      []device.Position `json:"positions"`
}

// Result is what the workflow returns when its session is closed, or idle.
type Result struct {
	Session    string    `json:"session"`
	RAE        string    `json:"rae"`
	Idle       bool      `json:"idle,omitempty"` // the session is open, and its next event starts the workflow again
	Sync       SyncState `json:"sync_state,omitempty"`
	AsOf       int64     `json:"as_of_seq"`
	Closed     int64     `json:"closed_seq"`
	Reason     string    `json:"closed_reason,omitempty"`
	Hash       string    `json:"hash"`
	Attributes int       `json:"attributes"`
	Counters   Counters  `json:"counters"`
	Runs       int       `json:"runs"`
}

// Progress answers the query "progress": what the session is doing now.
type Progress struct {
	Sync           SyncState      `json:"sync_state"`
	PendingBatches int            `json:"pending_batches"`     // received and not yet applied
	PendingBytes   int            `json:"pending_bytes"`       // of their signals
	InFlight       string         `json:"in_flight,omitempty"` // the activity that the session waits for
	InFlightSince  time.Time      `json:"in_flight_since,omitzero"`
	Escalated      bool           `json:"escalated,omitempty"`      // the local activity did not succeed: a regular one is tried until it does
	LastError      string         `json:"last_error,omitempty"`     // of a local activity that did not succeed, the newest in this run
	LastErrorAt    time.Time      `json:"last_error_at,omitzero"`   //
	NextTimer      time.Time      `json:"next_timer,omitzero"`      // when the session next checks its deadlines
	NextRequest    time.Time      `json:"next_request,omitzero"`    // when it requests a snapshot, unless nothing is missing by then
	Requests       int            `json:"requests,omitempty"`       // sent for the present gap
	LastRequest    RequestOutcome `json:"last_request,omitempty"`   // of the newest
	LastRequestAt  time.Time      `json:"last_request_at,omitzero"` //
	Runs           int            `json:"runs"`                     // of this chain, this one included
	Signals        int            `json:"signals_in_run"`
}

func (s *session) stateView() StateView {
	live := s.State.Live()
	if live == nil {
		live = map[string]device.Attribute{}
	}
	var repair *Repair
	if s.incomplete() {
		r := s.Repair
		repair = &r
	}
	return StateView{
		Session: s.id, RAE: s.rae,
		Attributes: live, AsOf: s.State.AsOf, Hash: device.Hash(live),
		FirstObserved: s.State.First, LastObserved: s.State.Last, LastReceived: s.LastReceived,
		Sync: s.Sync, SyncSince: s.SyncSince, Missing: s.missing(), Lost: s.Lost, Revision: s.Revision, Mismatch: s.Mismatch, Snapshot: s.State.Snapshot, Check: s.Check, Repair: repair,
		Closed: s.State.Closed, Reason: s.State.Reason, Provisional: s.State.Provisional, TestState: s.TestState,
		Counters: s.Counters, RecentRefusals: slices.Clone(s.RecentRefusals), Waiting: len(s.Waiting) + len(s.PendingRefusals),
		Runs: s.Runs, Builds: slices.Clone(s.Builds), Positions: slices.Clone(s.Positions),
	}
}

func (s *session) progress() Progress {
	return Progress{
		Sync: s.Sync, PendingBatches: len(s.Waiting) + len(s.PendingRefusals), PendingBytes: s.waitingBytes(),
		InFlight: s.inFlight.summary, InFlightSince: s.inFlight.since, Escalated: s.inFlight.summary != "" && s.inFlight.escalated,
		LastError: s.inFlight.lastError, LastErrorAt: s.inFlight.lastErrorAt,
		NextTimer: s.timer.at, NextRequest: s.Repair.NextTryAt, Requests: s.Repair.Sent,
		LastRequest: s.Repair.Outcome, LastRequestAt: s.Repair.LastTryAt,
		Runs: s.Runs, Signals: s.signalsInRun,
	}
}

func (s *session) result() Result {
	live := s.State.Live()
	return Result{
		Session: s.id, RAE: s.rae, Idle: s.State.Closed == 0, Sync: s.Sync, AsOf: s.State.AsOf, Closed: s.State.Closed, Reason: s.State.Reason,
		Hash: device.Hash(live), Attributes: len(live), Counters: s.Counters, Runs: s.Runs,
	}
}
