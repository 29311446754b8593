package verify

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Repairs has sessions repair themselves.
type Repairs interface {
	// Repair has the session's workflow take what the database has of it for its
	// own, and ask the edge for a snapshot, which heals what differs. It fails
	// with ErrGone where no workflow runs.
	Repair(ctx context.Context, session string) (Repair, error)
}

// Repair is the receipt of what was done about a session that differed.
type Repair struct {
	// Lost are the seqs that the workflow had applied and the database lacked.
	Lost device.SeqSet `json:"lost,omitempty"`
	// Snapshot says what became of the workflow's request for one.
	Snapshot string `json:"snapshot,omitempty"`
	// Failed says why the workflow could not be told.
	Failed string `json:"failed,omitempty"`

	// What was found before.
	Differences []Difference `json:"differences,omitempty"`
	Corrected   []Difference `json:"corrected,omitempty"`
	Findings    []string     `json:"findings,omitempty"`
}

// repairTimeout bounds how long a session may take to reload.
const repairTimeout = time.Minute

// repair has a session that differs repaired, and verifies it once more. The
// result says what it is now, and what was done.
func (v *Verifier) repair(ctx context.Context, s Session, found Result) Result {
	if v.o.Repairs == nil || found.Verdict != Drift || s.Closed || v.pace.wait(ctx) != nil {
		return found
	}
	once, cancel := context.WithTimeout(ctx, repairTimeout)
	receipt, err := v.o.Repairs.Repair(once, s.ID)
	cancel()
	switch {
	case errors.Is(err, ErrGone):
		receipt.Snapshot = "its workflow does not run: its next event starts it with what the database has"
	case err != nil:
		receipt.Failed = err.Error()
	}
	receipt.Differences, receipt.Corrected, receipt.Findings = found.Differences, found.Corrected, found.Findings
	after := found
	if err == nil || errors.Is(err, ErrGone) {
		after = v.session(ctx, s)
	}
	after.Repair = &receipt
	return after
}

// pace lets so many through in a second.
type pace struct {
	every time.Duration

	mu   sync.Mutex
	next time.Time
}

// wait returns when it is the caller's turn, or ctx's error.
func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	at := time.Now()
	if p.next.After(at) {
		at = p.next
	}
	p.next = at.Add(p.every)
	p.mu.Unlock()
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
