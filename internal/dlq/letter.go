package dlq

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/resolve"
)

// Coordinate is a letter's place in the dead-letter topic.
type Coordinate struct {
	Partition int32
	Offset    int64
}

// String is PARTITION/OFFSET.
func (c Coordinate) String() string { return fmt.Sprintf("%d/%d", c.Partition, c.Offset) }

// MarshalText is String.
func (c Coordinate) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what String writes.
func (c *Coordinate) UnmarshalText(text []byte) error {
	partition, offset, _ := strings.Cut(string(text), "/")
	p, err1 := strconv.ParseUint(partition, 10, 31)
	o, err2 := strconv.ParseUint(offset, 10, 63)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("%q is not of the form PARTITION/OFFSET", text)
	}
	c.Partition, c.Offset = int32(p), int64(o)
	return nil
}

func (c Coordinate) compare(o Coordinate) int {
	return cmp.Or(cmp.Compare(c.Partition, o.Partition), cmp.Compare(c.Offset, o.Offset))
}

// Letter is a dead letter.
type Letter struct {
	At Coordinate `json:"at"`
	// Time is the original record's timestamp.
	Time time.Time `json:"time"`
	// Topic, Partition and Offset are where the original was, or, with -1,
	// where it was meant for.
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Key       string `json:"key"`
	// RAE and Session are those of the key, where it is an MQTT topic of a
	// session.
	RAE     string `json:"rae,omitempty"`
	Session string `json:"session,omitempty"`
	Reason  string `json:"reason"`
	Detail  string `json:"detail"`
	// Size is that of the original value, in bytes.
	Size int64 `json:"size"`
	// Incomplete says why the letter cannot be replayed; empty if it can.
	Incomplete string `json:"incomplete,omitempty"`
	// Resolution is what has become of it; empty: nothing yet.
	Resolution resolve.Resolution `json:"settled,omitempty"`

	// Record is the letter as it is in Kafka.
	Record *kgo.Record `json:"-"`
}

func newLetter(r *kgo.Record) Letter {
	l := Letter{
		At: Coordinate{r.Partition, r.Offset}, Time: r.Timestamp, Topic: kafka.Header(r, kafka.HeaderTopic),
		Partition: -1, Offset: -1, Key: string(r.Key), Reason: kafka.Header(r, kafka.HeaderReason),
		Detail: kafka.Header(r, kafka.HeaderDetail), Size: int64(len(r.Value)), Record: r,
	}
	if n, err := strconv.ParseInt(kafka.Header(r, kafka.HeaderPartition), 10, 32); err == nil {
		l.Partition = int32(n)
	}
	if n, err := strconv.ParseInt(kafka.Header(r, kafka.HeaderOffset), 10, 64); err == nil {
		l.Offset = n
	}
	if n, err := strconv.ParseInt(kafka.Header(r, kafka.HeaderSize), 10, 64); err == nil {
		l.Size = n
	}
	if _, err := kafka.Original(r); err != nil {
		l.Incomplete = err.Error()
	}
	// What is wrong with a letter may be its key: take what is there.
	if levels := strings.Split(l.Key, "/"); len(levels) >= 3 && levels[0] == "rollcall" {
		l.RAE = levels[2]
		if len(levels) >= 5 && levels[3] == "sessions" {
			l.Session = levels[4]
		}
	}
	return l
}

// Filter chooses letters. The zero value chooses all that are not resolved.
type Filter struct {
	// At are these letters alone, resolved or not.
	At []Coordinate
	// Reasons, RAE and Session, where given, are the letter's.
	Reasons      []string
	RAE, Session string
	// Since is the earliest time of the original record.
	Since time.Time
	// After leaves out this letter and all before it, by partition and offset.
	After *Coordinate
	// Resolved takes those replayed or dropped too.
	Resolved bool
	// Limit is how many; 0 is all.
	Limit int
}

func (f *Filter) takes(l *Letter) bool {
	switch {
	case len(f.At) > 0:
		return true // only these were read
	case l.Resolution != "" && !f.Resolved,
		len(f.Reasons) > 0 && !slices.Contains(f.Reasons, l.Reason),
		f.RAE != "" && f.RAE != l.RAE,
		f.Session != "" && f.Session != l.Session,
		l.Time.Before(f.Since),
		f.After != nil && l.At.compare(*f.After) <= 0:
		return false
	}
	return true
}
