package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// What a transaction of Apply reads and writes when one of its updates writes
// an attribute that holds evidence. Another transaction may judge the same
// devices: the rows of all devices that evidence leads to are locked, in key
// order, before what is judged by is read.

func newAssignment() assignment {
	return assignment{
		owners: make(map[identity]uuid.UUID), facts: make(map[uuid.UUID]*facts), into: make(map[uuid.UUID]uuid.UUID),
		apart: make(map[pair]bool), stored: make(map[identity]uuid.UUID), homes: make(map[uuid.UUID]uuid.UUID),
	}
}

// queueHolders queues the reading of what the sessions hold, and of whose it is.
func (a *apply) queueHolders(b *pgx.Batch) {
	for i, u := range a.updates {
		if bears(u) {
			a.bearers = append(a.bearers, a.ids[i])
		}
	}
	if len(a.bearers) == 0 {
		return
	}
	a.holders = make(map[uuid.UUID]holder, len(a.bearers))
	b.Queue(sqlEvidenceSeqs, keys(a.bearers), evidenceNames).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var id uuid.UUID
			var name string
			var seq int64
			if err := rows.Scan(&id, &name, &seq); err != nil {
				return err
			}
			h := a.holders[id]
			if h.seqs == nil {
				h.seqs = make(map[string]int64)
			}
			h.seqs[name] = seq
			a.holders[id] = h
		}
		return rows.Err()
	})
	b.Queue(sqlOpenSpans, keys(a.bearers)).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var s span
			if err := rows.Scan(&s.session, &s.attribute, &s.kind, &s.value); err != nil {
				return err
			}
			h := a.holders[s.session]
			h.spans = append(h.spans, s)
			a.holders[s.session] = h
		}
		return rows.Err()
	})
	kinds, values := a.evidence()
	b.Queue(sqlOwnersOf, keys(a.bearers), kinds, values).Query(func(rows pgx.Rows) error { return a.who.scanOwners(rows) })
}

// evidence is what the updates write and, where that is read, what their
// sessions hold.
func (a *apply) evidence() (kinds, values []string) {
	var all []identity
	for _, h := range a.holders {
		for _, s := range h.spans {
			all = append(all, s.identity)
		}
	}
	for _, u := range a.updates {
		for _, name := range evidenceNames {
			if w, ok := u.Write[name]; ok {
				all = append(all, identities(name, w)...)
			}
		}
	}
	slices.SortFunc(all, identity.compare)
	for _, i := range slices.Compact(all) {
		kinds, values = append(kinds, i.kind), append(values, i.value)
	}
	return kinds, values
}

func (a *assignment) scanOwners(rows pgx.Rows) error {
	for rows.Next() {
		var i identity
		var owner uuid.UUID
		if err := rows.Scan(&i.kind, &i.value, &owner); err != nil {
			return err
		}
		a.stored[i] = owner
	}
	return rows.Err()
}

// readDevices locks the devices that are judged and reads the facts. A group of
// new sessions whose evidence is nobody's has none.
func (a *apply) readDevices(ctx context.Context, conn *pgxpool.Conn) error {
	var ids []uuid.UUID
	for _, id := range a.bearers {
		if r, ok := a.found[id]; ok {
			ids = append(ids, r.device)
		}
	}
	for _, owner := range a.who.stored {
		ids = append(ids, owner)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.SortFunc(ids, compareUUID)
	ids = slices.Compact(ids)
	kinds, values := a.evidence()
	clear(a.who.stored)
	b := &pgx.Batch{}
	b.Queue(sqlLockDevices, keys(ids)).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(len(ids)) {
			return errRaced // one was absorbed
		}
		return nil
	})
	b.Queue(sqlOwners, kinds, values).Query(func(rows pgx.Rows) error { return a.who.scanOwners(rows) })
	b.Queue(sqlDeviceFacts, keys(ids)).Query(func(rows pgx.Rows) error { return a.who.scanFacts(rows) })
	b.Queue(sqlStrongOf, keys(ids)).Query(func(rows pgx.Rows) error { return a.who.scanStrong(rows) })
	b.Queue(sqlConflictPairs, keys(ids)).Query(func(rows pgx.Rows) error { return a.who.scanPairs(rows) })
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	for i, owner := range a.who.stored {
		if a.who.facts[owner] == nil {
			return errRaced // it changed hands while the locks were waited for
		}
		a.who.owners[i] = owner
	}
	return nil
}

func (a *assignment) scanFacts(rows pgx.Rows) error {
	for rows.Next() {
		var id uuid.UUID
		f := &facts{strong: make(map[identity]bool)}
		if err := rows.Scan(&id, &f.sessions); err != nil {
			return err
		}
		a.facts[id] = f
	}
	return rows.Err()
}

func (a *assignment) scanStrong(rows pgx.Rows) error {
	for rows.Next() {
		var id uuid.UUID
		var i identity
		if err := rows.Scan(&id, &i.kind, &i.value); err != nil {
			return err
		}
		a.facts[id].strong[i] = true
	}
	return rows.Err()
}

func (a *assignment) scanPairs(rows pgx.Rows) error {
	for rows.Next() {
		var p pair
		if err := rows.Scan(&p[0], &p[1]); err != nil {
			return err
		}
		a.apart[pairOf(p[0], p[1])] = true
		for _, id := range p {
			if f := a.facts[id]; f != nil {
				f.disputed = true
			}
		}
	}
	return rows.Err()
}

// queueGiven queues the evidence that was nobody's. What another transaction
// has given meanwhile makes this one judge again.
func (a *assignment) queueGiven(b *pgx.Batch) {
	given, _ := a.gifts()
	if len(given) == 0 {
		return
	}
	kinds, values, devices := a.identityColumns(given)
	b.Queue(sqlGiveIdentities, kinds, values, devices).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var i identity
			var owner uuid.UUID
			if err := rows.Scan(&i.kind, &i.value, &owner); err != nil {
				return err
			}
			if now, _ := a.owner(i); now != owner {
				return errRaced
			}
		}
		return rows.Err()
	})
}

func (a *assignment) identityColumns(of []identity) (kinds, values []string, devices uuidArray) {
	for _, i := range of {
		owner, _ := a.owner(i)
		kinds, values, devices = append(kinds, i.kind), append(values, i.value), append(devices, key(owner))
	}
	return kinds, values, devices
}

// queueRest queues all else that was judged. The sessions' rows of the group
// have their devices by then.
func (a *assignment) queueRest(b *pgx.Batch) {
	_, taken := a.gifts()
	if len(taken) > 0 {
		kinds, values, to := a.identityColumns(taken)
		b.Queue(sqlTakeIdentities, kinds, values, to)
	}
	if len(a.ended) > 0 {
		c := a.spanColumns(a.ended)
		b.Queue(sqlEndSpans, c.sessions, c.attributes, c.kinds, c.values, c.seqs, c.ats)
	}
	if len(a.moved) > 0 {
		var sessions, to uuidArray
		for _, id := range a.moved {
			sessions, to = append(sessions, key(id)), append(to, key(a.at(a.homes[id])))
		}
		b.Queue(sqlMoveSpans, sessions, to)
	}
	if from, to := a.absorbed(); len(from) > 0 {
		queueAbsorb(b, from, to)
	}
	if len(a.begun) > 0 {
		c := a.spanColumns(a.begun)
		b.Queue(sqlBeginSpans, c.sessions, c.attributes, c.kinds, c.values, c.seqs, c.ats, c.devices)
	}
	if len(a.disputes) > 0 {
		b.Queue(sqlNoteConflicts, a.disputeColumns()...)
	}
}

// queueAbsorb moves all that devices have to others, and ends them.
func queueAbsorb(b *pgx.Batch, from, to []uuid.UUID) {
	b.Queue(sqlLockAbsorbed, keys(from))
	b.Queue(sqlAbsorbSessions, keys(from), keys(to))
	b.Queue(sqlAbsorbIdentities, keys(from), keys(to))
	b.Queue(sqlAbsorbSpans, keys(from), keys(to))
	b.Queue(sqlAbsorbTestStates, keys(from), keys(to))
	b.Queue(sqlDropTestStates, keys(from))
	b.Queue(sqlDeleteDevices, keys(from))
}

type spanColumns struct {
	sessions, devices         uuidArray
	attributes, kinds, values []string
	seqs                      []int64
	ats                       timeArray
}

func (a *assignment) spanColumns(spans []span) (c spanColumns) {
	slices.SortFunc(spans, compareSpans)
	for _, s := range spans {
		c.sessions, c.devices = append(c.sessions, key(s.session)), append(c.devices, key(a.at(a.homes[s.session])))
		c.attributes, c.kinds, c.values = append(c.attributes, s.attribute), append(c.kinds, s.kind), append(c.values, s.value)
		c.seqs, c.ats = append(c.seqs, s.seq), append(c.ats, pgtype.Timestamptz{Time: s.at, Valid: true})
	}
	return c
}

func (a *assignment) disputeColumns() []any {
	var ids, as, bs, sessions uuidArray
	var kindsA, valuesA, kindsB, valuesB []string
	for _, d := range a.disputes {
		x, y := a.at(d.a), a.at(d.b)
		ids = append(ids, key(conflictID(x, y)))
		as, bs, sessions = append(as, key(x)), append(bs, key(y)), append(sessions, key(d.session))
		kindsA, valuesA = append(kindsA, d.mine.kind), append(valuesA, d.mine.value)
		kindsB, valuesB = append(kindsB, d.theirs.kind), append(valuesB, d.theirs.value)
	}
	return []any{ids, as, kindsA, valuesA, bs, kindsB, valuesB, sessions}
}
