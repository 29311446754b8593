package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// SessionOf is a session and its RAE.
type SessionOf struct {
	Session string
	RAE     string
}

// OpenSessions returns some of the sessions that are not closed, in the order
// of their identifiers: of the RAEs with these serials, or of all, from after
// the session with which the page before ended. Fewer than limit are the last.
func (s *Store) OpenSessions(ctx context.Context, raes []string, after string, limit int) ([]SessionOf, error) {
	from := uuid.Nil
	if after != "" {
		var err error
		if from, err = uuid.Parse(after); err != nil {
			return nil, fmt.Errorf("open sessions: %q is not where a page ends", after)
		}
	}
	if len(raes) == 0 {
		raes = nil
	}
	rows, err := s.pool.Query(ctx, sqlOpenSessions, from, raes, limit)
	if err != nil {
		return nil, fmt.Errorf("open sessions: %w", err)
	}
	defer rows.Close()
	var out []SessionOf
	for rows.Next() {
		var id uuid.UUID
		var of SessionOf
		if err := rows.Scan(&id, &of.RAE); err != nil {
			return nil, fmt.Errorf("open sessions: %w", err)
		}
		of.Session = id.String()
		out = append(out, of)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("open sessions: %w", err)
	}
	return out, nil
}
