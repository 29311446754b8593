package dlq

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/resolve"
)

// HeaderMark is the header of a mark. Its value is a resolve.Resolution.
const HeaderMark = "rollcall-dlq-mark"

// Mark is what a mark says.
type Mark struct {
	Resolution resolve.Resolution
	// At is when, by the clock of whoever did it.
	At time.Time
	// Offsets are the letters' in the mark's own partition, as ranges of
	// first and last.
	Offsets [][2]int64
}

// body is a mark's value. The resolution is in the header.
type body struct {
	At      time.Time  `json:"at"`
	Offsets [][2]int64 `json:"offsets"`
}

// maxMark bounds a mark's value, as read and as written.
const maxMark = 512 << 10

// maxRanges of a mark of our own keep it far below that: an offset has at most
// 19 digits.
const maxRanges = 4096

func (m Mark) record(topic string, partition int32) (*kgo.Record, error) {
	value, err := json.Marshal(body{m.At.UTC(), m.Offsets})
	if err != nil {
		return nil, err
	}
	return &kgo.Record{
		Topic: topic, Partition: partition,
		// Distinct, so that even a compacted topic would keep it.
		Key:     fmt.Appendf(nil, "%s/%d", m.Resolution, m.Offsets[0][0]),
		Value:   value,
		Headers: []kgo.RecordHeader{{Key: HeaderMark, Value: []byte(m.Resolution)}},
	}, nil
}

// isMark reports whether r is a mark, of whatever resolution.
func isMark(r *kgo.Record) bool {
	return kafka.Header(r, HeaderMark) != "" && kafka.Header(r, kafka.HeaderReason) == ""
}

var errMark = errors.New("not a mark")

// ParseMark reads a mark. It speaks only of offsets before its own, each once
// and in order: what a mark costs its reader is bounded by the topic's length.
func ParseMark(r *kgo.Record) (Mark, error) {
	m := Mark{Resolution: resolve.Resolution(kafka.Header(r, HeaderMark))}
	if m.Resolution != resolve.Replayed && m.Resolution != resolve.Dropped {
		return Mark{}, fmt.Errorf("%w: unknown resolution %q", errMark, m.Resolution)
	}
	if len(r.Value) > maxMark {
		return Mark{}, fmt.Errorf("%w: %d bytes", errMark, len(r.Value))
	}
	var b body
	if err := json.Unmarshal(r.Value, &b); err != nil {
		return Mark{}, fmt.Errorf("%w: %w", errMark, err)
	}
	next := int64(0)
	for _, o := range b.Offsets {
		if o[0] < next || o[0] > o[1] || o[1] >= r.Offset {
			return Mark{}, fmt.Errorf("%w: offsets %d to %d, at offset %d", errMark, o[0], o[1], r.Offset)
		}
		next = o[1] + 1
	}
	m.At, m.Offsets = b.At, b.Offsets
	return m, nil
}

// bits is a set of offsets.
type bits map[int64]*[blockWords]uint64

const (
	blockWords = 1024
	blockBits  = blockWords * 64
)

func (b bits) has(offset int64) bool {
	block := b[offset/blockBits]
	return block != nil && block[offset%blockBits/64]&(1<<(offset%64)) != 0
}

func (b bits) put(offset int64, in bool) {
	block := b[offset/blockBits]
	switch {
	case block == nil && !in:
		return
	case block == nil:
		block = new([blockWords]uint64)
		b[offset/blockBits] = block
	}
	if in {
		block[offset%blockBits/64] |= 1 << (offset % 64)
	} else {
		block[offset%blockBits/64] &^= 1 << (offset % 64)
	}
}

// resolutions is what the marks of a partition say, the newest last.
type resolutions struct{ replayed, dropped bits }

func newResolutions() *resolutions { return &resolutions{bits{}, bits{}} }

// add takes a mark's word for the offsets of a span.
func (s *resolutions) add(m Mark, from, to int64) {
	for _, r := range m.Offsets {
		for o := max(r[0], from); o <= min(r[1], to-1); o++ {
			s.replayed.put(o, m.Resolution == resolve.Replayed)
			s.dropped.put(o, m.Resolution == resolve.Dropped)
		}
	}
}

func (s *resolutions) of(offset int64) resolve.Resolution {
	switch {
	case s == nil:
		return ""
	case s.replayed.has(offset):
		return resolve.Replayed
	case s.dropped.has(offset):
		return resolve.Dropped
	}
	return ""
}

// ranges are sorted offsets as ranges.
func ranges(offsets []int64) [][2]int64 {
	var out [][2]int64
	for _, o := range offsets {
		if n := len(out); n > 0 && out[n-1][1] == o-1 {
			out[n-1][1] = o
			continue
		}
		out = append(out, [2]int64{o, o})
	}
	return out
}
