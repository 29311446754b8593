package device

import (
	"errors"
	"fmt"
	"time"
)

// SignalEvents is the name of the signal whose payload is a Batch.
const SignalEvents = "device-events"

// BatchVersion is the schema version of Batch that this code writes.
const BatchVersion = 1

// Batch is the payload of one signal: a fold and the Kafka coordinates it
// covers. Its JSON is at most MaxSignalBytes.
type Batch struct {
	Version   int    `json:"v"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	First     int64  `json:"first"` // lowest offset in it
	Last      int64  `json:"last"`  // highest offset in it; offsets between may belong to other sessions
	Records   int    `json:"records"`
	// Received is the Kafka timestamp of the newest record.
	Received time.Time `json:"received"`
	Fold     Fold      `json:"fold"`
}

// Position is the ingest position that applying b reaches.
func (b Batch) Position() Position {
	return Position{Topic: b.Topic, Partition: b.Partition, Next: b.Last + 1}
}

// Check reports why a batch that came as a signal cannot be applied, or nil.
func (b Batch) Check() error {
	switch {
	case b.Version != BatchVersion:
		return fmt.Errorf("batch of schema version %d: this worker reads version %d", b.Version, BatchVersion)
	case b.Topic == "" || b.First < 0 || b.Last < b.First || b.Records < 1:
		return fmt.Errorf("batch has no Kafka coordinates: topic %q, offsets %d to %d, %d records", clip(b.Topic), b.First, b.Last, b.Records)
	case len(b.Fold.Seqs) == 0:
		return errors.New("batch holds no events")
	}
	return CheckSession(b.Fold.Session)
}

// Position is an ingest position: the next Kafka offset of a topic's partition
// that has not been applied to a session.
type Position struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`
}

// Advance returns positions with p in it. A position never goes back.
func Advance(positions []Position, p Position) []Position {
	for i, q := range positions {
		if q.Topic == p.Topic && q.Partition == p.Partition {
			positions[i].Next = max(q.Next, p.Next)
			return positions
		}
	}
	return append(positions, p)
}

// Reached reports whether positions are at or past p.
func Reached(positions []Position, p Position) bool {
	for _, q := range positions {
		if q.Topic == p.Topic && q.Partition == p.Partition {
			return q.Next >= p.Next
		}
	}
	return false
}
