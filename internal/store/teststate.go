package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Test states of a device. They say whether it may be used, not whether it is
// online.
const (
	StateAvailable   = "available"
	StateInTest      = "in_test"     // somebody holds it, until the lease ends
	StateQuarantined = "quarantined" // suspect: nobody may use it
	StateMaintenance = "maintenance" // being worked on
)

// TestState says who uses a device, and whether it may be used.
type TestState struct {
	State      string    `json:"state"`
	Holder     string    `json:"holder,omitempty"` // in test: who; else who set the state
	Reason     string    `json:"reason,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	LeaseUntil time.Time `json:"lease_until,omitzero"` // in test; then the device is available, with nothing done
}

func (t TestState) orAvailable() TestState {
	if t.State == "" || t.State == StateAvailable {
		return TestState{State: StateAvailable}
	}
	return t
}

// Bounds of what a test state holds.
const (
	MaxLease      = 30 * 24 * time.Hour
	MaxHolder     = 200  // bytes
	MaxTestReason = 1000 // bytes
)

// HeldError is the error of a change that the device's test state does not
// allow: it is somebody else's, or set apart.
type HeldError struct {
	Device string
	TestState
}

// Error implements error. It says who holds the device, and until when.
func (e *HeldError) Error() string {
	switch e.State {
	case StateInTest:
		return fmt.Sprintf("device %s is held by %q until %s%s", e.Device, e.Holder, e.LeaseUntil.Format(time.RFC3339), reasonSuffix(e.Reason))
	case StateAvailable:
		return fmt.Sprintf("device %s is held by nobody", e.Device)
	}
	return fmt.Sprintf("device %s is in state %s since %s, set by %q%s", e.Device, e.State, e.Since.Format(time.RFC3339), e.Holder, reasonSuffix(e.Reason))
}

func reasonSuffix(reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", reason)
}

// Reserve gives an available device to holder until the lease ends. Of several
// who ask at once one gets it; the others' error is a *HeldError, and so is that
// of a holder who has it already. References are those of GetDevice.
func (s *Store) Reserve(ctx context.Context, ref, holder, reason string, lease time.Duration) (string, TestState, error) {
	if err := errors.Join(checkHolder(holder, reason), checkLease(lease)); err != nil {
		return "", TestState{}, fmt.Errorf("reserve: %w", err)
	}
	return s.changeTestState(ctx, "reserve", ref, sqlReserve, holder, reason, lease.Seconds())
}

// Renew has the lease of holder, which must not have ended, end after lease from
// now.
func (s *Store) Renew(ctx context.Context, ref, holder string, lease time.Duration) (string, TestState, error) {
	if err := errors.Join(checkHolder(holder, ""), checkLease(lease)); err != nil {
		return "", TestState{}, fmt.Errorf("renew: %w", err)
	}
	return s.changeTestState(ctx, "renew", ref, sqlRenew, holder, lease.Seconds())
}

// Release ends the lease of holder; with force, whoever has it.
func (s *Store) Release(ctx context.Context, ref, holder string, force bool) (string, TestState, error) {
	return s.changeTestState(ctx, "release", ref, sqlRelease, holder, force)
}

// SetTestState sets StateAvailable, StateQuarantined or StateMaintenance. A device in test is
// left to its holder, unless force is set.
func (s *Store) SetTestState(ctx context.Context, ref, state, by, reason string, force bool) (string, TestState, error) {
	if state != StateAvailable && state != StateQuarantined && state != StateMaintenance {
		return "", TestState{}, fmt.Errorf("test state %q is not one of %s, %s, %s", clip(state), StateAvailable, StateQuarantined, StateMaintenance)
	}
	if err := checkHolder(by, reason); err != nil {
		return "", TestState{}, fmt.Errorf("set test state: %w", err)
	}
	return s.changeTestState(ctx, "set test state", ref, sqlSetTestState, state, by, reason, force)
}

func checkHolder(holder, reason string) error {
	switch {
	case holder == "" || len(holder) > MaxHolder || storable(holder) != holder:
		return fmt.Errorf("a holder's name has from 1 to %d bytes of text", MaxHolder)
	case len(reason) > MaxTestReason || storable(reason) != reason:
		return fmt.Errorf("a reason has at most %d bytes of text", MaxTestReason)
	}
	return nil
}

func checkLease(lease time.Duration) error {
	if lease < time.Second || lease > MaxLease {
		return fmt.Errorf("a lease is from 1s to %s long", MaxLease)
	}
	return nil
}

// changeTestState runs one statement that compares and sets. It returns the
// device, and its state after the change; where the state did not allow the
// change, a *HeldError.
func (s *Store) changeTestState(ctx context.Context, what, ref, sql string, args ...any) (string, TestState, error) {
	id, _, err := s.resolve(ctx, ref)
	if err != nil {
		return "", TestState{}, err
	}
	var t TestState
	var until *time.Time
	err = s.pool.QueryRow(ctx, sql, append([]any{id}, args...)...).Scan(&t.State, &t.Holder, &t.Reason, &t.Since, &until)
	var pg *pgconn.PgError
	switch {
	case err == nil:
		t.Since, t.LeaseUntil = t.Since.UTC(), utc(until)
		return id.String(), t, nil
	case errors.As(err, &pg) && pg.Code == "23503":
		return "", t, fmt.Errorf("%s %q: %w: it was merged into another one meanwhile", what, clip(ref), ErrNotFound)
	case !errors.Is(err, pgx.ErrNoRows):
		return "", t, fmt.Errorf("%s %q: %w", what, clip(ref), err)
	}
	now := []Summary{{Device: id.String()}}
	if err := s.testStates(ctx, now); err != nil {
		return "", t, fmt.Errorf("%s %q: %w", what, clip(ref), err)
	}
	return id.String(), now[0].Test, fmt.Errorf("%s: %w", what, &HeldError{Device: id.String(), TestState: now[0].Test})
}

// testStates fills in the devices' test states.
func (s *Store) testStates(ctx context.Context, summaries []Summary) error {
	ids := make([]uuid.UUID, len(summaries))
	for i := range summaries {
		ids[i] = uuid.MustParse(summaries[i].Device)
	}
	rows, err := s.pool.Query(ctx, sqlTestStates, ids)
	if err != nil {
		return err
	}
	states, err := scanTestStates(rows)
	if err != nil {
		return err
	}
	for i := range summaries {
		summaries[i].Test = states[summaries[i].Device].orAvailable()
	}
	return nil
}

// queueTestStates reads those of the sessions' devices, by session.
func queueTestStates(b *pgx.Batch, sessions []uuid.UUID, out map[string]TestState) {
	b.Queue(sqlTestStatesOf, uuidsOf(sessions)).Query(func(rows pgx.Rows) error {
		states, err := scanTestStates(rows)
		for session, t := range states {
			out[session] = t.orAvailable()
		}
		return err
	})
}

// scanTestStates reads the states by device, or by session.
func scanTestStates(rows pgx.Rows) (map[string]TestState, error) {
	defer rows.Close()
	out := make(map[string]TestState)
	for rows.Next() {
		var id uuid.UUID
		var t TestState
		var until *time.Time
		if err := rows.Scan(&id, &t.State, &t.Holder, &t.Reason, &t.Since, &until); err != nil {
			return nil, err
		}
		t.Since, t.LeaseUntil = t.Since.UTC(), utc(until)
		out[id.String()] = t
	}
	return out, rows.Err()
}
