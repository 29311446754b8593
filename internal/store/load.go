package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Stored is a session as the tables have it.
type Stored struct {
	Found bool
	// State has tombstones only past its newest snapshot, as device.State
	// keeps them, though the tables have all.
	State     device.State
	Positions []device.Position
	Counters  Counters
	Revision  Revision
	Test      TestState // of the device; zero: nobody has said anything
	Claims    []Claim   // of the device, contested
}

// Load returns the session as it was at one moment. It is what a workflow
// starts from.
func (s *Store) Load(ctx context.Context, session string) (Stored, error) {
	if err := device.CheckSession(session); err != nil {
		return Stored{}, fmt.Errorf("load: %w", err)
	}
	var out Stored
	err := s.retry(ctx, func(conn *pgxpool.Conn) (err error) {
		out, err = loadOnce(ctx, conn, uuid.MustParse(session))
		return err
	})
	if err != nil {
		return Stored{}, fmt.Errorf("load session %s: %w", session, err)
	}
	return out, nil
}

func loadOnce(ctx context.Context, conn *pgxpool.Conn, id uuid.UUID) (Stored, error) {
	var out Stored
	b := &pgx.Batch{}
	b.Queue(sqlBeginRead)
	queueSession(b, id, func(r row) {
		out.Found, out.State, out.Counters, out.Revision = true, r.state(), r.counters, r.revision
	})
	b.Queue(sqlAttributes, id).Query(func(rows pgx.Rows) error {
		return scanAttributes(rows, func(name string, a device.Attribute) {
			if out.Found && (!a.Removed() || a.Seq > out.State.Snapshot) {
				out.State.Attributes[name] = a
			}
		})
	})
	b.Queue(sqlPositions, uuidArray{uuidOf(id)}).Query(func(rows pgx.Rows) error {
		return scanPositions(rows, func(_ uuid.UUID, p device.Position) { out.Positions = append(out.Positions, p) })
	})
	tests := map[string]TestState{}
	queueTestStates(b, []uuid.UUID{id}, tests)
	claims := map[string][]Claim{}
	queueClaimsOf(b, []uuid.UUID{id}, claims)
	b.Queue(sqlCommit)
	err := conn.SendBatch(ctx, b).Close()
	out.Test, out.Claims = tests[id.String()], claims[id.String()]
	return out, err
}

// queueSession queues the reading of a session's row. found is called if there is
// one.
func queueSession(b *pgx.Batch, session uuid.UUID, found func(row)) {
	b.Queue(sqlSession, session).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var r row
			if err := r.scan(rows); err != nil {
				return err
			}
			found(r)
		}
		return rows.Err()
	})
}

// scanAttributes reads name, value, seq, observed_at. JSONB keeps the value and
// not its text: the canonical form is made again, and is the bytes that went in.
func scanAttributes(rows pgx.Rows, each func(string, device.Attribute)) error {
	for rows.Next() {
		var name string
		var value []byte
		var seq int64
		var at time.Time
		if err := rows.Scan(&name, &value, &seq, &at); err != nil {
			return err
		}
		a, err := decodeAttribute(value, seq, at)
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
		each(name, a)
	}
	return rows.Err()
}

// decodeAttribute makes an attribute of its columns. A null value is a tombstone.
func decodeAttribute(value []byte, seq int64, at time.Time) (device.Attribute, error) {
	a := device.Attribute{Value: json.RawMessage("null"), Seq: seq, At: at.UTC()}
	if value == nil {
		return a, nil
	}
	v, err := device.Canonical(value)
	a.Value = v
	return a, err
}

func parseSessions(sessions []string) ([]uuid.UUID, error) {
	ids := make([]uuid.UUID, len(sessions))
	for i, session := range sessions {
		if err := device.CheckSession(session); err != nil {
			return nil, err
		}
		ids[i] = uuid.MustParse(session)
	}
	return ids, nil
}

// Positions returns how far each of the sessions is applied: the poller's acks.
// Sessions that are not stored are left out. It is one query by key.
func (s *Store) Positions(ctx context.Context, sessions []string) (map[string][]device.Position, error) {
	ids, err := parseSessions(sessions)
	if err != nil {
		return nil, fmt.Errorf("positions: %w", err)
	}
	out := make(map[string][]device.Position, len(sessions))
	if len(ids) == 0 {
		return out, nil
	}
	rows, err := s.pool.Query(ctx, sqlPositions, uuidsOf(ids))
	if err == nil {
		err = scanPositions(rows, func(id uuid.UUID, p device.Position) { out[id.String()] = append(out[id.String()], p) })
	}
	if err != nil {
		return nil, fmt.Errorf("positions of %d sessions: %w", len(sessions), err)
	}
	return out, nil
}
