package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/identity"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// maxAttempts bounds how often a transaction that lost against others is tried
// again before the caller learns of it.
const maxAttempts = 10

// Apply writes the updates in one transaction: all or none. They must be of
// distinct sessions. It may be called with the same update again, with an older
// one, and concurrently, also from other processes.
//
// An error that wraps ErrRefused is for good and of the whole group; to find
// the update that is to blame, apply them one by one. Any other error is an
// outage, and may have come after the commit: apply the same again.
//
// Invariant: an update with an ID is written once, and only over the row that it
// builds on. It is checked with the row's lock held, which is taken anyway.
//
// It takes two round trips: one that locks and reads the sessions' rows, one
// that writes and commits. New sessions take one more, so do those that bring
// evidence of what device they are, and those that open.
func (s *Store) Apply(ctx context.Context, updates []Update) error {
	if len(updates) == 0 {
		return nil
	}
	start := time.Now()
	updates, ids, err := sortUpdates(updates)
	if err == nil {
		err = s.retry(ctx, func(conn *pgxpool.Conn) error { return applyOnce(ctx, conn, updates, ids, s.history, s.hold) })
	}
	if err == nil {
		err = s.completeAnswers(ctx, updates)
	}
	outcome := "ok"
	switch err = classify(err); {
	case errors.Is(err, ErrRefused):
		outcome = "refused"
	case err != nil:
		outcome = "error"
	}
	s.m.seconds.WithLabelValues(outcome).Observe(time.Since(start).Seconds())
	s.m.sessions.Observe(float64(len(updates)))
	if err != nil {
		return fmt.Errorf("apply %d sessions: %w", max(len(updates), len(ids)), err)
	}
	return nil
}

// raceBackoff has full jitter, so that two transactions that met do not meet
// again.
var raceBackoff = retry.Backoff{First: 2 * time.Millisecond, Max: 256 * time.Millisecond, Jitter: retry.Full}

// retry runs a transaction, and a fresh one each time it lost against another.
// The transaction's own BEGIN and COMMIT travel in its batches; what it
// leaves open is rolled back here.
func (s *Store) retry(ctx context.Context, tx func(*pgxpool.Conn) error) error {
	for attempt := 1; ; attempt++ {
		err := s.attempt(ctx, tx)
		if err == nil || !Retryable(err) || attempt == maxAttempts {
			return err
		}
		reason := "raced"
		var pg *pgconn.PgError
		if errors.As(err, &pg) {
			reason = pg.Code
		}
		s.m.retries.WithLabelValues(reason).Inc()
		s.log.DebugContext(ctx, "transaction lost against another: trying again", "attempt", attempt, "err", err)
		if raceBackoff.Sleep(ctx, attempt-1) != nil {
			return ctx.Err()
		}
	}
}

func (s *Store) attempt(ctx context.Context, tx func(*pgxpool.Conn) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Release() // closes a connection that is still in a transaction
	err = tx(conn)
	if raw := conn.Conn(); !raw.IsClosed() && raw.PgConn().TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = raw.Exec(ctx, sqlRollback)
	}
	return err
}

// apply is one transaction of Apply under way.
type apply struct {
	ids       []uuid.UUID
	updates   []Update // by session
	history   bool     // is written too
	hold      identity.Hold
	found     map[uuid.UUID]*row
	positions map[uuid.UUID][]device.Position

	withEvidence []uuid.UUID          // sessions whose updates write evidence
	labs         map[string]string    // by RAE
	heard        map[string]time.Time // by RAE that claims a device: its newest record
	evidence     map[uuid.UUID]storedEvidence
	facts        identity.Facts
	decisions    identity.Decisions

	// What to write, in key order.
	inserted         []*row // new sessions
	changed          []*row
	opened           []gap
	ended            []gap
	writes           attributeColumns
	corrections      correctionColumns
	positionsReached positionColumns
	quarantined      quarantineColumns
	interfaces       []uuid.UUID // sessions whose network interface is written
}

type gap struct {
	session uuid.UUID
	device.Range
	endedBy string
}

func applyOnce(ctx context.Context, conn *pgxpool.Conn, updates []Update, ids []uuid.UUID, history bool, hold identity.Hold) error {
	a := &apply{ids: ids, updates: updates, history: history, hold: hold}
	if err := a.read(ctx, conn); err != nil {
		return err
	}
	if err := a.readFacts(ctx, conn); err != nil {
		return err
	}
	if err := a.plan(); err != nil {
		return err
	}
	return a.write(ctx, conn)
}

// read locks and reads what is stored.
func (a *apply) read(ctx context.Context, conn *pgxpool.Conn) error {
	a.found = make(map[uuid.UUID]*row, len(a.ids))
	a.positions = make(map[uuid.UUID][]device.Position, len(a.ids))
	b := &pgx.Batch{}
	b.Queue(sqlBegin)
	b.Queue(sqlLockSessions, uuidsOf(a.ids)).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var r row
			if err := r.scan(rows); err != nil {
				return err
			}
			a.found[r.id] = &r
		}
		return rows.Err()
	})
	// A statement of its own, so that it sees what was committed while the
	// locks were waited for.
	b.Queue(sqlPositions, uuidsOf(a.ids)).Query(func(rows pgx.Rows) error {
		return scanPositions(rows, func(id uuid.UUID, p device.Position) { a.positions[id] = append(a.positions[id], p) })
	})
	a.queueEvidence(b)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	return nil
}

func scanPositions(rows pgx.Rows, each func(uuid.UUID, device.Position)) error {
	for rows.Next() {
		var id uuid.UUID
		var p device.Position
		if err := rows.Scan(&id, &p.Topic, &p.TopicID, &p.Partition, &p.Next); err != nil {
			return err
		}
		each(id, p)
	}
	return rows.Err()
}

// planned is one update under way.
type planned struct {
	Update
	stored *row // before; zero: the session is new
	merged row  // after
	found  bool
}

// plan decides what to write.
func (a *apply) plan() error {
	all, err := a.mergeRows()
	if err != nil {
		return err
	}
	a.judge(all)
	for i := range all {
		a.planUpdate(&all[i])
	}
	return nil
}

// mergeRows merges each update into its session's row, without those that are
// not to be written.
func (a *apply) mergeRows() ([]planned, error) {
	all := make([]planned, 0, len(a.updates))
	for i, u := range a.updates {
		stored, found := a.found[a.ids[i]]
		if !found {
			stored = &row{}
		}
		if !u.isDue(stored.revision, found) {
			continue
		}
		p := planned{Update: u, stored: stored, merged: *stored, found: found}
		if !found {
			p.merged.id, p.merged.rae = a.ids[i], u.RAE
		} else if stored.rae != u.RAE && u.AsOf > 0 { // else it only steps over what was refused, and must not be itself
			return nil, refused("session %s is of RAE %q, not of %q", u.Session, stored.rae, u.RAE)
		}
		p.Write = stored.writable(u)
		p.merged.merge(p.Update)
		all = append(all, p)
	}
	return all, nil
}

// isDue reports whether u is to be written over a row of that revision, and
// notes in its answer why it is not. What was committed before is not due, and
// needs no word.
//
// Requires: the transaction holds the row's lock.
func (u Update) isDue(stored Revision, found bool) bool {
	if u.Answer == nil {
		return true
	}
	u.Answer.Known, u.Answer.Mismatch = false, false
	switch {
	case u.ID != "" && stored == u.next():
		return false
	case u.New && found:
		u.Answer.Known = true
	case u.ID != "" && stored != u.Base:
		u.Answer.Mismatch = true
	}
	return !u.Answer.Known && !u.Answer.Mismatch
}

// judge gives each row its device. Only new sessions and those whose evidence
// may change are judged.
func (a *apply) judge(all []planned) {
	var sessions []identity.Session
	var judged []*row
	for i := range all {
		p := &all[i]
		withEvidence := p.again || identity.InAny(p.Write)
		if p.found && !withEvidence {
			continue
		}
		r := &p.merged
		s := identity.Session{ID: r.id, Device: r.device, Identified: r.identified, RAE: r.rae, Lab: a.lab(r.rae), Heard: p.Received, Again: p.again}
		if at := a.heard[r.rae]; at.After(s.Heard) {
			s.Heard = at
		}
		if withEvidence {
			e := a.evidence[r.id]
			s.Held, s.Written = e.heldIn(s.Lab), e.writtenEvidence(p.Update)
		}
		sessions, judged = append(sessions, s), append(judged, r)
	}
	if len(sessions) == 0 {
		return
	}
	a.decisions = identity.Judge(a.facts, sessions)
	for i, place := range a.decisions.Placements { // in the order of the rows
		judged[i].device, judged[i].identified = place.Device, place.Identified
	}
}

// planUpdate adds what one update writes.
func (a *apply) planUpdate(p *planned) {
	r := &p.merged
	r.device = a.decisions.CurrentDevice(r.device)
	if advances := a.advancePositions(r.id, p.Positions); advances || p.ID != "" {
		r.count(p.Update)
	}
	if !p.found {
		a.inserted = append(a.inserted, r)
	}
	if !p.found || p.ID != "" || !reflect.DeepEqual(p.stored, &p.merged) {
		if !p.again { // what it writes is not of the workflow's state
			r.revision = Revision{p.stored.revision.Number + 1, p.ID}
		}
		a.changed = append(a.changed, r)
	}
	opened, ended := compareGaps(p.stored.missing, r.missing, r.snapshot)
	for _, g := range opened {
		a.opened = append(a.opened, gap{r.id, g, ""})
	}
	for _, g := range p.stored.missing {
		if by, ok := ended[g]; ok {
			a.ended = append(a.ended, gap{r.id, g, by})
		}
	}
	a.writes.add(r.id, p.Write, p.batchReceived())
	a.corrections.add(r.id, p.Update)
	a.quarantined.add(r.id, p.Update)
	if writesInterface(p.Update) {
		a.interfaces = append(a.interfaces, r.id)
	}
}

// advancePositions writes the positions that are past the stored ones, and
// reports whether there are any.
func (a *apply) advancePositions(id uuid.UUID, positions []device.Position) bool {
	var newest []device.Position // an update may name a partition twice
	for _, p := range positions {
		newest = device.Advance(newest, p)
	}
	newest = slices.DeleteFunc(newest, func(p device.Position) bool { return device.Reached(a.positions[id], p) })
	a.positionsReached.add(id, newest)
	return len(newest) > 0
}

// write writes what was planned. New rows go first and alone: a transaction that
// loses the race for one must not go on to lock sessions, which another one may
// hold while it waits for the rows that this one has.
func (a *apply) write(ctx context.Context, conn *pgxpool.Conn) error {
	b := &pgx.Batch{}
	a.queueNew(b)
	if b.Len() > 0 {
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("write new rows: %w", err)
		}
		b = &pgx.Batch{}
	}
	a.queueSessions(b)
	a.queueAttributes(b)
	if len(a.interfaces) > 0 {
		b.Queue(sqlUpsertInterfaces, uuidsOf(a.interfaces), interfaceAttributes)
	}
	if len(a.positionsReached.ids) > 0 {
		p := &a.positionsReached
		b.Queue(sqlUpsertPositions, p.ids, p.topics, p.topicIDs, p.partitions, p.nexts)
	}
	if len(a.quarantined.ids) > 0 {
		b.Queue(sqlQuarantine, a.quarantined.args()...)
	}
	queueCommit(b)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("write sessions: %w", err)
	}
	return nil
}

// queueCommit queues a COMMIT that must commit: in a failed transaction it is
// a ROLLBACK and no error.
func queueCommit(b *pgx.Batch) {
	b.Queue(sqlCommit).Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return fmt.Errorf("the transaction was rolled back (%s)", tag)
		}
		return nil
	})
}

// queueNew queues the rows that other transactions may be inserting too. They
// come in one order of tables, and of uuidsOf in each.
func (a *apply) queueNew(b *pgx.Batch) {
	if len(a.inserted) > 0 {
		raes := make(map[string]struct{})
		for _, r := range a.inserted {
			raes[r.rae] = struct{}{}
		}
		b.Queue(sqlInsertRAEs, slices.Sorted(maps.Keys(raes)))
	}
	if created := a.decisions.Created; len(created) > 0 {
		b.Queue(sqlInsertDevices, uuidsOf(created))
	}
	queueClaims(b, a.decisions.Claimed)
	if len(a.inserted) > 0 {
		ids, raes, devices := make(uuidArray, 0, len(a.inserted)), make([]string, 0, len(a.inserted)), make(uuidArray, 0, len(a.inserted))
		for _, r := range a.inserted {
			ids, raes, devices = append(ids, uuidOf(r.id)), append(raes, r.rae), append(devices, uuidOf(r.device))
		}
		b.Queue(sqlInsertSessions, ids, raes, devices).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() != int64(len(ids)) {
				return errRaced
			}
			return nil
		})
	}
}

func (a *apply) queueAttributes(b *pgx.Batch) {
	if f := &a.corrections; len(f.ids) > 0 {
		b.Queue(sqlCorrectAttributes, f.ids, f.names, f.values, f.seqs, f.ats, f.received, f.snapshots)
		if a.history {
			b.Queue(sqlRecordCorrections, f.ids, f.names, f.values, f.snapshots, f.taken, f.received)
		}
	}
	if w := &a.writes; len(w.ids) > 0 {
		sql := sqlUpsertAttributes
		if a.history {
			sql = sqlUpsertWithHistory
		}
		b.Queue(sql, w.ids, w.names, w.values, w.seqs, w.ats, w.received)
	}
}

func (a *apply) queueSessions(b *pgx.Batch) {
	if len(a.changed) > 0 {
		b.Queue(sqlUpdateSessions, sessionArrays(a.changed)...)
	}
	queueDecisions(b, a.decisions)
	if len(a.opened) > 0 {
		ids, from, to, _ := gapArrays(a.opened)
		b.Queue(sqlOpenGaps, ids, from, to)
	}
	if len(a.ended) > 0 {
		ids, from, to, by := gapArrays(a.ended)
		b.Queue(sqlEndGaps, ids, from, to, by)
	}
}
