package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// maxRivals bounds what is read for a session. A device has one rival, if any.
const maxRivals = 16

// Rivals are open sessions of the same MAC on the same RAE as a session.
type Rivals struct {
	Older []string // that the session has taken the place of
	Newer string   // the newest that has taken the session's place, if any
}

// Rivals returns those of a session. An edge holds at most one open session of a
// MAC; another one is open here because the edge lost its store, and with it the
// end of that session, or because its end is still on the way. A closed session
// has no rivals, nor has one without a MAC. A device that moved to another RAE
// keeps its session there: that RAE may still see it.
//
// Both sides look, because sessions are read in no order: the older one may
// reach the database last. Which is newer goes by when Kafka received the newest
// record of each that changed something, a confirmation is none; where that is the
// same moment, by their identifiers. Whether they are online says nothing here: who
// is dead never said that it went offline.
func (s *Store) Rivals(ctx context.Context, session string) (Rivals, error) {
	if err := device.CheckSession(session); err != nil {
		return Rivals{}, fmt.Errorf("rivals: %w", err)
	}
	out := map[string]Rivals{}
	err := s.retry(ctx, func(conn *pgxpool.Conn) error {
		clear(out)
		b := &pgx.Batch{}
		queueRivals(b, []uuid.UUID{uuid.MustParse(session)}, out)
		return conn.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return Rivals{}, fmt.Errorf("rivals of session %s: %w", session, err)
	}
	return out[session], nil
}

// queueRivals reads those of the sessions, by session.
func queueRivals(b *pgx.Batch, sessions []uuid.UUID, out map[string]Rivals) {
	b.Queue(sqlRivals, uuidsOf(sessions), maxRivals*len(sessions)).Query(func(rows pgx.Rows) error {
		var of, id uuid.UUID
		var older bool
		_, err := pgx.ForEachRow(rows, []any{&of, &id, &older}, func() error {
			r := out[of.String()]
			switch {
			case older:
				r.Older = append(r.Older, id.String())
			case r.Newer == "":
				r.Newer = id.String()
			}
			out[of.String()] = r
			return nil
		})
		return err
	})
}

// completeAnswers fills the answers of updates that are committed, in one round trip.
// It looks after the commit, so that of two sessions that are written at once one
// sees the other, and so that a device that is reserved meanwhile is seen as such
// here or by the session that is told.
func (s *Store) completeAnswers(ctx context.Context, updates []Update) error {
	var sessions []uuid.UUID
	for _, u := range updates {
		if u.wantsAnswer() {
			sessions = append(sessions, uuid.MustParse(u.Session))
		}
	}
	if len(sessions) == 0 {
		return nil
	}
	rivals, tests, claims := map[string]Rivals{}, map[string]TestState{}, map[string][]Claim{}
	err := s.retry(ctx, func(conn *pgxpool.Conn) error {
		clear(rivals)
		clear(tests)
		clear(claims)
		b := &pgx.Batch{}
		queueRivals(b, sessions, rivals)
		queueTestStates(b, sessions, tests)
		queueClaimsOf(b, sessions, claims)
		return conn.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return fmt.Errorf("rivals and test states: %w", err)
	}
	for _, u := range updates {
		if !u.wantsAnswer() {
			continue
		}
		u.Answer.Test, u.Answer.Claims = tests[u.Session], claims[u.Session]
		if u.Opens {
			u.Answer.Rivals = rivals[u.Session]
		}
	}
	return nil
}
