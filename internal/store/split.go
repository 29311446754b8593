package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rollcall-platform/rollcall/internal/identity"
)

// SplitBy says which sessions leave a device: those that are named, by UUID or the
// beginning of one, and those that have ever held one of the pieces of evidence,
// each written "kind=value" as the timeline shows it.
type SplitBy struct {
	Sessions []string
	Evidence []string
}

// Split is what a split did.
type Split struct {
	Device   string   `json:"device_id"`     // that was split
	New      string   `json:"new_device_id"` // that the sessions went to
	Sessions []string `json:"session_ids"`
	By       string   `json:"by"`
}

// SplitDevice undoes a merge: sessions leave the device that ref names for a new
// one, with their timeline, the evidence that was named, and what no session that
// stays has held. Other evidence stays. Both have the device's test state then:
// nobody knows whose it was. The two are kept apart: no evidence merges them again;
// a person may, with MergeDevices. At least one session must go and one stay.
func (s *Store) SplitDevice(ctx context.Context, ref string, by SplitBy, who string) (Split, error) {
	id, _, err := s.resolve(ctx, ref)
	if err != nil {
		return Split{}, err
	}
	evidence, err := parseEvidence(by.Evidence)
	if err != nil {
		return Split{}, err
	}
	out := Split{Device: id.String(), New: uuid.NewString(), By: who}
	err = s.retry(ctx, func(conn *pgxpool.Conn) error {
		sp := &split{device: id, into: uuid.MustParse(out.New), evidence: evidence}
		if err := sp.read(ctx, conn); err != nil {
			return err
		}
		if err := sp.choose(by.Sessions); err != nil {
			return err
		}
		out.Sessions = nil
		for _, session := range sp.leaving {
			out.Sessions = append(out.Sessions, session.String())
		}
		return sp.write(ctx, conn, who)
	})
	if err != nil {
		return Split{}, fmt.Errorf("split device %s: %w", id, err)
	}
	return out, nil
}

func parseEvidence(texts []string) ([]identity.Evidence, error) {
	var out []identity.Evidence
	for _, text := range texts {
		kind, value, ok := strings.Cut(text, "=")
		if !ok || kind == "" || value == "" {
			return nil, fmt.Errorf("evidence %q is not written kind=value, such as mac=9c:b6:d0:00:00:07", clip(text))
		}
		out = append(out, identity.Evidence{Kind: identity.Kind(kind), Value: value})
	}
	return out, nil
}

// split is one transaction of SplitDevice under way.
type split struct {
	device, into uuid.UUID
	evidence     []identity.Evidence // to go

	sessions []uuid.UUID
	held     map[uuid.UUID][]identity.Evidence // ever, by session
	leaving  []uuid.UUID
}

// read locks the device and its sessions and reads what they have held.
func (sp *split) read(ctx context.Context, conn *pgxpool.Conn) error {
	sp.held = make(map[uuid.UUID][]identity.Evidence)
	b := &pgx.Batch{}
	b.Queue(sqlBegin)
	b.Queue(sqlLockDevices, uuidArray{uuidOf(sp.device)}).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return fmt.Errorf("%w: it was merged into another meanwhile", ErrNotFound)
		}
		return nil
	})
	b.Queue(sqlLockMergedSessions, uuidArray{uuidOf(sp.device)}).Query(func(rows pgx.Rows) (err error) {
		sp.sessions, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		return err
	})
	b.Queue(sqlEverHeld, sp.device).Query(func(rows pgx.Rows) error {
		var session uuid.UUID
		var e identity.Evidence
		_, err := pgx.ForEachRow(rows, []any{&session, &e.Kind, &e.Value}, func() error {
			sp.held[session] = append(sp.held[session], e)
			return nil
		})
		return err
	})
	return conn.SendBatch(ctx, b).Close()
}

// choose decides which sessions leave.
func (sp *split) choose(refs []string) error {
	leaves := make(map[uuid.UUID]bool)
	for _, ref := range refs {
		ref = strings.ToLower(strings.TrimSpace(ref))
		var found []uuid.UUID
		for _, session := range sp.sessions {
			if len(ref) >= minPrefix && strings.HasPrefix(session.String(), ref) {
				found = append(found, session)
			}
		}
		if len(found) != 1 {
			return fmt.Errorf("%w: %q is or begins %d of the device's %d sessions' UUIDs", ErrNotFound, clip(ref), len(found), len(sp.sessions))
		}
		leaves[found[0]] = true
	}
	for _, e := range sp.evidence {
		found := false
		for _, session := range sp.sessions {
			if slices.Contains(sp.held[session], e) {
				leaves[session], found = true, true
			}
		}
		if !found {
			return fmt.Errorf("%w: no session of the device has held %s %q", ErrNotFound, e.Kind, clip(e.Value))
		}
	}
	for _, session := range sp.sessions {
		if leaves[session] {
			sp.leaving = append(sp.leaving, session)
		}
	}
	switch {
	case len(sp.leaving) == 0:
		return errors.New("say which sessions leave it, by session or by evidence")
	case len(sp.leaving) == len(sp.sessions):
		return fmt.Errorf("all %d of its sessions would leave it", len(sp.sessions))
	}
	return nil
}

// leavingEvidence is the evidence that leads to the new device.
func (sp *split) leavingEvidence() (kinds, values []string) {
	stays := make(map[identity.Evidence]bool)
	for _, session := range sp.sessions {
		if !slices.Contains(sp.leaving, session) {
			for _, e := range sp.held[session] {
				stays[e] = true
			}
		}
	}
	goes := slices.Clone(sp.evidence)
	for _, session := range sp.leaving {
		for _, e := range sp.held[session] {
			if !stays[e] {
				goes = append(goes, e)
			}
		}
	}
	slices.SortFunc(goes, identity.Evidence.Compare)
	for _, e := range slices.Compact(goes) {
		kinds, values = append(kinds, string(e.Kind)), append(values, e.Value)
	}
	return kinds, values
}

func (sp *split) write(ctx context.Context, conn *pgxpool.Conn, who string) error {
	leaving := uuidsOf(sp.leaving)
	kinds, values := sp.leavingEvidence()
	b := &pgx.Batch{}
	b.Queue(sqlInsertDevices, uuidArray{uuidOf(sp.into)})
	b.Queue(sqlSplitSessions, leaving, sp.into)
	b.Queue(sqlSplitTimeline, leaving, sp.into)
	b.Queue(sqlSplitOwners, sp.device, sp.into, kinds, values)
	b.Queue(sqlCopyTestState, sp.device, sp.into)
	b.Queue(sqlRecordSplit, identity.ConflictID(sp.device, sp.into), sp.into, sp.device, sp.leaving[0], who)
	queueCommit(b)
	return conn.SendBatch(ctx, b).Close()
}
