package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrRefused is wrapped by errors of writes that can never succeed: values that
// the database does not take (SQLSTATE classes 22, data exception, 23, integrity
// constraint violation, and 54, program limit exceeded), and updates that contradict themselves or
// what is stored. Everything else is an outage: try again.
var ErrRefused = errors.New("the database refuses the values")

// ErrNotFound is wrapped by queries whose reference names nothing.
var ErrNotFound = errors.New("not found")

// errRaced ends a transaction where another one has written between its read and
// its write. The next try finds what the other one wrote.
var errRaced = errors.New("another transaction wrote the same new row")

// Retryable reports whether the same transaction may succeed when it is tried
// again at once: it was chosen to lose against another one. It does not say so
// of an outage, which is the caller's to wait out.
func Retryable(err error) bool {
	if errors.Is(err, errRaced) {
		return true
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	if isOfConnection(pg.Code) { // it is closed, and the next may lead to another server
		return true
	}
	switch pg.Code {
	case "40001", // serialization_failure; every retryable error of CockroachDB
		"40P01", // deadlock_detected
		"55P03", // lock_not_available: it would not wait for the lock
		"23503": // foreign_key_violation: the device was merged into another meanwhile; parents are written first here
		return true
	}
	return false
}

// classify wraps ErrRefused around errors that no retry can help.
func classify(err error) error {
	if err == nil || errors.Is(err, ErrRefused) || errors.Is(err, context.Canceled) {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && slices.Contains([]string{"22", "23", "54"}, pg.Code[:min(2, len(pg.Code))]) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}
