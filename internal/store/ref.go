package store

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	minPrefix     = 3  // characters
	maxCandidates = 10 // that an AmbiguousError lists
	maxMatches    = 50 // sessions that a reference is looked up for
)

// AmbiguousError is the error of a reference that names several devices.
type AmbiguousError struct {
	Ref        string
	Candidates []Summary // one a device, at most 10
	More       bool      // than those
}

// Error implements error. It lists the candidates, one a line.
func (e *AmbiguousError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q names several devices:", e.Ref)
	for _, c := range e.Candidates {
		fmt.Fprintf(&b, "\n  %s  %s  %s  on %s", c.Device, c.MAC, c.Name, c.RAE)
	}
	if e.More {
		b.WriteString("\n  …")
	}
	return b.String()
}

// match is a session that a reference may mean.
type match struct{ session, device uuid.UUID }

// resolve returns the device that ref names, and the session if it names one.
// What is written out goes before what begins with it.
func (s *Store) resolve(ctx context.Context, ref string) (deviceID, session uuid.UUID, err error) {
	trimmed := strings.ToLower(strings.TrimSpace(ref))
	if trimmed == "" || strings.ContainsRune(trimmed, 0) || len(trimmed) > maxIdentity {
		return uuid.Nil, uuid.Nil, fmt.Errorf("%w: %q is not a UUID, MAC or host name", ErrNotFound, clip(ref))
	}
	sql, arg := sqlRefText, any(trimmed)
	if id, err := uuid.Parse(trimmed); err == nil {
		sql, arg = sqlRefUUID, id
	} else if mac, err := net.ParseMAC(trimmed); err == nil {
		arg, trimmed = mac.String(), mac.String()
	}
	matches, err := s.matches(ctx, sql, arg)
	if err != nil {
		return uuid.Nil, uuid.Nil, fmt.Errorf("look up %q: %w", clip(ref), err)
	}
	if len(matches) == 0 && len(trimmed) >= minPrefix {
		if matches, err = s.matches(ctx, sqlRefPrefix, trimmed); err != nil {
			return uuid.Nil, uuid.Nil, fmt.Errorf("look up %q: %w", clip(ref), err)
		}
	}
	switch devices := distinct(matches); len(devices) {
	case 0:
		return uuid.Nil, uuid.Nil, fmt.Errorf("%w: no device or session UUID, MAC or host name is or begins with %q", ErrNotFound, clip(ref))
	case 1:
		return devices[0].device, named(matches, trimmed), nil
	default:
		return uuid.Nil, uuid.Nil, s.ambiguous(ctx, ref, devices)
	}
}

func (s *Store) matches(ctx context.Context, sql string, arg any) ([]match, error) {
	rows, err := s.pool.Query(ctx, sql, arg, maxMatches)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (m match, err error) {
		err = r.Scan(&m.session, &m.device)
		return m, err
	})
}

// distinct is the first match of each device.
func distinct(matches []match) []match {
	seen := make(map[uuid.UUID]bool)
	var out []match
	for _, m := range matches {
		if !seen[m.device] {
			seen[m.device] = true
			out = append(out, m)
		}
	}
	return out
}

// named is the one session whose own identifier ref is or begins, of a device's
// matches; else none: then the device is meant.
func named(matches []match, ref string) (session uuid.UUID) {
	for _, m := range matches {
		if strings.HasPrefix(m.device.String(), ref) {
			return uuid.Nil
		}
		if strings.HasPrefix(m.session.String(), ref) {
			if session != uuid.Nil {
				return uuid.Nil
			}
			session = m.session
		}
	}
	return session
}

func (s *Store) ambiguous(ctx context.Context, ref string, devices []match) error {
	shown := devices[:min(len(devices), maxCandidates)]
	ids := make([]uuid.UUID, len(shown))
	for i, m := range shown {
		ids[i] = m.session
	}
	rows, err := s.pool.Query(ctx, sqlSummaries, ids)
	if err != nil {
		return fmt.Errorf("look up %q: %w", clip(ref), err)
	}
	candidates, err := pgx.CollectRows(rows, scanSummary)
	if err == nil {
		err = s.describe(ctx, candidates)
	}
	if err != nil {
		return fmt.Errorf("look up %q: %w", clip(ref), err)
	}
	return &AmbiguousError{Ref: ref, Candidates: candidates, More: len(devices) > len(shown)}
}

// clip shortens what someone typed for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
