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
	TopicID   string `json:"topic_id,omitempty"` // see Position
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
	return Position{Topic: b.Topic, TopicID: b.TopicID, Partition: b.Partition, Next: b.Last + 1}
}

// Check reports why a batch that came as a signal cannot be applied, or nil.
func (b Batch) Check() error {
	switch {
	case b.Version != BatchVersion:
		return fmt.Errorf("batch of schema version %d: this worker reads version %d", b.Version, BatchVersion)
	case b.Topic == "" || b.First < 0 || b.Last < b.First || b.Records < 1:
		return fmt.Errorf("batch has no Kafka coordinates: topic %q, offsets %d to %d, %d records", clip(b.Topic), b.First, b.Last, b.Records)
	case !IsTopicID(b.TopicID):
		return fmt.Errorf("%q is not the ID of a Kafka topic", clip(b.TopicID))
	case len(b.Fold.Seqs) == 0:
		return errors.New("batch holds no events")
	}
	return CheckSession(b.Fold.Session)
}
