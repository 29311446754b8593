package registry

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

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
// that waited for room are told in the same transaction.
func (r *Registry) Ack(ctx context.Context, through uint64) error {
	r.write.Lock()
	defer r.write.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if through > r.tail {
		return fmt.Errorf("acknowledge outbox up to %d: its newest event is %d", through, r.tail)
	}
	if through <= r.head {
		return nil
	}
	t := r.begin()
	t.through = through
	err := r.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketOutbox).Cursor()
		for k, v := c.First(); k != nil && binary.BigEndian.Uint64(k) <= through; k, v = c.Next() {
			t.freed += entryBytes(v)
			t.gone++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read outbox in %s: %w", r.o.Path, err)
	}
	if err := t.tellWaiting(); err != nil {
		return err
	}
	return t.save()
}

// tellWaiting tells what waits for room, as far as there is some. What does not
// fit goes on waiting; a smaller change behind it may fit.
func (t *txn) tellWaiting() error {
	for _, mac := range slices.Sorted(maps.Keys(t.r.waiting)) {
		if _, err := t.tell(mac); err != nil {
			return err
		}
	}
	return nil
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
	return r.events, r.bytes
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
