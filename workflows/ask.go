package workflows

import (
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Ask is the argument of the update request-snapshot.
type Ask struct {
	Reason string `json:"reason,omitempty"` // why, for people
}

// Outcome is what became of a wish for a snapshot.
type Outcome string

// Outcomes.
const (
	Sent     Outcome = "sent"     // Kafka has the command
	Later    Outcome = "later"    // this worker sends no more just now, or Kafka does not answer
	Disabled Outcome = "disabled" // this worker has no Kafka to send it to
)

// Asked answers a wish for a snapshot. The snapshot itself comes as an event.
type Asked struct {
	Outcome Outcome   `json:"outcome"`
	Command string    `json:"command,omitempty"` // ID of the command, where it was sent
	Detail  string    `json:"detail,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

// Close is the argument of the update close.
type Close struct {
	Reason string `json:"reason"`
}

// Receipt says what the database has of a session.
type Receipt struct {
	AsOf      int64             `json:"as_of_seq"`
	Closed    int64             `json:"closed_seq,omitempty"`
	Positions []device.Position `json:"positions"`
	Events    int64             `json:"events"`  // applied since the chain of runs began
	Signals   int64             `json:"signals"` // received since then
}

// Progress answers the query "progress": what the session is doing now.
type Progress struct {
	Sync           Sync      `json:"sync_state"`
	PendingBatches int       `json:"pending_batches"`          // taken and not yet applied
	PendingBytes   int       `json:"pending_bytes"`            // of their signals
	InFlight       string    `json:"in_flight,omitempty"`      // what is being done for it
	InFlightSince  time.Time `json:"in_flight_since,omitzero"` //
	Escalated      bool      `json:"escalated,omitempty"`      // the local activity did not succeed: a regular one is tried until it does
	LastError      string    `json:"last_error,omitempty"`     // of the local activity, at the last escalation
	LastErrorAt    time.Time `json:"last_error_at,omitzero"`   //
	NextTimer      time.Time `json:"next_timer,omitzero"`      // when it looks at the clock
	NextRequest    time.Time `json:"next_request,omitzero"`    // when it asks for a snapshot, unless it is healed by then
	Requests       int       `json:"requests,omitempty"`       // sent for the gap there is
	Runs           int       `json:"runs"`                     // of this chain, this one included
	Signals        int       `json:"signals_in_run"`           //
}
