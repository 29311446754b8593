package device

import "github.com/google/uuid"

// Position is an ingest position: the next Kafka offset of a topic's partition
// that has not been applied to a session.
//
// Offsets mean something in one log only. A topic that is deleted and made again
// under its name is another log, in which the same offsets are other records. So a
// position names the topic's incarnation, by the ID that Kafka gave it.
type Position struct {
	Topic string `json:"topic"`
	// TopicID is the UUID of the topic's incarnation, lower case with dashes;
	// empty where the broker has none (Kafka before 3.1).
	TopicID   string `json:"topic_id,omitempty"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`
}

// Advance returns positions with p in it. A position never goes back in its log.
// One of another incarnation takes the place of the one there was: a session has
// one position of a topic's partition.
//
// Invariant: where a position of an incarnation is in the result, p of that
// incarnation was reached, or it was there before. So a late batch of an old
// incarnation can only take the new one's position away. What was applied is then
// no longer acknowledged, and is sent and applied again; what was not applied is
// never acknowledged.
func Advance(positions []Position, p Position) []Position {
	for i, q := range positions {
		if q.Topic != p.Topic || q.Partition != p.Partition {
			continue
		}
		if q.TopicID == p.TopicID {
			p.Next = max(q.Next, p.Next)
		}
		positions[i] = p
		return positions
	}
	return append(positions, p)
}

// Reached reports whether positions are at or past p. A position of another
// incarnation of the topic is none.
func Reached(positions []Position, p Position) bool {
	for _, q := range positions {
		if q.Topic == p.Topic && q.TopicID == p.TopicID && q.Partition == p.Partition {
			return q.Next >= p.Next
		}
	}
	return false
}

// IsTopicID reports whether s may be the TopicID of a Position.
func IsTopicID(s string) bool {
	if s == "" {
		return true
	}
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s && id != uuid.Nil
}

// TopicIDOf is the TopicID of the ID in Kafka's protocol; zero is none.
func TopicIDOf(id [16]byte) string {
	if id == uuid.Nil {
		return ""
	}
	return uuid.UUID(id).String()
}
