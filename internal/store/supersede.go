package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// maxRivals bounds what Rivals reads. A device has one such session, if any.
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
	var out Rivals
	err := s.retry(ctx, func(conn *pgxpool.Conn) error {
		out = Rivals{}
		rows, err := conn.Query(ctx, sqlRivals, uuid.MustParse(session), maxRivals)
		if err != nil {
			return err
		}
		var id uuid.UUID
		var older bool
		_, err = pgx.ForEachRow(rows, []any{&id, &older}, func() error {
			switch {
			case older:
				out.Older = append(out.Older, id.String())
			case out.Newer == "":
				out.Newer = id.String()
			}
			return nil
		})
		return err
	})
	if err != nil {
		return Rivals{}, fmt.Errorf("rivals of session %s: %w", session, err)
	}
	return out, nil
}
