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
// record of each; where that is the same moment, by what the edge's clock says
// of their beginnings, and then by their identifiers.
func (s *Store) Rivals(ctx context.Context, session string) (Rivals, error) {
	if err := device.CheckSession(session); err != nil {
		return Rivals{}, fmt.Errorf("rivals: %w", err)
	}
	out, err := s.rivals(ctx, []uuid.UUID{uuid.MustParse(session)})
	if err != nil {
		return Rivals{}, fmt.Errorf("rivals of session %s: %w", session, err)
	}
	return out[session], nil
}

func (s *Store) rivals(ctx context.Context, sessions []uuid.UUID) (map[string]Rivals, error) {
	var out map[string]Rivals
	err := s.retry(ctx, func(conn *pgxpool.Conn) error {
		out = make(map[string]Rivals)
		rows, err := conn.Query(ctx, sqlRivals, keys(sessions), maxRivals*len(sessions))
		if err != nil {
			return err
		}
		var of, id uuid.UUID
		var older bool
		_, err = pgx.ForEachRow(rows, []any{&of, &id, &older}, func() error {
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
	return out, err
}

// answer completes the answers of updates that are committed. It looks after the
// commit, so that of two sessions that are written at once one sees the other.
func (s *Store) answer(ctx context.Context, updates []Update) error {
	var open []uuid.UUID
	for _, u := range updates {
		if u.Opens && !u.Answer.Known {
			open = append(open, uuid.MustParse(u.Session))
		}
	}
	if len(open) == 0 {
		return nil
	}
	rivals, err := s.rivals(ctx, open)
	if err != nil {
		return fmt.Errorf("rivals: %w", err)
	}
	for _, u := range updates {
		if r, ok := rivals[u.Session]; ok && u.Opens {
			u.Answer.Rivals = r
		}
	}
	return nil
}
