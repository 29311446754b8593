package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// maxOlder bounds what Older returns. A device has one such session, if any.
const maxOlder = 16

// Older returns the open sessions that the session has taken the place of:
// those of the same MAC on the same RAE, of which nothing was received after
// the session's own newest record. An edge holds at most one open session of a
// MAC; another one is open here because the edge lost its store and with it the
// end of that session. A closed session has taken no place, nor has one without
// a MAC. A device that moved to another RAE keeps its session there: that RAE
// may still see it.
//
// It goes by when Kafka received what the edges sent, because sessions are read
// in no order, and a session that is closed wrongly stays so.
func (s *Store) Older(ctx context.Context, session string) (older []string, err error) {
	if err := device.CheckSession(session); err != nil {
		return nil, fmt.Errorf("older sessions: %w", err)
	}
	err = s.retry(ctx, func(conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, sqlOlder, uuid.MustParse(session), maxOlder)
		if err != nil {
			return err
		}
		older, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
			var id uuid.UUID
			err := row.Scan(&id)
			return id.String(), err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sessions older than %s: %w", session, err)
	}
	return older, nil
}
