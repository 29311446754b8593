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

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/identity"
)

// What a transaction of Apply reads and writes for package identity, when one of
// its updates writes an attribute that holds evidence.
//
// Invariant: decisions are made by facts that no other transaction can change.
// Another one may judge the same devices, so the rows of all devices that the
// evidence leads to are locked, in key order, before the facts are read.

// strongKinds are identity.StrongKinds as a statement takes them.
var strongKinds = func() (kinds []string) {
	for _, k := range identity.StrongKinds {
		kinds = append(kinds, string(k))
	}
	return kinds
}()

// storedEvidence is what is stored of a session's evidence.
type storedEvidence struct {
	seqs map[string]int64 // of its attributes that hold evidence
	held []identity.Holding
}

// writtenEvidence are the attributes with evidence that u writes, without those
// that lose against the stored seqs: the upsert would not write them either. A
// correction counts from the snapshot on.
func (s storedEvidence) writtenEvidence(u Update) map[string]device.Attribute {
	written := make(map[string]device.Attribute)
	for _, name := range identity.Attributes {
		w, ok := u.Write[name]
		if ok && w.Seq <= s.seqs[name] {
			ok = u.corrects(name, s.seqs[name])
			w.Seq, w.At = u.Snapshot, u.SnapshotAt
		}
		if ok {
			written[name] = w
		}
	}
	return written
}

// queueEvidence queues the reading of what the sessions with evidence hold, and
// of the devices it leads to.
func (a *apply) queueEvidence(b *pgx.Batch) {
	for i, u := range a.updates {
		if identity.InAny(u.Write) {
			a.withEvidence = append(a.withEvidence, a.ids[i])
		}
	}
	if len(a.withEvidence) == 0 {
		return
	}
	a.evidence = make(map[uuid.UUID]storedEvidence, len(a.withEvidence))
	b.Queue(sqlEvidenceSeqs, uuidsOf(a.withEvidence), identity.Attributes).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var id uuid.UUID
			var name string
			var seq int64
			if err := rows.Scan(&id, &name, &seq); err != nil {
				return err
			}
			s := a.evidence[id]
			if s.seqs == nil {
				s.seqs = make(map[string]int64)
			}
			s.seqs[name] = seq
			a.evidence[id] = s
		}
		return rows.Err()
	})
	b.Queue(sqlHeldEvidence, uuidsOf(a.withEvidence)).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var id uuid.UUID
			var h identity.Holding
			if err := rows.Scan(&id, &h.Attribute, &h.Kind, &h.Value); err != nil {
				return err
			}
			s := a.evidence[id]
			s.held = append(s.held, h)
			a.evidence[id] = s
		}
		return rows.Err()
	})
	a.facts.Owners = make(map[identity.Evidence]uuid.UUID)
	kinds, values := a.evidenceColumns()
	b.Queue(sqlOwnersOf, uuidsOf(a.withEvidence), kinds, values).Query(a.scanOwners)
}

// evidenceColumns are the pieces of evidence that the updates write and, once
// that is read, that their sessions hold.
func (a *apply) evidenceColumns() (kinds, values []string) {
	var all []identity.Evidence
	for _, s := range a.evidence {
		for _, h := range s.held {
			all = append(all, h.Evidence)
		}
	}
	for _, u := range a.updates {
		for _, name := range identity.Attributes {
			if w, ok := u.Write[name]; ok {
				all = append(all, identity.Read(name, w)...)
			}
		}
	}
	slices.SortFunc(all, identity.Evidence.Compare)
	for _, e := range slices.Compact(all) {
		kinds, values = append(kinds, string(e.Kind)), append(values, e.Value)
	}
	return kinds, values
}

func (a *apply) scanOwners(rows pgx.Rows) error {
	for rows.Next() {
		var e identity.Evidence
		var owner uuid.UUID
		if err := rows.Scan(&e.Kind, &e.Value, &owner); err != nil {
			return err
		}
		a.facts.Owners[e] = owner
	}
	return rows.Err()
}

// readFacts locks the devices that may be judged and reads the facts. A group of
// new sessions whose evidence leads nowhere has none.
func (a *apply) readFacts(ctx context.Context, conn *pgxpool.Conn) error {
	var ids []uuid.UUID
	for _, id := range a.withEvidence {
		if r, ok := a.found[id]; ok {
			ids = append(ids, r.device)
		}
	}
	for _, owner := range a.facts.Owners {
		ids = append(ids, owner)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.SortFunc(ids, compareUUID)
	ids = slices.Compact(ids)
	kinds, values := a.evidenceColumns()
	clear(a.facts.Owners)
	a.facts.Devices = make(map[uuid.UUID]identity.Device, len(ids))
	b := &pgx.Batch{}
	b.Queue(sqlLockDevices, uuidsOf(ids)).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(len(ids)) {
			return errRaced // one was merged into another
		}
		return nil
	})
	b.Queue(sqlOwners, kinds, values).Query(a.scanOwners)
	b.Queue(sqlDeviceSessions, uuidsOf(ids)).Query(a.scanDevices)
	b.Queue(sqlStrongEvidence, uuidsOf(ids), strongKinds).Query(a.scanStrongEvidence)
	b.Queue(sqlConflictPairs, uuidsOf(ids)).Query(a.scanConflictPairs)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	for _, owner := range a.facts.Owners {
		if _, locked := a.facts.Devices[owner]; !locked {
			return errRaced // the evidence was given to another device while the locks were waited for
		}
	}
	return nil
}

func (a *apply) scanDevices(rows pgx.Rows) error {
	var id uuid.UUID
	var d identity.Device
	_, err := pgx.ForEachRow(rows, []any{&id, &d.Sessions}, func() error {
		a.facts.Devices[id] = d
		return nil
	})
	return err
}

func (a *apply) scanStrongEvidence(rows pgx.Rows) error {
	for rows.Next() {
		var id uuid.UUID
		var e identity.Evidence
		if err := rows.Scan(&id, &e.Kind, &e.Value); err != nil {
			return err
		}
		d := a.facts.Devices[id]
		d.Strong = append(d.Strong, e)
		a.facts.Devices[id] = d
	}
	return rows.Err()
}

func (a *apply) scanConflictPairs(rows pgx.Rows) error {
	for rows.Next() {
		var p identity.Pair
		if err := rows.Scan(&p[0], &p[1]); err != nil {
			return err
		}
		a.facts.Conflicts = append(a.facts.Conflicts, p)
	}
	return rows.Err()
}

// queueClaims queues the evidence that had no owner. Where another transaction
// has given it one meanwhile, this one is to judge again.
func queueClaims(b *pgx.Batch, claimed []identity.Ownership) {
	if len(claimed) == 0 {
		return
	}
	kinds, values, devices := ownershipColumns(claimed)
	b.Queue(sqlClaimEvidence, kinds, values, devices).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var o identity.Ownership
			if err := rows.Scan(&o.Kind, &o.Value, &o.Device); err != nil {
				return err
			}
			if !slices.Contains(claimed, o) {
				return errRaced
			}
		}
		return rows.Err()
	})
}

// queueDecisions queues what was decided beside new rows. The sessions' rows of
// the group have their devices by then.
func queueDecisions(b *pgx.Batch, d identity.Decisions) {
	if len(d.Reassigned) > 0 {
		kinds, values, devices := ownershipColumns(d.Reassigned)
		b.Queue(sqlReassignEvidence, kinds, values, devices)
	}
	if len(d.Ended) > 0 {
		c := timelineColumnsOf(d.Ended)
		b.Queue(sqlEndTimeline, c.sessions, c.attributes, c.kinds, c.values, c.seqs, c.ats)
	}
	if len(d.Moved) > 0 {
		var sessions, devices uuidArray
		for _, m := range d.Moved {
			sessions, devices = append(sessions, uuidOf(m.Session)), append(devices, uuidOf(m.Device))
		}
		b.Queue(sqlMoveTimeline, sessions, devices)
	}
	queueMerges(b, d.Merges)
	if len(d.Begun) > 0 {
		c := timelineColumnsOf(d.Begun)
		b.Queue(sqlBeginTimeline, c.sessions, c.attributes, c.kinds, c.values, c.seqs, c.ats, c.devices)
	}
	if len(d.Conflicts) > 0 {
		b.Queue(sqlInsertConflicts, conflictColumnsOf(d.Conflicts)...)
	}
}

// queueMerges moves all that devices have to others, and deletes them.
func queueMerges(b *pgx.Batch, merges []identity.Merge) {
	if len(merges) == 0 {
		return
	}
	var from, into uuidArray
	for _, m := range merges {
		from, into = append(from, uuidOf(m.From)), append(into, uuidOf(m.Into))
	}
	b.Queue(sqlLockMergedSessions, from)
	b.Queue(sqlMergeSessions, from, into)
	b.Queue(sqlMergeOwners, from, into)
	b.Queue(sqlMergeTimelines, from, into)
	b.Queue(sqlMergeTestStates, from, into)
	b.Queue(sqlDeleteTestStates, from)
	b.Queue(sqlDeleteDevices, from)
}

func ownershipColumns(owners []identity.Ownership) (kinds, values []string, devices uuidArray) {
	for _, o := range owners {
		kinds, values, devices = append(kinds, string(o.Kind)), append(values, o.Value), append(devices, uuidOf(o.Device))
	}
	return kinds, values, devices
}

type timelineColumns struct {
	sessions, devices         uuidArray
	attributes, kinds, values []string
	seqs                      []int64
	ats                       timeArray
}

func timelineColumnsOf(entries []identity.TimelineEntry) (c timelineColumns) {
	for _, e := range entries {
		c.sessions, c.devices = append(c.sessions, uuidOf(e.Session)), append(c.devices, uuidOf(e.Device))
		c.attributes, c.kinds, c.values = append(c.attributes, e.Attribute), append(c.kinds, string(e.Kind)), append(c.values, e.Value)
		c.seqs, c.ats = append(c.seqs, e.Seq), append(c.ats, pgtype.Timestamptz{Time: e.At, Valid: true})
	}
	return c
}

// conflictColumnsOf are the arguments of sqlInsertConflicts.
func conflictColumnsOf(conflicts []identity.Conflict) []any {
	var ids, devices, others, sessions uuidArray
	var kinds, values, otherKinds, otherValues []string
	for _, c := range conflicts {
		ids, sessions = append(ids, uuidOf(c.ID())), append(sessions, uuidOf(c.Session))
		devices, others = append(devices, uuidOf(c.Device)), append(others, uuidOf(c.Other))
		kinds, values = append(kinds, string(c.Evidence.Kind)), append(values, c.Evidence.Value)
		otherKinds, otherValues = append(otherKinds, string(c.OtherEvidence.Kind)), append(otherValues, c.OtherEvidence.Value)
	}
	return []any{ids, devices, kinds, values, others, otherKinds, otherValues, sessions}
}
