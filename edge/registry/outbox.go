package registry

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	keyBytes = 8
	// maxReadBytes bounds what one Read holds in memory.
	maxReadBytes = 1 << 20
)

// Entry is an event that waits in the outbox.
type Entry struct {
	// Key orders the outbox. Keys rise and are never used again.
	Key uint64 `json:"key"`
	// Topic is the MQTT topic, Payload the encoded event.
	Topic   string `json:"topic"`
	Payload []byte `json:"payload"`
}

func encodeEntry(topic string, payload []byte) []byte {
	v := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(topic)+len(payload)), uint16(len(topic)))
	return append(append(v, topic...), payload...)
}

func decodeEntry(k, v []byte) (Entry, error) {
	if len(k) != keyBytes || len(v) < 2 || len(v) < 2+int(binary.BigEndian.Uint16(v)) {
		return Entry{}, fmt.Errorf("entry %x of %d bytes is cut off", k, len(v))
	}
	n := 2 + int(binary.BigEndian.Uint16(v))
	return Entry{Key: binary.BigEndian.Uint64(k), Topic: string(v[2:n]), Payload: slices.Clone(v[n:])}, nil
}

// entryBytes is what an entry counts against Options.MaxOutboxBytes: its key
// and value, and the header bbolt keeps for each.
func entryBytes(v []byte) int64 { return int64(len(v) + keyBytes + 16) }

// Read returns the oldest events with a key greater than after, in order: at
// most the given number, and about a megabyte.
func (r *Registry) Read(after uint64, most int) ([]Entry, error) {
	var out []Entry
	err := r.db.View(func(tx *bolt.Tx) (err error) {
		out, err = readEntries(tx, after, most, maxReadBytes)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read outbox in %s: %w", r.o.Path, err)
	}
	return out, nil
}

func readEntries(tx *bolt.Tx, after uint64, most, bytes int) ([]Entry, error) {
	var out []Entry
	c := tx.Bucket(bucketOutbox).Cursor()
	for k, v := c.Seek(binary.BigEndian.AppendUint64(nil, after+1)); k != nil && len(out) < most && bytes > 0; k, v = c.Next() {
		e, err := decodeEntry(k, v)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		bytes -= len(v)
	}
	return out, nil
}

// Ack removes the events with keys up to through: the broker has them. Changes
// that waited for room get their events in the same transaction.
func (r *Registry) Ack(ctx context.Context, through uint64) error {
	return r.update(ctx, func(t *txn, _ time.Time) error {
		if through > r.newestKey {
			return fmt.Errorf("acknowledge outbox up to %d: its newest event is %d", through, r.newestKey)
		}
		if through <= r.ackedKey {
			return nil
		}
		t.ackedThrough = through
		err := r.db.View(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketOutbox).Cursor()
			for k, v := c.First(); k != nil && binary.BigEndian.Uint64(k) <= through; k, v = c.Next() {
				t.freedBytes += entryBytes(v)
				t.ackedEvents++
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read outbox in %s: %w", r.o.Path, err)
		}
		if err := t.appendWaiting(); err != nil {
			return err
		}
		return t.write()
	})
}

// appendWaiting makes the events for what waits for room, as far as there is
// some. What does not fit goes on waiting; a smaller change behind it may fit.
func (t *txn) appendWaiting() error {
	return t.appendPendingOf(slices.Sorted(maps.Keys(t.r.waiting)))
}

func deleteThrough(outbox *bolt.Bucket, through uint64) error {
	c := outbox.Cursor()
	for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= through; k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// Pending returns how many events wait in the outbox, and their bytes.
func (r *Registry) Pending() (events int, bytes int64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.outboxEvents, r.outboxBytes
}

// Appended returns a channel that has a token when events were appended since
// one was taken. It is for one reader.
func (r *Registry) Appended() <-chan struct{} { return r.appended }

func (r *Registry) signal() {
	select {
	case r.appended <- struct{}{}:
	default:
	}
}

// ErrOutboxFull says that there is no room for the event that would have to be
// made.
var ErrOutboxFull = errors.New("outbox is full")
