package device

import "strings"

// foreignMark is in no Kafka topic's name.
const foreignMark = "@"

// Foreign returns the position of a batch that rae sent for another RAE's session
// and that the session refused. It is kept apart from the session's own, under the
// topic {topic}@{rae}: both RAEs' records may be in one partition, and a refusal at
// a high offset says nothing about the owner's records before it.
func (p Position) Foreign(rae string) Position {
	p.Topic += foreignMark + rae
	return p
}

// IsForeign reports whether p was made by Foreign.
func (p Position) IsForeign() bool { return strings.Contains(p.Topic, foreignMark) }

// DoneWith reports whether b needs no more sending: positions, its session's, say
// that it was applied, or that it was refused as foreign.
func (b Batch) DoneWith(positions []Position) bool {
	p := b.Position()
	if Reached(positions, p) {
		return true
	}
	for _, q := range positions {
		topic, rae, foreign := strings.Cut(q.Topic, foreignMark)
		if foreign && topic == p.Topic && rae == b.Fold.RAE {
			q.Topic = topic
			if Reached([]Position{q}, p) {
				return true
			}
		}
	}
	return false
}
