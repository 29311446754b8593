package store

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Device is all that is known of a device.
type Device struct {
	Summary
	Attributes map[string]device.Attribute `json:"attributes"` // that have a value
	Hash       string                      `json:"hash"`       // device.Hash of Attributes
	Counters   Counters                    `json:"counters"`
	Positions  []device.Position           `json:"positions"`
	Gaps       []Gap                       `json:"gaps,omitempty"` // newest first
	// RAEReceivedAt is Kafka's timestamp of the newest record of any session of
	// the RAE. One that is silent for as long as its devices says why.
	RAEReceivedAt time.Time `json:"rae_received_at,omitzero"`
	// Identities are the device's timeline, newest first, at most 200 entries.
	Identities []Identity `json:"identities,omitempty"`
	// Claims are the contested claims of the device and to it.
	Claims []Claim `json:"contested_claims,omitempty"`
	// Interfaces are the device's, one a session, those of open ones first.
	Interfaces []Interface `json:"interfaces,omitempty"`
	// Sessions of the device, the current one first, at most 200.
	Sessions []Summary `json:"sessions"`
}

// Counters of a session, since its first event.
type Counters struct {
	Events     int64 `json:"events"`      // applied, each once
	Records    int64 `json:"records"`     // Kafka records that held them
	Duplicates int64 `json:"duplicates"`  // events that had been applied before
	AfterClose int64 `json:"after_close"` // events refused because the session was closed
	Repaired   int64 `json:"repaired"`    // attributes that a snapshot had to correct
	OverLimit  int64 `json:"over_limit"`  // attributes refused because the state would not fit one event
	Stale      int64 `json:"stale"`       // attribute writes that lost against a newer seq
	Reopened   int64 `json:"reopened"`    // times that an event past a provisional close has reopened it
}

// Identity is an entry of a device's timeline: an attribute of one of its
// sessions held a piece of evidence, from one time to another.
type Identity struct {
	Kind      string    `json:"kind"` // esn, udn, serial, client, mac
	Value     string    `json:"value"`
	Session   string    `json:"session_id"`
	Attribute string    `json:"attribute"`
	ValidFrom time.Time `json:"valid_from"`        // observed
	ValidTo   time.Time `json:"valid_to,omitzero"` // zero: the session has it
}

// Gap is a range of seq that was missing.
type Gap struct {
	Range    device.Range `json:"range"` // [from,to]
	OpenedAt time.Time    `json:"opened_at"`
	EndedAt  time.Time    `json:"ended_at,omitzero"` // zero: still missing
	EndedBy  string       `json:"ended_by,omitempty"`
}

// GetDevice returns the device, or the session, that ref names: a device or
// session UUID, a MAC, a host name or any other name, in any case, or the unique
// beginning of one (at least three characters). It is about the device's current session, unless ref names
// another. Errors wrap ErrNotFound or are an *AmbiguousError.
func (s *Store) GetDevice(ctx context.Context, ref string) (Device, error) {
	deviceID, session, err := s.resolve(ctx, ref)
	if err != nil {
		return Device{}, err
	}
	sessions, err := s.sessions(ctx, deviceID)
	if err != nil {
		return Device{}, fmt.Errorf("get device %q: %w", ref, err)
	}
	if session == uuid.Nil {
		session = uuid.MustParse(sessions[0].Session)
	}
	d := Device{Sessions: sessions}
	if err := s.readDevice(ctx, &d, deviceID, session); err != nil {
		return Device{}, fmt.Errorf("get device %q: %w", ref, err)
	}
	return d, nil
}

// readDevice reads the parts of d as they were at one moment.
func (s *Store) readDevice(ctx context.Context, d *Device, deviceID, session uuid.UUID) error {
	d.Attributes = make(map[string]device.Attribute)
	var test TestState
	claims := map[string][]Claim{}
	b := &pgx.Batch{}
	b.Queue(sqlBeginRead)
	b.Queue(sqlSummaries, []uuid.UUID{session}).Query(func(rows pgx.Rows) (err error) {
		d.Summary, err = pgx.CollectExactlyOneRow(rows, scanSummary)
		return err
	})
	queueSession(b, session, func(r row) { d.Counters = r.counters })
	b.Queue(sqlAttributes, session).Query(func(rows pgx.Rows) error {
		return scanAttributes(rows, func(name string, a device.Attribute) {
			if !a.Removed() {
				d.Attributes[name] = a
			}
		})
	})
	b.Queue(sqlPositions, []uuid.UUID{session}).Query(func(rows pgx.Rows) error {
		return scanPositions(rows, func(_ uuid.UUID, p device.Position) { d.Positions = append(d.Positions, p) })
	})
	b.Queue(sqlRAEHeard, session).QueryRow(func(row pgx.Row) error {
		var at *time.Time
		err := row.Scan(&at)
		d.RAEReceivedAt = utc(at)
		return err
	})
	b.Queue(sqlGapsOf, session, maxDetails).Query(func(rows pgx.Rows) (err error) {
		d.Gaps, err = pgx.CollectRows(rows, scanGap)
		return err
	})
	b.Queue(sqlIdentitiesOf, deviceID, maxDetails).Query(func(rows pgx.Rows) (err error) {
		d.Identities, err = pgx.CollectRows(rows, scanIdentity)
		return err
	})
	b.Queue(sqlTestStates, []uuid.UUID{deviceID}).Query(func(rows pgx.Rows) error {
		states, err := scanTestStates(rows)
		test = states[deviceID.String()]
		return err
	})
	queueClaimsOf(b, []uuid.UUID{session}, claims)
	b.Queue(sqlInterfacesOf, deviceID, maxDetails).Query(func(rows pgx.Rows) (err error) {
		d.Interfaces, err = pgx.CollectRows(rows, scanInterface)
		return err
	})
	b.Queue(sqlCommit)
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	d.Summary.describe(d.Attributes)
	d.Test, d.Claims = test.orAvailable(), claims[session.String()]
	d.Hash = device.Hash(d.Attributes)
	return nil
}

func scanGap(r pgx.CollectableRow) (Gap, error) {
	var g Gap
	var ended *time.Time
	err := r.Scan(&g.Range.From, &g.Range.To, &g.OpenedAt, &ended, &g.EndedBy)
	g.OpenedAt, g.EndedAt = g.OpenedAt.UTC(), utc(ended)
	return g, err
}

func scanIdentity(r pgx.CollectableRow) (Identity, error) {
	var i Identity
	var session uuid.UUID
	var until *time.Time
	err := r.Scan(&i.Kind, &i.Value, &session, &i.Attribute, &i.ValidFrom, &until)
	i.Session, i.ValidFrom, i.ValidTo = session.String(), i.ValidFrom.UTC(), utc(until)
	return i, err
}

// sessions of a device, the current one first.
func (s *Store) sessions(ctx context.Context, deviceID uuid.UUID) ([]Summary, error) {
	rows, err := s.pool.Query(ctx, sqlSessionsOf, deviceID, maxDetails)
	if err != nil {
		return nil, err
	}
	sessions, err := pgx.CollectRows(rows, scanSummary)
	if err != nil {
		return nil, err
	}
	if len(sessions) == 0 {
		return nil, fmt.Errorf("device %s: %w", deviceID, ErrNotFound)
	}
	return sessions, s.describe(ctx, sessions)
}

// HistoryFilter selects changes of a device's attributes.
type HistoryFilter struct {
	Attribute string  // its name; empty: all
	Limit     int     // default DefaultLimit, at most MaxLimit
	Before    *Cursor // HistoryPage.Next of the page before
}

// Cursor is where a page of history ends.
type Cursor struct {
	Session string `json:"session_id"`
	Seq     int64  `json:"seq"`
	Name    string `json:"name"`
}

// HistoryPage is some of the changes, newest first.
type HistoryPage struct {
	Changes []Change `json:"changes"`
	Next    *Cursor  `json:"next,omitempty"` // nil: that was the last
}

// Change is a value that an attribute has had. Values that were replaced before
// they were applied, because their batch held a newer one, are not in it.
type Change struct {
	Session   string           `json:"session_id"`
	Name      string           `json:"name"`
	Attribute device.Attribute `json:"attribute"`
	// ReceivedAt is when it was received, at the latest. Zero: not kept then.
	ReceivedAt time.Time `json:"received_at,omitzero"`
	AppliedAt  time.Time `json:"applied_at"`
}

// History returns what changed, newest first: in the session that ref names,
// or in all sessions of the device, the current one's first. References are
// those of GetDevice.
func (s *Store) History(ctx context.Context, ref string, f HistoryFilter) (HistoryPage, error) {
	deviceID, session, err := s.resolve(ctx, ref)
	if err != nil {
		return HistoryPage{}, err
	}
	sessions := []Summary{{Session: session.String()}}
	if session == uuid.Nil {
		if sessions, err = s.sessions(ctx, deviceID); err != nil {
			return HistoryPage{}, fmt.Errorf("history of %q: %w", ref, err)
		}
	}
	limit := f.limit()
	var page HistoryPage
	for _, of := range sessions {
		seq, name := int64(math.MaxInt64), ""
		if f.Before != nil && page.Changes == nil {
			if of.Session != f.Before.Session {
				continue
			}
			seq, name = f.Before.Seq, f.Before.Name
			page.Changes = []Change{} // found: the sessions that follow are whole
		}
		rows, err := s.pool.Query(ctx, sqlHistory, uuid.MustParse(of.Session), seq, name, f.Attribute, limit+1-len(page.Changes))
		if err != nil {
			return HistoryPage{}, fmt.Errorf("history of %q: %w", ref, err)
		}
		changes, err := pgx.CollectRows(rows, scanChange)
		if err != nil {
			return HistoryPage{}, fmt.Errorf("history of %q: %w", ref, err)
		}
		if page.Changes = append(page.Changes, changes...); len(page.Changes) > limit {
			page.Changes = page.Changes[:limit]
			last := page.Changes[limit-1]
			page.Next = &Cursor{last.Session, last.Attribute.Seq, last.Name}
			return page, nil
		}
	}
	return page, nil
}

func (f HistoryFilter) limit() int {
	if f.Limit <= 0 {
		return DefaultLimit
	}
	return min(f.Limit, MaxLimit)
}

func scanChange(r pgx.CollectableRow) (Change, error) {
	var c Change
	var session uuid.UUID
	var value []byte
	var seq int64
	var at time.Time
	var received *time.Time
	if err := r.Scan(&session, &seq, &c.Name, &value, &at, &received, &c.AppliedAt); err != nil {
		return c, err
	}
	c.Session, c.ReceivedAt, c.AppliedAt = session.String(), utc(received), c.AppliedAt.UTC()
	var err error
	c.Attribute, err = decodeAttribute(value, seq, at)
	return c, err
}
