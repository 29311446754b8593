package store

import (
	"context"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Explanation says where each value of a session comes from, and what became of
// the events that are not among them.
type Explanation struct {
	Summary
	Attributes  []Explained       `json:"attributes"` // with those that were removed, by name
	Counters    Counters          `json:"counters"`
	Gaps        map[string]int64  `json:"gaps"` // by what ended them: events, snapshot, narrowed; "open": nothing yet
	Quarantined QuarantineCounter `json:"quarantined"`
}

// QuarantineCounter counts the batches of a session that were stepped over.
type QuarantineCounter struct {
	Batches    int64 `json:"batches"`
	Unresolved int64 `json:"unsettled"`
}

// Explained is an attribute, and the event that set it.
type Explained struct {
	Change
	// Event is the CloudEvents id of the event that set the value.
	Event string `json:"event_id"`
	// Carrier is what brought the value: CarriedByEvent or CarriedBySnapshot, or
	// empty where the tables do not prove either.
	Carrier string `json:"came,omitempty"`
}

// What brings a value.
const (
	CarriedByEvent    = "event"    // the event that set it
	CarriedBySnapshot = "snapshot" // a snapshot that listed it before the event itself had come
)

// Explain explains the device, or the session, that ref names; of a device its
// current session. With attribute, only that one. References are those of
// GetDevice.
func (s *Store) Explain(ctx context.Context, ref, attribute string) (Explanation, error) {
	deviceID, session, err := s.resolve(ctx, ref)
	if err != nil {
		return Explanation{}, err
	}
	if session == uuid.Nil {
		sessions, err := s.sessions(ctx, deviceID)
		if err != nil {
			return Explanation{}, fmt.Errorf("explain %q: %w", ref, err)
		}
		session = uuid.MustParse(sessions[0].Session)
	}
	e := Explanation{Attributes: []Explained{}, Gaps: map[string]int64{}}
	proof, err := s.readExplanation(ctx, &e, session, attribute)
	if err != nil {
		return Explanation{}, fmt.Errorf("explain %q: %w", ref, err)
	}
	if attribute != "" && len(e.Attributes) == 0 {
		return Explanation{}, fmt.Errorf("%w: session %s has never had an attribute %q", ErrNotFound, session, clip(attribute))
	}
	for i := range e.Attributes {
		a := &e.Attributes[i]
		a.Event = a.Session + "/" + strconv.FormatInt(a.Attribute.Seq, 10)
		a.Carrier = proof.carrier(a.Change)
	}
	return e, nil
}

// readExplanation reads the parts of e as they were at one moment.
func (s *Store) readExplanation(ctx context.Context, e *Explanation, session uuid.UUID, attribute string) (provenance, error) {
	var proof provenance
	b := &pgx.Batch{}
	b.Queue(sqlBeginRead)
	b.Queue(sqlSummaries, []uuid.UUID{session}).Query(func(rows pgx.Rows) (err error) {
		e.Summary, err = pgx.CollectExactlyOneRow(rows, scanSummary)
		return err
	})
	queueSession(b, session, func(r row) { proof.row, e.Counters = r, r.counters })
	attributes, tests := map[string]device.Attribute{}, map[string]TestState{}
	b.Queue(sqlAttributes, session).Query(func(rows pgx.Rows) error {
		return scanAttributes(rows, func(name string, a device.Attribute) {
			if !a.Removed() {
				attributes[name] = a
			}
		})
	})
	queueTestStates(b, []uuid.UUID{session}, tests)
	b.Queue(sqlExplained, session, attribute).Query(func(rows pgx.Rows) error {
		changes, err := pgx.CollectRows(rows, scanChange)
		for _, c := range changes {
			e.Attributes = append(e.Attributes, Explained{Change: c})
		}
		return err
	})
	b.Queue(sqlGapsEnded, session).Query(func(rows pgx.Rows) error {
		var by string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&by, &n}, func() error {
			if by == "" {
				by = "open"
			}
			e.Gaps[by] = n
			return nil
		})
		return err
	})
	b.Queue(sqlGapsBySnapshot, session).Query(func(rows pgx.Rows) (err error) {
		proof.coveredGaps, err = pgx.CollectRows(rows, pgx.RowToStructByPos[device.Range])
		return err
	})
	b.Queue(sqlQuarantineCount, session).Query(func(rows pgx.Rows) (err error) {
		e.Quarantined, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[QuarantineCounter])
		return err
	})
	b.Queue(sqlCommit)
	err := s.pool.SendBatch(ctx, b).Close()
	e.Summary.describe(attributes)
	e.Test = tests[session.String()].orAvailable()
	return proof, err
}

// provenance is what the tables prove of what brought a session's values.
type provenance struct {
	row
	coveredGaps []device.Range // of seq: missing until a snapshot covered them
}

// carrier says what brought the value of a change, if that is proved.
func (p *provenance) carrier(c Change) string {
	seq := c.Attribute.Seq
	for _, r := range p.coveredGaps {
		if r.From <= seq && seq <= r.To {
			return CarriedBySnapshot
		}
	}
	switch {
	case seq == p.snapshot:
		return CarriedBySnapshot // it is the snapshot's own: what it no longer listed
	case seq > p.snapshot && p.seen.Has(seq):
		return CarriedByEvent // past the snapshot there are only events
	case p.counters.Events == p.asOf:
		return CarriedByEvent // every one has come
	}
	return ""
}
