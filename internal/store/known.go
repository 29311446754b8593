package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Known returns which events of each session need not be applied again: those
// that are applied, that a snapshot covers, or that come after the edge's
// close and so are refused for ever. Sessions that are not stored are left out. It is one
// query by key.
func (s *Store) Known(ctx context.Context, sessions []string) (map[string]device.SeqSet, error) {
	ids, err := parseSessions(sessions)
	if err != nil {
		return nil, fmt.Errorf("known events: %w", err)
	}
	out := make(map[string]device.SeqSet, len(sessions))
	rows, err := s.pool.Query(ctx, sqlKnown, uuidsOf(ids))
	if err != nil {
		return nil, fmt.Errorf("known events of %d sessions: %w", len(sessions), err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		var snapshot, closed int64
		var text []byte
		var seen device.SeqSet
		if err := rows.Scan(&id, &snapshot, &text, &closed); err != nil {
			return nil, fmt.Errorf("known events: %w", err)
		}
		if err := json.Unmarshal(text, &seen); err != nil {
			return nil, fmt.Errorf("session %s: seen: %w", id, err)
		}
		if snapshot > 0 {
			seen = seen.Union(device.SeqSet{{From: 1, To: snapshot}})
		}
		if closed > 0 {
			seen = seen.Union(device.SeqSet{{From: closed, To: device.MaxSeq}})
		}
		out[id.String()] = seen
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("known events of %d sessions: %w", len(sessions), err)
	}
	return out, nil
}
