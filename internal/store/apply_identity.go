package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

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

// DefaultLab is the lab of a RAE that nobody has labelled.
const DefaultLab = "default"

// weakKinds are the kinds of weak evidence as a statement takes them.
var weakKinds = []string{string(identity.ClientID), string(identity.MAC)}

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
	var raes, kinds, values []string // of the evidence that is written
	var all []string
	for i, u := range a.updates {
		if !u.again && !identity.InAny(u.Write) {
			continue
		}
		a.withEvidence, all = append(a.withEvidence, a.ids[i]), append(all, u.RAE)
		for _, e := range readWritten(u) {
			raes, kinds, values = append(raes, u.RAE), append(kinds, string(e.Kind)), append(values, e.Value)
		}
	}
	if len(a.withEvidence) == 0 {
		return
	}
	a.evidence = make(map[uuid.UUID]storedEvidence, len(a.withEvidence))
	a.labs = make(map[string]string, len(all))
	b.Queue(sqlLabs, all).Query(func(rows pgx.Rows) error {
		var rae, lab string
		_, err := pgx.ForEachRow(rows, []any{&rae, &lab}, func() error {
			a.labs[rae] = lab
			return nil
		})
		return err
	})
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
	b.Queue(sqlOwnersOf, uuidsOf(a.withEvidence), raes, kinds, values).Query(a.scanOwners)
}

// readWritten is the evidence in what u writes.
func readWritten(u Update) (out []identity.Evidence) {
	for _, name := range identity.Attributes {
		if w, ok := u.Write[name]; ok {
			out = append(out, identity.Read(name, w)...)
		}
	}
	return out
}

// lab is the label of a RAE.
func (a *apply) lab(rae string) string { return cmp.Or(a.labs[rae], DefaultLab) }

// heldIn is what the session holds, as evidence of the lab.
func (s storedEvidence) heldIn(lab string) []identity.Holding {
	out := make([]identity.Holding, len(s.held))
	for i, h := range s.held {
		out[i] = identity.Holding{Attribute: h.Attribute, Evidence: h.In(lab)}
	}
	return out
}

// evidenceOf are the pieces of evidence that the update writes and that its session
// holds.
func (a *apply) evidenceOf(id uuid.UUID, u Update) []identity.Evidence {
	lab := a.lab(u.RAE)
	var out []identity.Evidence
	for _, h := range a.evidence[id].heldIn(lab) {
		out = append(out, h.Evidence)
	}
	for _, e := range readWritten(u) {
		out = append(out, e.In(lab))
	}
	return out
}

// evidenceColumns are the pieces of evidence that the updates write and that their
// sessions hold.
func (a *apply) evidenceColumns() (labs, kinds, values []string) {
	var all []identity.Evidence
	for i, u := range a.updates {
		all = append(all, a.evidenceOf(a.ids[i], u)...)
	}
	slices.SortFunc(all, identity.Evidence.Compare)
	for _, e := range slices.Compact(all) {
		labs, kinds, values = append(labs, e.Lab), append(kinds, string(e.Kind)), append(values, e.Value)
	}
	return labs, kinds, values
}

func (a *apply) scanOwners(rows pgx.Rows) error {
	for rows.Next() {
		var e identity.Evidence
		var owner uuid.UUID
		if err := rows.Scan(&e.Lab, &e.Kind, &e.Value, &owner); err != nil {
			return err
		}
		a.facts.Owners[e] = owner
	}
	return rows.Err()
}

// queuePresent queues the reading of who holds the devices that evidence of a
// session leads to and that are not its own.
func (a *apply) queuePresent(b *pgx.Batch) {
	var claimed []uuid.UUID
	var raes []string
	for i, u := range a.updates {
		for _, e := range a.evidenceOf(a.ids[i], u) {
			owner, owned := a.facts.Owners[e]
			if r := a.found[a.ids[i]]; owned && (r == nil || r.device != owner) {
				claimed, raes = append(claimed, owner), append(raes, u.RAE)
			}
		}
	}
	if len(claimed) == 0 {
		return
	}
	slices.SortFunc(claimed, compareUUID)
	slices.Sort(raes)
	a.facts.Hold, a.heard = a.hold, make(map[string]time.Time)
	b.Queue(sqlPresent, uuidsOf(slices.Compact(claimed))).Query(a.scanPresent)
	b.Queue(sqlHeard, slices.Compact(raes)).Query(func(rows pgx.Rows) error {
		var rae string
		var at time.Time
		_, err := pgx.ForEachRow(rows, []any{&rae, &at}, func() error {
			a.heard[rae] = at
			return nil
		})
		return err
	})
}

// scanPresent follows scanDevices.
func (a *apply) scanPresent(rows pgx.Rows) error {
	for rows.Next() {
		var id uuid.UUID
		var p identity.Present
		var online bool
		var status, changed, heard *time.Time
		if err := rows.Scan(&id, &p.Session, &p.RAE, &online, &status, &changed, &heard, &a.facts.Now); err != nil {
			return err
		}
		if p.Heard = utc(heard); !online {
			if p.OfflineSince = utc(status); status == nil {
				p.OfflineSince = utc(changed)
			}
		}
		d := a.facts.Devices[id]
		d.Present = p
		a.facts.Devices[id] = d
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
	labs, kinds, values := a.evidenceColumns()
	b := &pgx.Batch{}
	a.facts.Devices = make(map[uuid.UUID]identity.Device, len(ids))
	b.Queue(sqlLockDevices, uuidsOf(ids)).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(len(ids)) {
			return errRaced // one was merged into another
		}
		return nil
	})
	b.Queue(sqlDeviceSessions, uuidsOf(ids)).Query(a.scanDevices)
	b.Queue(sqlOwnedEvidence, uuidsOf(ids)).Query(a.scanOwnedEvidence)
	a.queuePresent(b) // by the owners as they were read before
	before := a.facts.Owners
	a.facts.Owners = make(map[identity.Evidence]uuid.UUID, len(before))
	b.Queue(sqlOwners, labs, kinds, values).Query(a.scanOwners)
	b.Queue(sqlConflictPairs, uuidsOf(ids)).Query(a.scanConflictPairs)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	if !maps.Equal(before, a.facts.Owners) {
		return errRaced // evidence was given to another device while the locks were waited for
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

func (a *apply) scanOwnedEvidence(rows pgx.Rows) error {
	for rows.Next() {
		var id uuid.UUID
		var e identity.Evidence
		if err := rows.Scan(&id, &e.Lab, &e.Kind, &e.Value); err != nil {
			return err
		}
		d := a.facts.Devices[id]
		if d.Known = true; e.Strong() {
			d.Strong = append(d.Strong, e)
		}
		a.facts.Devices[id] = d
	}
	return rows.Err()
}

func (a *apply) scanConflictPairs(rows pgx.Rows) error {
	for rows.Next() {
		var id, session uuid.UUID
		var p identity.Pair
		var apart, contested bool
		var by identity.Evidence
		if err := rows.Scan(&id, &session, &p[0], &p[1], &apart, &contested, &by.Kind); err != nil {
			return err
		}
		switch f := &a.facts; {
		case contested:
			f.Claims = append(f.Claims, identity.Claim{ID: id, Session: session, Pair: p})
		case apart:
			f.Conflicts, f.KeptApart = append(f.Conflicts, p), append(f.KeptApart, p)
		case by.Strong():
			f.Conflicts = append(f.Conflicts, p)
		default:
			f.WeakConflicts = append(f.WeakConflicts, p)
		}
	}
	return rows.Err()
}

// queueClaims queues the evidence that had no owner. Where another transaction
// has given it one meanwhile, this one is to judge again.
func queueClaims(b *pgx.Batch, claimed []identity.Ownership) {
	if len(claimed) == 0 {
		return
	}
	labs, kinds, values, devices := ownershipColumns(claimed)
	b.Queue(sqlClaimEvidence, labs, kinds, values, devices).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var o identity.Ownership
			if err := rows.Scan(&o.Lab, &o.Kind, &o.Value, &o.Device); err != nil {
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
		labs, kinds, values, devices := ownershipColumns(d.Reassigned)
		b.Queue(sqlReassignEvidence, labs, kinds, values, devices)
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
	if len(d.Withdrawn) > 0 {
		b.Queue(sqlWithdrawClaims, uuidsOf(d.Withdrawn))
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
	b.Queue(sqlDecideMerged, from, into)
	b.Queue(sqlRepointConflicts, from, into)
	b.Queue(sqlMergeTestStates, from, into)
	b.Queue(sqlDeleteTestStates, from)
	b.Queue(sqlDeleteDevices, from)
}

func ownershipColumns(owners []identity.Ownership) (labs, kinds, values []string, devices uuidArray) {
	for _, o := range owners {
		labs, kinds, values, devices = append(labs, o.Lab), append(kinds, string(o.Kind)), append(values, o.Value), append(devices, uuidOf(o.Device))
	}
	return labs, kinds, values, devices
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
	var contested []bool
	for _, c := range conflicts {
		ids, sessions = append(ids, uuidOf(c.ID())), append(sessions, uuidOf(c.Session))
		devices, others = append(devices, uuidOf(c.Device)), append(others, uuidOf(c.Other))
		kinds, values = append(kinds, string(c.Evidence.Kind)), append(values, c.Evidence.Value)
		otherKinds, otherValues = append(otherKinds, string(c.OtherEvidence.Kind)), append(otherValues, c.OtherEvidence.Value)
		contested = append(contested, c.Contested)
	}
	return []any{ids, devices, kinds, values, others, otherKinds, otherValues, sessions, contested, weakKinds}
}
