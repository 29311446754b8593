package registry

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// txn is one transaction in the making: changed clones of records and the events
// that carry the changes.
//
// Invariant: nothing outside it changes before write has succeeded.
// Requires: Registry.write is held as long as there is one. See update.
type txn struct {
	r       *Registry
	staged  map[string]*record  // by MAC; nil: the record goes
	touched map[string]struct{} // MACs of records that changed since appendTouched
	opened  int                 // records that are new

	entries      []stagedEntry // to be appended to the outbox
	bytes        int64         // their size
	ackedThrough uint64        // outbox keys up to it go
	ackedEvents  int           // how many those are
	freedBytes   int64         // their size

	snapshotDue map[string]time.Time       // by MAC
	position    Position                   // of the input
	replies     map[string]rememberedReply // by the command's ID; one without a reply is forgotten
}

// stagedEntry is an entry for the outbox: an event or a reply.
type stagedEntry struct {
	typ        device.Type // "" of a reply
	value      []byte
	snapshotOf *record // of a snapshot: the record whose SnapshotKey is this entry's key
}

// update runs f in a transaction. f must end in commit or write, or change
// nothing. After an error nothing has changed.
func (r *Registry) update(ctx context.Context, f func(t *txn, now time.Time) error) error {
	r.write.Lock()
	defer r.write.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return f(&txn{
		r: r, staged: map[string]*record{}, touched: map[string]struct{}{}, snapshotDue: map[string]time.Time{},
		replies: map[string]rememberedReply{}, position: r.position,
	}, r.o.Now())
}

// record returns the record of mac as t has it, or nil. It must not be changed.
func (t *txn) record(mac string) *record {
	if rec, ok := t.staged[mac]; ok {
		return rec
	}
	if e := t.r.devices[mac]; e != nil {
		return e.rec
	}
	return nil
}

// editRecord returns the record of mac to change.
func (t *txn) editRecord(mac string) *record {
	if rec, ok := t.staged[mac]; ok {
		return rec
	}
	e := t.r.devices[mac]
	rec := e.rec.clone()
	rec.Last, rec.Heard = e.lastSeen, e.lastHeard
	t.staged[mac] = rec
	return rec
}

func (t *txn) count() int { return len(t.r.devices) + t.opened }

// appendTouched makes the events for what changed since it was called last.
func (t *txn) appendTouched() error {
	defer clear(t.touched)
	return t.appendPendingOf(slices.Sorted(maps.Keys(t.touched)))
}

// appendPendingOf calls appendPending for each of macs. What has no room stays
// pending.
func (t *txn) appendPendingOf(macs []string) error {
	for _, mac := range macs {
		if err := t.appendPending(mac); err != nil && !errors.Is(err, ErrOutboxFull) {
			return err
		}
	}
	return nil
}

// appendPending makes the events for all that is pending in a record: one,
// unless it is more than one event may hold. It fails with ErrOutboxFull; what
// has no event by then stays pending.
func (t *txn) appendPending(mac string) error {
	rec := t.record(mac)
	if rec == nil {
		return nil
	}
	for names := rec.pending(); len(names) > 0; {
		part := firstPart(rec, names)
		e := device.Event{RAE: t.r.o.RAE, Session: rec.Session, Type: device.Delta, Seq: rec.Seq + 1, Attributes: make(map[string]device.Attribute, len(part))}
		if e.Seq == 1 {
			e.Type = device.Opened
		}
		for _, name := range part {
			if at := rec.Attributes[name].At; at.After(e.Time) {
				e.Time = at
			}
		}
		if isSilence(rec) { // what made it is no observation
			e.Seen = t.lastSeen(rec)
		}
		for _, name := range part {
			e.Attributes[name] = device.Attribute{Value: rec.Attributes[name].Value, Seq: e.Seq, At: e.Time}
		}
		if err := t.appendEvent(e, nil); err != nil {
			return err
		}
		rec = t.editRecord(mac)
		rec.Seq = e.Seq
		for name, a := range e.Attributes {
			if a.Removed() {
				delete(rec.Attributes, name)
			} else {
				rec.Attributes[name] = attribute{Value: a.Value, Seq: a.Seq, At: a.At}
			}
		}
		names = names[len(part):]
	}
	return nil
}

// lastSeen is when the device of rec was last seen, by the frames' clock.
func (t *txn) lastSeen(rec *record) time.Time {
	if d := t.r.devices[rec.MAC]; d != nil && d.lastSeen.After(rec.Last) {
		return d.lastSeen
	}
	return rec.Last
}

// firstPart are the first of names whose values fit one event, counted as
// device.StateBytes counts.
func firstPart(rec *record, names []string) []string {
	const overhead = 64
	size := 0
	for i, name := range names {
		size += len(name) + len(rec.Attributes[name].Value) + overhead
		if i == device.MaxAttributes || i > 0 && size > device.MaxStateBytes {
			return names[:i]
		}
	}
	return names
}

// appendEvent puts e into the outbox. It fails with ErrOutboxFull.
func (t *txn) appendEvent(e device.Event, snap *record) error {
	topic, err := device.SessionTopic(e.RAE, e.Session, device.KindEvents)
	if err != nil {
		return err
	}
	payload, err := e.Encode()
	if err != nil {
		return err
	}
	return t.enqueue(stagedEntry{typ: e.Type, value: encodeEntry(topic, payload), snapshotOf: snap})
}

// enqueue puts e into the outbox. It fails with ErrOutboxFull.
func (t *txn) enqueue(e stagedEntry) error {
	if t.r.outboxBytes-t.freedBytes+t.bytes+entryBytes(e.value) > t.r.o.MaxOutboxBytes {
		if !t.r.outboxFull {
			t.r.outboxFull = true
			t.r.o.Logger.Warn("outbox is full: changes wait in the records until the broker takes events; nothing is lost, but what happens in between is folded", "limit_bytes", t.r.o.MaxOutboxBytes)
		}
		return ErrOutboxFull
	}
	t.entries = append(t.entries, e)
	t.bytes += entryBytes(e.value)
	return nil
}

// empty reports whether t changes nothing but the position.
func (t *txn) empty() bool {
	return len(t.staged) == 0 && len(t.entries) == 0 && t.ackedThrough == 0 && len(t.replies) == 0
}

// commit writes t and then makes it what the Registry knows. Where t is empty
// it only remembers the position.
func (t *txn) commit() error {
	if !t.empty() {
		return t.write()
	}
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.r.position = t.position
	t.scheduleLocked()
	return nil
}

// scheduleLocked sets when the next snapshots are due. Requires: r.mu is held.
func (t *txn) scheduleLocked() {
	for mac, due := range t.snapshotDue {
		if e := t.r.devices[mac]; e != nil {
			e.snapshotDue = due
		}
	}
}

// write writes t, whether it is empty or not, and then makes it what the Registry
// knows.
func (t *txn) write() error {
	r := t.r
	start := time.Now()
	var newestKey uint64
	err := r.db.Update(func(tx *bolt.Tx) (err error) {
		newestKey, err = t.writeTo(tx)
		return err
	})
	r.metrics.commits.Observe(time.Since(start).Seconds())
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.writeErr = fmt.Errorf("write %s: %w", r.o.Path, err)
		return r.writeErr
	}
	r.writeErr = nil
	t.publishRecordsLocked()
	t.scheduleLocked()
	t.publishRepliesLocked()
	r.position, r.savedPosition = t.position, t.position
	r.ackedKey = max(r.ackedKey, t.ackedThrough)
	t.publishOutboxLocked(newestKey)
	return nil
}

// publishRecordsLocked puts the written records in the place of the old ones.
// Requires: r.mu is held.
func (t *txn) publishRecordsLocked() {
	r := t.r
	now := r.o.Now()
	for mac, rec := range t.staged {
		delete(r.waiting, mac)
		switch d := r.devices[mac]; {
		case rec == nil:
			delete(r.devices, mac)
			continue
		case d == nil:
			r.devices[mac] = &trackedDevice{rec: rec, lastSeen: rec.Last, lastHeard: rec.Heard, snapshotDue: r.firstSnapshotTime(rec, now)}
		default:
			d.rec = rec
		}
		if rec.hasPending() {
			r.waiting[mac] = struct{}{}
		}
	}
	if r.outboxFull && len(r.waiting) == 0 {
		r.outboxFull = false
		r.o.Logger.Info("outbox has room again; all changes that waited are in it")
	}
}

// publishOutboxLocked counts what was appended to the outbox and taken off it.
// Requires: r.mu is held.
func (t *txn) publishOutboxLocked(newestKey uint64) {
	r := t.r
	r.outboxEvents += len(t.entries) - t.ackedEvents
	r.outboxBytes += t.bytes - t.freedBytes
	if len(t.entries) > 0 {
		r.newestKey = newestKey
		r.signal()
	}
	for _, e := range t.entries {
		if e.typ != "" {
			r.metrics.events.WithLabelValues(string(e.typ)).Inc()
		}
	}
}

// publishRepliesLocked updates the remembered replies. Requires: r.mu is held.
func (t *txn) publishRepliesLocked() {
	for id, a := range t.replies {
		if a.forgotten() {
			delete(t.r.replies, id)
		} else {
			t.r.replies[id] = a
		}
	}
}

// writeTo writes t into the database and returns the newest outbox key.
func (t *txn) writeTo(tx *bolt.Tx) (uint64, error) {
	outbox, records := tx.Bucket(bucketOutbox), tx.Bucket(bucketRecords)
	if t.ackedThrough > 0 {
		if err := deleteThrough(outbox, t.ackedThrough); err != nil {
			return 0, err
		}
	}
	tail := outbox.Sequence()
	for _, e := range t.entries {
		key, err := outbox.NextSequence()
		if err != nil {
			return 0, err
		}
		if err := outbox.Put(binary.BigEndian.AppendUint64(nil, key), e.value); err != nil {
			return 0, err
		}
		if e.snapshotOf != nil {
			e.snapshotOf.SnapshotKey = key
		}
		tail = key
	}
	for mac, rec := range t.staged {
		if rec == nil {
			if e := t.r.devices[mac]; e != nil {
				if err := records.Delete([]byte(e.rec.Session)); err != nil {
					return 0, err
				}
			}
			continue
		}
		b, err := json.Marshal(rec)
		if err != nil {
			return 0, fmt.Errorf("encode record of session %s: %w", rec.Session, err)
		}
		if err := records.Put([]byte(rec.Session), b); err != nil {
			return 0, err
		}
	}
	if err := putReplies(tx, t.replies); err != nil {
		return 0, err
	}
	if t.position != t.r.savedPosition {
		b, err := json.Marshal(t.position)
		if err != nil {
			return 0, fmt.Errorf("encode replay position: %w", err)
		}
		if err := tx.Bucket(bucketMeta).Put(keyPosition, b); err != nil {
			return 0, err
		}
	}
	return tail, nil
}
