package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Horizons say which rows are deleted: those that are older. A zero time keeps
// all. They are compared with times of the database and of Kafka, never of an
// edge.
type Horizons struct {
	// History: changes that were replaced before, gaps that ended before, and
	// quarantined batches that were resolved before. The newest change of each
	// attribute stays.
	History time.Time
	// Tombstones that were applied before, and that a snapshot covers.
	Tombstones time.Time
	// Closed sessions of which nothing was received or applied since, with all
	// their rows. One with a quarantined batch that is open stays.
	// The device and its identities stay too: what comes back is known again.
	Closed time.Time
}

// Expired counts the deleted rows, by table.
type Expired map[string]int64

const (
	expirePage   = 200 // sessions that are looked at together
	expireClosed = 20  // closed sessions that one transaction deletes, with all their rows
)

// Expire deletes what is older than the horizons, session by session in the
// order of their uuidsOf, at most batch rows of history in one transaction. It may
// run beside Apply and beside itself. The counts it returns are right also where
// it returns an error.
func (s *Store) Expire(ctx context.Context, h Horizons, batch int) (Expired, error) {
	deleted := Expired{}
	if !h.History.IsZero() {
		// First: whoever asks meanwhile learns that something may be missing.
		if _, err := s.pool.Exec(ctx, sqlRaiseHorizon, h.History); err != nil {
			return deleted, fmt.Errorf("expire: %w", err)
		}
	}
	for after := uuid.Nil; ; {
		rows, err := s.pool.Query(ctx, sqlSessionsAfter, after, expirePage)
		if err != nil {
			return deleted, fmt.Errorf("expire: %w", err)
		}
		page, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return deleted, fmt.Errorf("expire: %w", err)
		}
		if len(page) == 0 {
			return deleted, nil
		}
		if err := s.expirePage(ctx, h, page, batch, deleted); err != nil {
			return deleted, fmt.Errorf("expire sessions from %s on: %w", page[0], err)
		}
		after = page[len(page)-1]
	}
}

func (s *Store) expirePage(ctx context.Context, h Horizons, page []uuid.UUID, batch int, deleted Expired) error {
	if !h.Closed.IsZero() {
		if err := s.expireClosed(ctx, h.Closed, page, deleted); err != nil {
			return err
		}
	}
	if !h.History.IsZero() {
		for n := int64(batch); n == int64(batch); {
			var err error
			if n, err = s.delete(ctx, deleted, "attribute_change", sqlExpireHistory, uuidsOf(page), h.History, batch); err != nil {
				return err
			}
		}
		if _, err := s.delete(ctx, deleted, "session_gap", sqlExpireGaps, uuidsOf(page), h.History); err != nil {
			return err
		}
		if _, err := s.delete(ctx, deleted, "quarantined_batch", sqlExpireQuarantine, uuidsOf(page), h.History); err != nil {
			return err
		}
	}
	if !h.Tombstones.IsZero() {
		if _, err := s.delete(ctx, deleted, "device_attribute", sqlExpireTombstones, uuidsOf(page), h.Tombstones); err != nil {
			return err
		}
	}
	return nil
}

// delete runs one statement, a transaction of its own, and counts.
func (s *Store) delete(ctx context.Context, deleted Expired, table, sql string, args ...any) (n int64, err error) {
	err = s.retry(ctx, func(conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, sql, args...)
		n = tag.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", table, err)
	}
	deleted[table] += n
	return n, nil
}

// closedSessionDeletes delete closed sessions, in the order in which they run.
var closedSessionDeletes = []struct{ table, sql string }{
	{"attribute_change", sqlDeleteChanges},
	{"device_attribute", sqlDeleteAttributes},
	{"network_interface", sqlDeleteInterfaces},
	{"ingest_position", sqlDeletePositions},
	{"session_gap", sqlDeleteGaps},
	{"quarantined_batch", sqlDeleteQuarantine},
	{"device_session", sqlDeleteSessions},
}

// expireClosed deletes the closed sessions of the page that are old enough. The
// session's row is locked first, as Apply does, and looked at under the lock.
func (s *Store) expireClosed(ctx context.Context, before time.Time, page []uuid.UUID, deleted Expired) error {
	for left := expireClosed; left == expireClosed; {
		var some Expired
		err := s.retry(ctx, func(conn *pgxpool.Conn) error {
			some = Expired{}
			if _, err := conn.Exec(ctx, sqlBegin); err != nil {
				return err
			}
			rows, err := conn.Query(ctx, sqlLockExpired, uuidsOf(page), before, expireClosed)
			if err != nil {
				return err
			}
			expired, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
			if err != nil {
				return err
			}
			left = len(expired)
			b := &pgx.Batch{}
			if left > 0 {
				b.Queue(sqlEndTimelineOf, uuidsOf(expired))
			}
			for _, d := range closedSessionDeletes {
				if left == 0 {
					break
				}
				b.Queue(d.sql, uuidsOf(expired)).Exec(func(tag pgconn.CommandTag) error {
					some[d.table] += tag.RowsAffected()
					return nil
				})
			}
			queueCommit(b)
			return conn.SendBatch(ctx, b).Close()
		})
		if err != nil {
			return fmt.Errorf("closed sessions: %w", err)
		}
		for table, n := range some {
			deleted[table] += n
		}
	}
	return nil
}
