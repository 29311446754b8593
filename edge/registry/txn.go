package registry

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// txn is one transaction in the making: changed clones of records and the
// events that tell of them. The Registry's write lock is held while there is
// one. Nothing outside it changes before commit has succeeded.
type txn struct {
	r        *Registry
	staged   map[string]*record // by MAC; nil: the record goes
	touched  map[string]struct{}
	events   []event
	bytes    int64
	opened   int                  // records that commit would add
	due      map[string]time.Time // when the next snapshots are
	position Position
	through  uint64 // outbox keys up to it go
	freed    int64
	gone     int
	answered map[string]answer // by the command's ID; one without a reply goes
}

type event struct {
	typ   device.Type // "" of a reply
	entry []byte      // value in the outbox
	snap  *record     // of a snapshot: whose SnapshotKey is this event's key
}

// begin starts a transaction. The caller holds r.write.
func (r *Registry) begin() *txn {
	return &txn{r: r, staged: map[string]*record{}, touched: map[string]struct{}{}, due: map[string]time.Time{}, answered: map[string]answer{}, position: r.position}
}

// get returns the record of mac as t has it, or nil. It must not be changed.
func (t *txn) get(mac string) *record {
	if rec, ok := t.staged[mac]; ok {
		return rec
	}
	if e := t.r.devices[mac]; e != nil {
		return e.rec
	}
	return nil
}

// change returns the record of mac to change.
func (t *txn) change(mac string) *record {
	if rec, ok := t.staged[mac]; ok {
		return rec
	}
	e := t.r.devices[mac]
	rec := e.rec.clone()
	rec.Last, rec.Heard = e.last, e.heard
	t.staged[mac] = rec
	return rec
}

func (t *txn) count() int { return len(t.r.devices) + t.opened }

// sequence makes the events for what changed since it was called last.
func (t *txn) sequence() error {
	for _, mac := range slices.Sorted(maps.Keys(t.touched)) {
		if _, err := t.tell(mac); err != nil {
			return err
		}
	}
	clear(t.touched)
	return nil
}

// tell makes the events for all that is pending in a record: one, unless it is
// more than one event may hold. It reports false where the outbox has no room:
// what is left stays pending.
func (t *txn) tell(mac string) (bool, error) {
	rec := t.get(mac)
	if rec == nil {
		return true, nil
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
		for _, name := range part {
			e.Attributes[name] = device.Attribute{Value: rec.Attributes[name].Value, Seq: e.Seq, At: e.Time}
		}
		if ok, err := t.append(e, nil); !ok || err != nil {
			return false, err
		}
		rec = t.change(mac)
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
	return true, nil
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

// snapshot tells what is pending and then everything. It reports false where
// the outbox has no room.
func (t *txn) snapshot(mac string, now time.Time) (bool, error) {
	if ok, err := t.tell(mac); !ok || err != nil {
		return false, err
	}
	rec := t.change(mac)
	e := device.Event{RAE: t.r.o.RAE, Session: rec.Session, Type: device.Snapshot, Seq: rec.Seq + 1, Time: millis(now, now), Attributes: rec.live()}
	if ok, err := t.append(e, rec); !ok || err != nil {
		return false, err
	}
	rec.Seq, rec.SnapshotAt = e.Seq, e.Time
	return true, nil
}

// close ends the session of mac: what is pending, closed, and the record goes.
// It reports false where the outbox has no room.
func (t *txn) close(mac, reason string, now time.Time) (bool, error) {
	if ok, err := t.tell(mac); !ok || err != nil {
		return false, err
	}
	rec := t.get(mac)
	e := device.Event{RAE: t.r.o.RAE, Session: rec.Session, Type: device.Closed, Seq: rec.Seq + 1, Time: millis(now, now), Reason: reason}
	if ok, err := t.append(e, nil); !ok || err != nil {
		return false, err
	}
	t.staged[mac] = nil
	return true, nil
}

// append puts e into the outbox and reports whether there was room.
func (t *txn) append(e device.Event, snap *record) (bool, error) {
	topic, err := device.SessionTopic(e.RAE, e.Session, device.KindEvents)
	if err != nil {
		return false, err
	}
	payload, err := e.Encode()
	if err != nil {
		return false, err
	}
	return t.enqueue(event{typ: e.Type, entry: encodeEntry(topic, payload), snap: snap}), nil
}

// enqueue puts e into the outbox and reports whether there was room.
func (t *txn) enqueue(e event) bool {
	if t.r.bytes-t.freed+t.bytes+entryBytes(e.entry) > t.r.o.MaxOutboxBytes {
		if !t.r.full {
			t.r.full = true
			t.r.o.Logger.Warn("outbox is full: changes wait in the records until the broker takes events; nothing is lost, but what happens in between is folded", "limit_bytes", t.r.o.MaxOutboxBytes)
		}
		return false
	}
	t.events = append(t.events, e)
	t.bytes += entryBytes(e.entry)
	return true
}

// empty reports whether committing t would write nothing but a position.
func (t *txn) empty() bool {
	return len(t.staged) == 0 && len(t.events) == 0 && t.through == 0 && len(t.answered) == 0
}

// commit writes t and then makes it what the Registry knows. Where t is empty
// it only remembers the position.
func (t *txn) commit() error {
	if !t.empty() {
		return t.save()
	}
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.r.position = t.position
	t.schedule()
	return nil
}

// schedule sets when the next snapshots are due. The caller holds r.mu.
func (t *txn) schedule() {
	for mac, due := range t.due {
		if e := t.r.devices[mac]; e != nil {
			e.due = due
		}
	}
}

func (t *txn) save() error {
	r := t.r
	start := time.Now()
	var tail uint64
	err := r.db.Update(func(tx *bolt.Tx) (err error) {
		tail, err = t.put(tx)
		return err
	})
	r.metrics.commits.Observe(time.Since(start).Seconds())
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.broken = fmt.Errorf("write %s: %w", r.o.Path, err)
		return r.broken
	}
	r.broken = nil
	now := r.o.Now()
	for mac, rec := range t.staged {
		delete(r.waiting, mac)
		switch e := r.devices[mac]; {
		case rec == nil:
			delete(r.devices, mac)
			continue
		case e == nil:
			r.devices[mac] = &entry{rec: rec, last: rec.Last, heard: rec.Heard, due: r.firstSnapshot(rec, now)}
		default:
			e.rec = rec
		}
		if rec.waits() {
			r.waiting[mac] = struct{}{}
		}
	}
	t.schedule()
	r.position, r.saved = t.position, t.position
	r.events += len(t.events) - t.gone
	r.bytes += t.bytes - t.freed
	r.head = max(r.head, t.through)
	if r.full && len(r.waiting) == 0 {
		r.full = false
		r.o.Logger.Info("outbox has room again; all changes that waited are in it")
	}
	if len(t.events) > 0 {
		r.tail = tail
		r.signal()
	}
	for _, e := range t.events {
		if e.typ != "" {
			r.metrics.events.WithLabelValues(string(e.typ)).Inc()
		}
	}
	for id, a := range t.answered {
		if a.gone() {
			delete(r.answers, id)
		} else {
			r.answers[id] = a
		}
	}
	return nil
}

// put writes t into the database and returns the newest outbox key.
func (t *txn) put(tx *bolt.Tx) (uint64, error) {
	outbox, records := tx.Bucket(bucketOutbox), tx.Bucket(bucketRecords)
	if t.through > 0 {
		if err := deleteThrough(outbox, t.through); err != nil {
			return 0, err
		}
	}
	tail := outbox.Sequence()
	for _, e := range t.events {
		key, err := outbox.NextSequence()
		if err != nil {
			return 0, err
		}
		if err := outbox.Put(binary.BigEndian.AppendUint64(nil, key), e.entry); err != nil {
			return 0, err
		}
		if e.snap != nil {
			e.snap.SnapshotKey = key
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
	if err := putAnswers(tx, t.answered); err != nil {
		return 0, err
	}
	if t.position != t.r.saved {
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
