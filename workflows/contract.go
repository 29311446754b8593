package workflows

import (
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Names under which others reach the workflow and it reaches its activities.
// They are in histories and in other processes: never change one.
const (
	DeviceSessionName = "DeviceSession"
	TaskQueue         = "rollcall-sessions" // default; a deployment may name its own
	QueryState        = "state"             // answers with a StateView
	QueryProgress     = "progress"          // answers with a Progress
	SignalNudge       = "nudge"             // takes nothing; wakes an idle session to look at its worker version
	SignalClose       = "close-session"     // takes a CloseRequest; as the update, for one who does not wait
	SignalTestState   = "test-state"        // takes nothing; has the session read its device's test state, which changed

	UpdateRequestSnapshot = "request-snapshot" // takes SnapshotRequestArgs, answers with SnapshotRequestResult
	UpdateDrain           = "drain"            // takes nothing, answers with an AppliedState
	UpdateClose           = "close"            // takes a CloseRequest, answers with an AppliedState

	ActivityApplyBatch      = "ApplyBatch"      // takes an ApplyRequest; answers with LoadedSession where that is NewSession or IdentifiesDevice
	ActivityLoadSession     = "LoadSession"     // takes a session, answers with LoadedSession
	ActivityRequestSnapshot = "RequestSnapshot" // takes a SnapshotRequest, answers with SnapshotRequestResult
	ActivitySupersede       = "Supersede"       // takes a SupersedeRequest
	ActivityReadTestState   = "ReadTestState"   // takes a session, answers with its device's TestState

	// ErrRefused is the type of the application error with which ApplyBatch
	// says that the database will never take these values.
	ErrRefused = "Refused"
	// ErrBadInput is the type of the application error with which the
	// workflow fails when it was started for something that is no session.
	ErrBadInput = "BadInput"
)

// Input starts a DeviceSession.
type Input struct {
	RAE     string `json:"rae"`
	Session string `json:"session"`
	// Carried is what the run before hands on; nil in the first run of a
	// chain, which then asks the database for the session.
	Carried *CarriedState `json:"carried,omitempty"`
	Options Options       `json:"options,omitzero"`
}

// Options bound a run. They are part of the input, not of the worker's
// configuration, because a replay must find them as they were.
type Options struct {
	// SignalsPerRun is after how many signals the session continues as new.
	// Default 100: the server never takes more than 10,000 in a run and does
	// not count them in its suggestion, and what it keeps of a run's signals
	// makes each next one slower (measured on a stack in one process: 600
	// applies a second with 100, 455 with 2,000). A lower number costs a new
	// run, with the whole state in its input, that much more often.
	SignalsPerRun int `json:"signals_per_run,omitempty"`
	// TurnBytes is how many bytes of signals one apply takes at most.
	// Default 1 MiB; at least one signal is always taken.
	TurnBytes int `json:"turn_bytes,omitempty"`
	// CarryBytes is how many bytes of waiting signals a run may hand to the
	// next. Default 1 MiB, half of what the server takes as one payload. If
	// more wait, they are applied before the session continues as new.
	CarryBytes int `json:"carry_bytes,omitempty"`
	// SnapshotInterval is how often an edge sends a snapshot that nobody asked
	// for. Default 3 h, as the edge's. Without one for three intervals a
	// session counts as one with a gap.
	SnapshotInterval time.Duration `json:"snapshot_interval,omitempty"`
	// IdleTimeout is after how long without a signal the session ends, to be started
	// again by the next one. Default 72 h. A lower value costs a load from the
	// database that much more often; a higher one keeps sessions of devices
	// that are gone in the server's list of running workflows.
	IdleTimeout time.Duration `json:"idle,omitempty"`
}

func (o Options) withDefaults() Options {
	if o.SignalsPerRun <= 0 {
		o.SignalsPerRun = 100
	}
	if o.TurnBytes <= 0 {
		o.TurnBytes = 1 << 20
	}
	if o.CarryBytes <= 0 {
		o.CarryBytes = 1 << 20
	}
	if o.SnapshotInterval <= 0 {
		o.SnapshotInterval = 3 * time.Hour
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = 72 * time.Hour
	}
	return o
}

// ApplyRequest is what one apply writes, in one transaction: what changed, the
// session's row after the change, and how far ingestion has come.
type ApplyRequest struct {
	RAE     string `json:"rae"`
	Session string `json:"session"`

	AsOf       int64         `json:"as_of"`
	Snapshot   int64         `json:"snapshot,omitempty"`
	SnapshotAt time.Time     `json:"snapshot_at,omitzero"`
	Hash       string        `json:"hash,omitempty"` // of that snapshot
	Seen       device.SeqSet `json:"seen,omitempty"`
	Missing    device.SeqSet `json:"missing,omitempty"`
	Closed     int64         `json:"closed,omitempty"`
	Reason     string        `json:"reason,omitempty"`
	First      time.Time     `json:"first"`
	Last       time.Time     `json:"last"`
	Received   time.Time     `json:"received"`

	Write     map[string]device.Attribute `json:"write,omitempty"`
	Corrected []string                    `json:"corrected,omitempty"` // of Write, that the snapshot says otherwise than what is stored
	Positions []device.Position           `json:"positions,omitempty"` // those that advance

	// What this apply adds to the session's counters.
	Repaired   []string `json:"repaired,omitempty"`
	OverLimit  []string `json:"over_limit,omitempty"`
	Events     int64    `json:"events,omitempty"`
	Records    int64    `json:"records,omitempty"`
	Duplicates int64    `json:"duplicates,omitempty"`
	AfterClose int64    `json:"after_close,omitempty"`
	Stale      int64    `json:"stale,omitempty"`

	// BatchReceived is the Kafka timestamp of the newest record of this apply,
	// be it older than Received.
	BatchReceived time.Time `json:"batch_received,omitzero"`
	// Quarantined are the refused batches that this apply steps over.
	Quarantined []Refusal `json:"quarantined,omitempty"`

	// SkipOnly marks an apply that only steps over refused batches. It holds
	// nothing that a database could refuse for good, so a refusal of it is
	// an outage: it is retried until it succeeds.
	SkipOnly bool `json:"skip,omitempty"`

	// NewSession marks the first apply of a session of which the workflow knows
	// nothing. It is done only if the database knows nothing either, and is
	// answered with LoadedSession in both cases: a new session so costs one activity,
	// not two.
	NewSession bool `json:"new,omitempty"`
	// IdentifiesDevice asks for the device's other open sessions on the same RAE: it is
	// the first apply that says which device the session is of.
	IdentifiesDevice bool `json:"opens,omitempty"`
}

// LoadedSession is what the database knows of a session, and what this worker's
// server allows.
type LoadedSession struct {
	Found     bool              `json:"found"`
	State     device.State      `json:"state"`
	Positions []device.Position `json:"positions,omitempty"`
	Counters  Counters          `json:"counters,omitzero"` // those that the database keeps
	// SearchAttributes says that the platform's search attributes are
	// registered. It comes with the load, and so is in the history: an
	// upsert that the server does not know would stop the workflow.
	SearchAttributes bool `json:"search_attributes,omitempty"`
	// Level is that of the code of the worker that answers: see Level.
	Level int `json:"level,omitempty"`
	// OlderSessions are the device's open sessions on the same RAE that this one has
	// taken the place of.
	OlderSessions []string `json:"older,omitempty"`
	// NewerSession is the one that has taken the place of this one.
	NewerSession string `json:"newer,omitempty"`
	// Test is the device's, where the answer is one to a load, to NewSession or to
	// IdentifiesDevice; nil from a worker without it.
	TestState *TestState `json:"test,omitempty"`
}

// SyncState is how a session's record relates to the edge's.
type SyncState string

// Sync states.
const (
	SyncLoading SyncState = "loading" // asking the database what it knows
	SyncLive    SyncState = "live"    // every event up to as_of_seq is applied
	SyncGap     SyncState = "gap"     // events are missing below as_of_seq, or a snapshot is overdue; newer events go on being applied
	SyncResync  SyncState = "resync"  // as gap, and the edge has been asked for a snapshot
)

// Counters count from the first run of the chain: a session that was started
// again from the database counts anew, the database's own counters go on.
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
}

// add adds what the database counted before the workflow did.
func (c *Counters) add(stored Counters) {
	c.Events += stored.Events
	c.Records += stored.Records
	c.Duplicates += stored.Duplicates
	c.AfterClose += stored.AfterClose
	c.OverLimit += stored.OverLimit
	c.Repaired += stored.Repaired
	c.Stale += stored.Stale
}

// SnapshotCheck compares the session with the edge, at the newest snapshot applied.
type SnapshotCheck struct {
	Seq  int64  `json:"seq"`  // of that snapshot
	Edge string `json:"edge"` // the edge's hash of its state at Seq
	// Cloud is the hash of the session's own state at Seq, before the snapshot
	// was applied. Empty: events were missing, or newer ones had come first,
	// so there was nothing to compare.
	Cloud string `json:"cloud,omitempty"`
	// Drift names the attributes that differed though no event was missing.
	Drift []string `json:"drift,omitempty"`
	// Repaired names the attributes that the snapshot had to correct.
	Repaired []string  `json:"repaired,omitempty"`
	At       time.Time `json:"at"`
}

// Refusal is a batch that was kept out for good. Its events are missing from
// the session until a snapshot heals it; its coordinates say where in Kafka
// the records are.
type Refusal struct {
	Topic     string    `json:"topic,omitempty"` // empty: the payload had no readable coordinates
	Partition int32     `json:"partition"`
	First     int64     `json:"first"`
	Last      int64     `json:"last"`
	Cause     string    `json:"cause"` // one word, for counting: see the Cause constants
	Detail    string    `json:"detail"`
	At        time.Time `json:"at"`
}

// Causes of a Refusal.
const (
	CausePayload  = "payload"  // not JSON of a batch
	CauseVersion  = "version"  // a schema version that this worker does not read
	CauseInvalid  = "invalid"  // a batch that breaks its contract
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
	Missing   device.SeqSet  `json:"missing,omitempty"` // ranges [from,to] of seq
	Snapshot  int64          `json:"snapshot_seq,omitempty"`
	Check     *SnapshotCheck `json:"check,omitempty"` // nil: no snapshot was applied since the chain of runs began

	Closed int64  `json:"closed_seq,omitempty"`
	Reason string `json:"closed_reason,omitempty"`

	TestState *TestState `json:"test,omitempty"` // of the device; nil: not read yet

	Counters       Counters          `json:"counters"`
	RecentRefusals []Refusal         `json:"refused,omitempty"` // the newest ones
	Repair         *Repair           `json:"repair,omitempty"`  // what is being done about a gap; nil: there is none
	Waiting        int               `json:"waiting"`           // batches taken and not yet applied
	Runs           int               `json:"runs"`              // of this chain, this one included
	Builds         []AppliedByBuild  `json:"builds,omitempty"`  // what applied the events, newest last
	Positions      []device.Position `json:"positions"`
}

// Result is what a session comes to when it ends: it is closed, or idle.
type Result struct {
	Session    string    `json:"session"`
	RAE        string    `json:"rae"`
	Idle       bool      `json:"idle,omitempty"` // it is open, and goes on with its next event
	Sync       SyncState `json:"sync_state,omitempty"`
	AsOf       int64     `json:"as_of_seq"`
	Closed     int64     `json:"closed_seq"`
	Reason     string    `json:"closed_reason,omitempty"`
	Hash       string    `json:"hash"`
	Attributes int       `json:"attributes"`
	Counters   Counters  `json:"counters"`
	Runs       int       `json:"runs"`
}
