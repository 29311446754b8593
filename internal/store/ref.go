package store

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rollcall-platform/rollcall/internal/device"
)

const (
	minPrefix     = 3   // characters
	maxRef        = 256 // bytes
	maxCandidates = 10  // that an AmbiguousError lists
	maxMatches    = 50  // sessions that a reference is looked up for
)

// AmbiguousError is the error of a reference that names several devices.
type AmbiguousError struct {
	Ref        string
	Candidates []Summary // each device's current session, at most 10
	More       bool      // than those
}

// Error implements error. It lists the candidates, one a line, with what tells
// them apart. Texts that came from devices are quoted.
func (e *AmbiguousError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q names several devices; give the UUID or the MAC of one:", e.Ref)
	for _, c := range e.Candidates {
		fmt.Fprintf(&b, "\n  %s", c.Device)
		for _, is := range []struct{ what, text string }{{"MAC", c.MAC}, {"address", c.IPv4}, {"name", c.Name}, {"model", c.Model}, {"status", c.Status}, {"RAE", c.RAE}} {
			if is.text != "" {
				fmt.Fprintf(&b, " %s %q", is.what, clip(is.text))
			}
		}
	}
	if e.More {
		b.WriteString("\n  …")
	}
	return b.String()
}

// match is a session that a reference may mean.
type match struct {
	session, device uuid.UUID
	closed          bool // the session
}

// resolve returns the device that ref names, and the session if it names one:
// by a UUID, a MAC or any name that a list may show. What is written out goes
// before what begins with it, open sessions before closed ones. A name that a table has cut, with "…" at its end,
// is a beginning.
func (s *Store) resolve(ctx context.Context, ref string) (deviceID, session uuid.UUID, err error) {
	typed, begins := strings.CutSuffix(strings.TrimSpace(ref), "…")
	lower := strings.ToLower(typed)
	if typed == "" || !utf8.ValidString(typed) || strings.ContainsRune(typed, 0) || len(typed) > maxRef {
		return uuid.Nil, uuid.Nil, fmt.Errorf("%w: %q is not a UUID, a MAC or a name", ErrNotFound, clip(ref))
	}
	var matches []match
	if id, parsed := uuid.Parse(lower); parsed == nil {
		matches, err = s.matches(ctx, sqlRefUUID, id, maxMatches)
	} else if mac, parsed := net.ParseMAC(lower); parsed == nil {
		lower = mac.String()
		matches, err = s.matches(ctx, sqlRefMAC, lower, maxMatches)
	} else if !begins {
		matches, err = s.matches(ctx, sqlRefName, lower, maxMatches, typed, device.NameAttributes)
	}
	if err == nil && len(matches) == 0 && len(typed) >= minPrefix {
		matches, err = s.matches(ctx, sqlRefPrefix, lower, maxMatches, typed, device.NameAttributes)
	}
	if err != nil {
		return uuid.Nil, uuid.Nil, fmt.Errorf("look up %q: %w", clip(ref), err)
	}
	matches = openFirst(matches, lower)
	switch devices := distinct(matches); len(devices) {
	case 0:
		return uuid.Nil, uuid.Nil, fmt.Errorf("%w: no device or session has a UUID, MAC or name that is or begins with %q; rollcall device list shows them", ErrNotFound, clip(ref))
	case 1:
		return devices[0].device, named(matches, lower), nil
	default:
		return uuid.Nil, uuid.Nil, s.ambiguous(ctx, ref, devices)
	}
}

func (s *Store) matches(ctx context.Context, sql string, args ...any) ([]match, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (m match, err error) {
		err = r.Scan(&m.session, &m.device, &m.closed)
		return m, err
	})
}

// openFirst leaves out what only a closed session matches by a name or a MAC, where
// an open one matches too: a device that is gone does not make the name of one that
// is there ambiguous.
func openFirst(matches []match, ref string) []match {
	if !slices.ContainsFunc(matches, func(m match) bool { return !m.closed }) {
		return matches
	}
	return slices.DeleteFunc(matches, func(m match) bool {
		byID := strings.HasPrefix(m.session.String(), ref) || strings.HasPrefix(m.device.String(), ref)
		return m.closed && !byID
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
		ids[i] = m.device
	}
	rows, err := s.pool.Query(ctx, sqlCurrentSessions, ids)
	if err != nil {
		return fmt.Errorf("look up %q: %w", clip(ref), err)
	}
	candidates, err := pgx.CollectRows(rows, scanSummary)
	slices.SortFunc(candidates, func(a, b Summary) int { return strings.Compare(a.Device, b.Device) })
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
