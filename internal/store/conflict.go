package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rollcall-platform/rollcall/internal/identity"
)

// Decisions on a conflict.
const (
	Merged    = "merged"     // it was one device
	KeptApart = "kept-apart" // they are two
	Withdrawn = "withdrawn"  // of a contested claim: the evidence leads there no more
)

// byEvidence is who decided what no person did.
const byEvidence = "evidence"

// ErrDecided is wrapped by the error of a decision about a conflict that has
// been decided otherwise.
var ErrDecided = errors.New("decided before")

// Conflict is a pair of devices that the evidence of one session leads to.
type Conflict struct {
	ID      string `json:"conflict_id"`
	A       Side   `json:"a"` // that the session belongs to
	B       Side   `json:"b"` // that it brought evidence of
	Session string `json:"session_id,omitempty"`
	// Contested says that the session's RAE claims B, which a session of another
	// RAE holds. The claim is honoured when that one lets go.
	Contested bool      `json:"contested,omitempty"`
	NotedAt   time.Time `json:"noted_at"`
	Decision  string    `json:"decision,omitempty"` // empty: open
	DecidedBy string    `json:"decided_by,omitempty"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
}

// Side is one device of a conflict, and the evidence that leads to it.
type Side struct {
	Device string `json:"device_id"`
	Name   string `json:"name,omitempty"`
	Kind   string `json:"kind,omitempty"`
	Value  string `json:"value,omitempty"`
}

func scanConflict(r pgx.CollectableRow) (Conflict, error) {
	var c Conflict
	var id, a, b, session uuid.UUID
	var decided *time.Time
	err := r.Scan(&id, &a, &c.A.Kind, &c.A.Value, &b, &c.B.Kind, &c.B.Value, &session, &c.Contested, &c.NotedAt, &c.Decision, &c.DecidedBy, &decided)
	c.ID, c.A.Device, c.B.Device = id.String(), a.String(), b.String()
	c.NotedAt, c.DecidedAt = c.NotedAt.UTC(), utc(decided)
	if session != uuid.Nil {
		c.Session = session.String()
	}
	return c, err
}

// Conflicts returns those that wait for a decision, and with all also those that
// were decided, open ones first, at most MaxLimit. With ref, only those of the
// device that it names, as for GetDevice.
func (s *Store) Conflicts(ctx context.Context, ref string, all bool) ([]Conflict, error) {
	var of *uuid.UUID
	if ref != "" {
		id, _, err := s.resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		of = &id
	}
	rows, err := s.pool.Query(ctx, sqlConflicts, all, of, MaxLimit)
	if err != nil {
		return nil, fmt.Errorf("list conflicts: %w", err)
	}
	conflicts, err := pgx.CollectRows(rows, scanConflict)
	if err == nil {
		err = s.addNames(ctx, conflicts)
	}
	if err != nil {
		return nil, fmt.Errorf("list conflicts: %w", err)
	}
	return conflicts, nil
}

// addNames fills in the devices' names.
func (s *Store) addNames(ctx context.Context, conflicts []Conflict) error {
	var ids []uuid.UUID
	for _, c := range conflicts {
		ids = append(ids, uuid.MustParse(c.A.Device), uuid.MustParse(c.B.Device))
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := s.pool.Query(ctx, sqlCurrentSessions, ids)
	if err != nil {
		return err
	}
	sessions, err := pgx.CollectRows(rows, scanSummary)
	if err != nil {
		return err
	}
	if err := s.describe(ctx, sessions); err != nil {
		return err
	}
	names := make(map[string]string, len(sessions))
	for _, d := range sessions {
		names[d.Device] = d.Name
	}
	for i := range conflicts {
		c := &conflicts[i]
		c.A.Name, c.B.Name = names[c.A.Device], names[c.B.Device]
	}
	return nil
}

// conflict returns the conflict whose identifier ref is or begins.
func (s *Store) conflict(ctx context.Context, ref string) (Conflict, error) {
	ref = strings.ToLower(strings.TrimSpace(ref))
	if len(ref) < minPrefix || len(ref) > 36 || strings.ContainsFunc(ref, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef-", r) }) {
		return Conflict{}, fmt.Errorf("%w: %q is not the beginning of a conflict's UUID", ErrNotFound, clip(ref))
	}
	rows, err := s.pool.Query(ctx, sqlConflictsLike, ref)
	if err != nil {
		return Conflict{}, fmt.Errorf("look up conflict %q: %w", ref, err)
	}
	found, err := pgx.CollectRows(rows, scanConflict)
	switch {
	case err != nil:
		return Conflict{}, fmt.Errorf("look up conflict %q: %w", ref, err)
	case len(found) == 0:
		return Conflict{}, fmt.Errorf("%w: no conflict's UUID is or begins with %q", ErrNotFound, ref)
	case len(found) > 1:
		return Conflict{}, fmt.Errorf("%q begins several conflicts' UUIDs: write more of it", ref)
	}
	return found[0], nil
}

// KeepApart decides a conflict: the devices are two, and the same evidence is no
// conflict again. The same decision again changes nothing.
func (s *Store) KeepApart(ctx context.Context, ref, by string) (Conflict, error) {
	c, err := s.conflict(ctx, ref)
	switch {
	case err != nil || c.Decision == KeptApart:
		return c, err
	case c.Decision != "":
		return c, decidedBefore(c)
	}
	if _, err := s.pool.Exec(ctx, sqlDecide, c.A.Device, c.B.Device, KeptApart, by); err != nil {
		return c, fmt.Errorf("keep apart %s and %s: %w", c.A.Device, c.B.Device, err)
	}
	return s.conflict(ctx, c.ID)
}

func decidedBefore(c Conflict) error {
	return fmt.Errorf("conflict %s: %w: %s by %s at %s", c.ID, ErrDecided, c.Decision, c.DecidedBy, c.DecidedAt.Format(time.RFC3339))
}

// Merge is what a merge did.
type Merge struct {
	Device string `json:"device_id"` // that stays
	Gone   string `json:"merged_device_id"`
	By     string `json:"by"`
}

// MergeConflict decides a conflict: the devices are one. The one that is known
// longer stays. Devices that were kept apart may be merged later.
func (s *Store) MergeConflict(ctx context.Context, ref, by string) (Merge, error) {
	c, err := s.conflict(ctx, ref)
	if err != nil {
		return Merge{}, err
	}
	if c.Decision == Merged {
		return Merge{}, decidedBefore(c)
	}
	a, b := uuid.MustParse(c.A.Device), uuid.MustParse(c.B.Device)
	rows, err := s.pool.Query(ctx, sqlDevicesByAge, []uuid.UUID{a, b})
	if err != nil {
		return Merge{}, fmt.Errorf("merge conflict %s: %w", c.ID, err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return Merge{}, fmt.Errorf("merge conflict %s: %w", c.ID, err)
	}
	if len(ids) != 2 {
		return Merge{}, fmt.Errorf("merge conflict %s: %w: one of its devices no longer exists", c.ID, ErrNotFound)
	}
	return s.merge(ctx, ids[1], ids[0], by)
}

// MergeDevices merges the device that from names into the one that into names,
// with its sessions, identities and, where it is the stricter, test state.
// SplitDevice undoes it. References are those of GetDevice.
func (s *Store) MergeDevices(ctx context.Context, from, into, by string) (Merge, error) {
	fromID, _, err := s.resolve(ctx, from)
	if err != nil {
		return Merge{}, err
	}
	intoID, _, err := s.resolve(ctx, into)
	if err != nil {
		return Merge{}, err
	}
	if fromID == intoID {
		return Merge{}, fmt.Errorf("%q and %q are one device already, %s", clip(from), clip(into), intoID)
	}
	return s.merge(ctx, fromID, intoID, by)
}

func (s *Store) merge(ctx context.Context, from, into uuid.UUID, by string) (Merge, error) {
	m := Merge{Device: into.String(), Gone: from.String(), By: by}
	err := s.retry(ctx, func(conn *pgxpool.Conn) error { return mergeOnce(ctx, conn, from, into, by) })
	if err != nil {
		return m, fmt.Errorf("merge device %s into %s: %w", from, into, err)
	}
	return m, nil
}

func mergeOnce(ctx context.Context, conn *pgxpool.Conn, from, into uuid.UUID, by string) error {
	both := []uuid.UUID{from, into}
	slices.SortFunc(both, compareUUID)
	b := &pgx.Batch{}
	b.Queue(sqlBegin)
	b.Queue(sqlLockDevices, uuidsOf(both)).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 2 {
			return fmt.Errorf("%w: one of them was merged into another meanwhile", ErrNotFound)
		}
		return nil
	})
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	b = &pgx.Batch{}
	b.Queue(sqlRecordMerge, identity.ConflictID(from, into), into, from, uuid.Nil, by)
	b.Queue(sqlDecide, from, into, Merged, by)
	queueMerges(b, []identity.Merge{{From: from, Into: into}})
	queueCommit(b)
	return conn.SendBatch(ctx, b).Close()
}

// Timeline returns the device's current session and its timeline, newest first,
// at most MaxLimit entries.
func (s *Store) Timeline(ctx context.Context, ref string) (Summary, []Identity, error) {
	id, _, err := s.resolve(ctx, ref)
	if err != nil {
		return Summary{}, nil, err
	}
	sessions, err := s.sessions(ctx, id)
	if err != nil {
		return Summary{}, nil, fmt.Errorf("timeline of %q: %w", ref, err)
	}
	rows, err := s.pool.Query(ctx, sqlIdentitiesOf, id, MaxLimit)
	if err != nil {
		return Summary{}, nil, fmt.Errorf("timeline of %q: %w", ref, err)
	}
	identities, err := pgx.CollectRows(rows, scanIdentity)
	if err != nil {
		return Summary{}, nil, fmt.Errorf("timeline of %q: %w", ref, err)
	}
	return sessions[0], identities, nil
}
