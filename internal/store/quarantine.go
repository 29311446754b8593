package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Quarantined is a batch of one session that can never be applied as it is, and
// the Kafka coordinates to replay it from.
type Quarantined struct {
	Topic       string // empty: the payload had no coordinates that could be read
	Partition   int32
	First, Last int64 // offsets; those between may be of other sessions
	Cause       string
	Detail      string
	At          time.Time
}

// maxQuarantineText bounds what a row keeps of a text, in bytes.
const maxQuarantineText = 2000

// id names the batch by where it is, so that a replay is the same row. What has
// no coordinates is told apart by when it came.
func (q Quarantined) id(session uuid.UUID) uuid.UUID {
	name := fmt.Sprintf("%s\x00%d\x00%d\x00%d", q.Topic, q.Partition, q.First, q.Last)
	if q.Topic == "" {
		name += q.At.UTC().Format("\x00" + time.RFC3339Nano)
	}
	return uuid.NewSHA1(session, []byte(name))
}

type quarantineColumns struct {
	ids, sessions                uuidArray
	raes, topics, causes, detail []string
	partitions                   []int32
	firsts, lasts                []int64
	ats                          []time.Time
}

// add takes what u quarantines, in key order.
func (c *quarantineColumns) add(session uuid.UUID, u Update) {
	all := slices.Clone(u.Quarantined)
	slices.SortFunc(all, func(a, b Quarantined) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.First, b.First))
	})
	for _, q := range all {
		c.ids, c.sessions = append(c.ids, key(q.id(session))), append(c.sessions, key(session))
		c.raes, c.topics = append(c.raes, u.RAE), append(c.topics, storable(q.Topic))
		c.partitions, c.firsts, c.lasts = append(c.partitions, q.Partition), append(c.firsts, q.First), append(c.lasts, q.Last)
		c.causes, c.detail = append(c.causes, storable(q.Cause)), append(c.detail, storable(q.Detail))
		c.ats = append(c.ats, q.At.UTC())
	}
}

func (c *quarantineColumns) args() []any {
	return []any{c.ids, c.sessions, c.raes, c.topics, c.partitions, c.firsts, c.lasts, c.causes, c.detail, c.ats}
}

// storable makes any text one that the database takes: a row about poison must
// not be poison.
func storable(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
	if len(s) <= maxQuarantineText {
		return s
	}
	end := maxQuarantineText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
