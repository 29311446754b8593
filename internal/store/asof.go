package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Clock says by which clock a record is as of a time.
type Clock string

// The clocks of a change.
const (
	// Observed is the edge's clock: what was true on the LAN, as far as it has
	// come to be known since.
	Observed Clock = "observed"
	// Applied is the database's clock: what a query would have shown.
	Applied Clock = "applied"
)

// PastRecord is a device's record as it was at a time.
//
// As of time T, an attribute is what the change with the highest seq says, of
// those that were observed (or applied) by T. Order is seq: a change that came
// late, and lost, changed nothing; one that a snapshot brought counts from when
// the edge observed it. By Observed, a later seq with an earlier clock, where
// the edge's stepped back, holds from its own time on.
type PastRecord struct {
	Device  string    `json:"device_id"`
	Session string    `json:"session_id"` // that began last, of those with a record by then
	RAE     string    `json:"rae"`
	At      time.Time `json:"at"`
	By      Clock     `json:"by"`
	// Changes that hold then, tombstones among them, by name.
	Changes []Change `json:"changes"`
	// HistoryBegins is since when history is whole, if At is before that:
	// attributes are missing, and none is wrong.
	HistoryBegins time.Time `json:"history_begins,omitzero"`
	// Unrecorded are attributes whose present value is not in the history,
	// because it was applied while none was kept: they may be wrong.
	Unrecorded []string `json:"untold,omitempty"`
}

// AsOf returns the record of the device, or of the session, that ref names, as
// it was at a time. It is empty where there was none. References are those of
// GetDevice.
func (s *Store) AsOf(ctx context.Context, ref string, at time.Time, by Clock) (PastRecord, error) {
	deviceID, session, err := s.resolve(ctx, ref)
	if err != nil {
		return PastRecord{}, err
	}
	record := PastRecord{Device: deviceID.String(), At: at.UTC(), By: by}
	sessions, err := s.sessions(ctx, deviceID)
	if err != nil {
		return record, fmt.Errorf("record of %q: %w", ref, err)
	}
	sessions = slices.DeleteFunc(sessions, func(d Summary) bool { return session != uuid.Nil && d.Session != session.String() })
	slices.SortStableFunc(sessions, func(a, b Summary) int { return b.FirstObserved.Compare(a.FirstObserved) })
	for _, of := range sessions {
		if err := s.asOf(ctx, &record, uuid.MustParse(of.Session)); err != nil {
			return record, fmt.Errorf("record of %q: %w", ref, err)
		}
		if len(record.Changes) > 0 {
			record.Session, record.RAE = of.Session, of.RAE
			break
		}
	}
	return record, nil
}

// asOf reads one session as of record.At, all of it at one moment.
func (s *Store) asOf(ctx context.Context, record *PastRecord, session uuid.UUID) error {
	sql := sqlObservedBy
	if record.By == Applied {
		sql = sqlAppliedBy
	}
	b := &pgx.Batch{}
	b.Queue(sqlBeginRead)
	b.Queue(sql, session, record.At).Query(func(rows pgx.Rows) (err error) {
		record.Changes, err = pgx.CollectRows(rows, scanChange)
		return err
	})
	b.Queue(sqlHorizon).Query(func(rows pgx.Rows) error {
		horizons, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
		if len(horizons) > 0 && record.At.Before(horizons[0]) {
			record.HistoryBegins = horizons[0].UTC()
		}
		return err
	})
	b.Queue(sqlUnrecorded, session).Query(func(rows pgx.Rows) (err error) {
		record.Unrecorded, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	b.Queue(sqlCommit)
	return s.pool.SendBatch(ctx, b).Close()
}
