package workflows

import (
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Names by which others reach the workflow, and by which it reaches its activities.
// They are in histories and in other processes: never change one.
const (
	DeviceSessionName = "DeviceSession"
	TaskQueue         = "rollcall-sessions" // default; a deployment may name its own
	QueryState        = "state"             // answers with a StateView
	QueryProgress     = "progress"          // answers with a Progress
	SignalNudge       = "nudge"             // takes nothing; wakes an idle session, which then moves to the worker version it should run on
	SignalClose       = "close-session"     // takes a CloseRequest; as the update, without waiting for the answer
	SignalTestState   = "test-state"        // takes nothing; has the session read its device's test state again

	UpdateRequestSnapshot = "request-snapshot" // takes SnapshotRequestArgs, answers with SnapshotRequestResult
	UpdateReload          = "reload"           // takes ReloadArgs, answers with a ReloadResult
	UpdateDrain           = "drain"            // takes nothing, answers with an AppliedState
	UpdateClose           = "close"            // takes a CloseRequest, answers with an AppliedState

	ActivityApplyBatch      = "ApplyBatch"      // takes an ApplyRequest; answers with a LoadedSession to NewSession, IdentifiesDevice and a mismatch, else with null
	ActivityLoadSession     = "LoadSession"     // takes a session, answers with a LoadedSession
	ActivityRequestSnapshot = "RequestSnapshot" // takes a SnapshotRequest, answers with SnapshotRequestResult
	ActivitySupersede       = "Supersede"       // takes a SupersedeRequest
	ActivityReadTestState   = "ReadTestState"   // takes a session, answers with its device's TestState

	// ErrRefused is the type of the application error with which ApplyBatch
	// says that the database will never take these values.
	ErrRefused = "Refused"
	// ErrBadInput is the type of the application error with which the
	// workflow fails when its input names no session, or another one than its
	// workflow ID.
	ErrBadInput = "BadInput"
)

// Input starts a DeviceSession.
type Input struct {
	RAE     string `json:"rae"`
	Session string `json:"session"`
	// Carried is what the previous run hands on; nil in the first run of a
	// chain, which loads the session from the database.
	Carried *CarriedState `json:"carried,omitempty"`
	Options Options       `json:"options,omitzero"`
}

// Options bound a run. They are part of the input, not of the worker's
// configuration: a replay must find them as they were.
type Options struct {
	// SignalsPerRun is after how many signals the session continues as new.
	// Default 100. A lower number costs a new run, with the whole state in its
	// input, that much more often. A higher one makes each next signal slower,
	// because the server keeps the signals of a run (measured on a stack in one
	// process: 600 applies a second with 100, 455 with 2,000). The server never
	// takes more than 10,000 signals in a run, and does not count them when it
	// suggests to continue as new.
	SignalsPerRun int `json:"signals_per_run,omitempty"`
	// TurnBytes is how many bytes of signals one apply takes at most. Default
	// 1 MiB. One signal is always taken, however large it is.
	TurnBytes int `json:"turn_bytes,omitempty"`
	// CarryBytes is how many bytes of waiting signals a run may hand to the
	// next. Default 1 MiB, half of what the server takes as one payload. If
	// more wait, they are applied before the session continues as new.
	CarryBytes int `json:"carry_bytes,omitempty"`
	// SnapshotInterval is how often an edge sends a snapshot unasked. Default
	// 3 h, as the edge's. A session without one for three intervals counts as one
	// with a gap.
	SnapshotInterval time.Duration `json:"snapshot_interval,omitempty"`
	// IdleTimeout is after how long without a signal the session completes, to be
	// started again by the next one. Default 72 h. A lower value costs a load from
	// the database that much more often; a higher one keeps the sessions of devices
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

	ID   string   `json:"id"`            // of this apply: see Revision
	Base Revision `json:"base,omitzero"` // the row that it builds on

	AsOf       int64         `json:"as_of"`
	Snapshot   int64         `json:"snapshot,omitempty"`
	SnapshotAt time.Time     `json:"snapshot_at,omitzero"`
	Hash       string        `json:"hash,omitempty"` // of that snapshot
	Seen       device.SeqSet `json:"seen,omitempty"`
	Missing    device.SeqSet `json:"missing,omitempty"`
	Closed     int64         `json:"closed,omitempty"`
	Reason     string        `json:"reason,omitempty"`
	// Provisional says that no edge sent the close: an event past it reopens the session.
	Provisional bool      `json:"provisional,omitempty"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
	Received    time.Time `json:"received"`

	Write     map[string]device.Attribute `json:"write,omitempty"`
	Corrected []string                    `json:"corrected,omitempty"` // names in Write for which the snapshot contradicts what is stored
	Positions []device.Position           `json:"positions,omitempty"` // those that advance

	// What this apply adds to the session's counters.
	Repaired   []string `json:"repaired,omitempty"`
	OverLimit  []string `json:"over_limit,omitempty"`
	Events     int64    `json:"events,omitempty"`
	Records    int64    `json:"records,omitempty"`
	Duplicates int64    `json:"duplicates,omitempty"`
	AfterClose int64    `json:"after_close,omitempty"`
	Stale      int64    `json:"stale,omitempty"`
	Reopened   int64    `json:"reopened,omitempty"` // 1: this apply reopens the session

	// BatchReceived is the Kafka timestamp of the newest record of this apply,
	// be it older than Received.
	BatchReceived time.Time `json:"batch_received,omitzero"`
	// Quarantined are the refused batches that this apply moves past.
	Quarantined []Refusal `json:"quarantined,omitempty"`

	// QuarantineOnly marks an apply that only quarantines refused batches. It has nothing that
	// a database could refuse for good, so a refusal of it is treated as an outage:
	// it is tried until it succeeds.
	QuarantineOnly bool `json:"skip,omitempty"`

	// NewSession marks the first apply of a session of which the workflow knows
	// nothing. It is executed only if the database knows nothing either. In both
	// cases the answer is a LoadedSession, so that a new session costs one activity,
	// not two.
	NewSession bool `json:"new,omitempty"`
	// IdentifiesDevice marks the first apply that says which device the session is
	// of, and one that reopens it. Its answer names the device's other open sessions on the same RAE.
	IdentifiesDevice bool `json:"opens,omitempty"`
}

// LoadedSession is what the database knows of a session, and what this worker and
// its server can do.
type LoadedSession struct {
	Found     bool              `json:"found"`
	State     device.State      `json:"state"`
	Positions []device.Position `json:"positions,omitempty"`
	Counters  Counters          `json:"counters,omitzero"` // those that the database keeps
	Revision  Revision          `json:"revision,omitzero"` // of the row
	// Mismatch says that an apply was not written, because the database has
	// another row than the apply builds on: this one.
	Mismatch bool `json:"mismatch,omitempty"`
	// SearchAttributes says that the platform's search attributes are registered.
	// It comes with the load, and so is in the history: to set one that the server
	// does not know would fail every workflow task.
	SearchAttributes bool `json:"search_attributes,omitempty"`
	// Level is the constant Level of the worker that answers.
	Level int `json:"level,omitempty"`
	// OlderSessions are the device's open sessions on the same RAE that this one
	// supersedes.
	OlderSessions []string `json:"older,omitempty"`
	// NewerSession is the open session of the device that supersedes this one.
	NewerSession string `json:"newer,omitempty"`
	// TestState is the device's. It is in the answer to a load, to NewSession and
	// to IdentifiesDevice; nil: the worker that answers does not know it.
	TestState *TestState `json:"test,omitempty"`
}
