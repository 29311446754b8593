package dlq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka/replay"
	"github.com/rollcall-platform/rollcall/internal/resolve"
)

// Selection is what a filter chose of the topic as it was then: letters that
// come later are not in it, however often it is read.
type Selection struct {
	topic       *Topic
	filter      Filter
	spans       []replay.Span
	resolutions map[int32]*resolutions // by partition
}

// Select reads the marks. A coordinate in filter.At that is not in the topic is
// ErrNotFound.
func (t *Topic) Select(ctx context.Context, filter Filter) (*Selection, error) {
	all, err := t.log.Bounds(ctx, t.opts.Topic)
	if err != nil {
		return nil, err
	}
	s := &Selection{topic: t, filter: filter, spans: all, resolutions: map[int32]*resolutions{}}
	if len(filter.At) > 0 {
		s.filter.At = slices.Clone(filter.At)
		slices.SortFunc(s.filter.At, Coordinate.compare)
		s.filter.At = slices.Compact(s.filter.At)
		s.spans, err = t.only(s.filter.At, all)
	} else {
		s.spans, err = t.narrow(ctx, filter, all)
	}
	if err != nil {
		return nil, err
	}
	for _, whole := range all {
		from, to := whole.To, whole.From
		for _, p := range s.spans {
			if p.Partition == whole.Partition {
				from, to = min(from, p.From), max(to, p.To)
			}
		}
		if from >= to {
			continue
		}
		marks := newResolutions()
		s.resolutions[whole.Partition] = marks
		// Marks come after their letters.
		err := t.read(ctx, replay.Span{Partition: whole.Partition, From: from, To: whole.To}, func(r *kgo.Record) error {
			if !isMark(r) {
				return nil
			}
			m, err := ParseMark(r)
			if err != nil {
				t.opts.Logger.Warn("a mark of the dead-letter topic says nothing", "partition", r.Partition, "offset", r.Offset, "err", err)
				return nil
			}
			marks.add(m, from, to)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// only is a span for each coordinate.
func (t *Topic) only(at []Coordinate, all []replay.Span) ([]replay.Span, error) {
	var spans []replay.Span
	var missing []error
	for _, c := range at {
		i := slices.IndexFunc(all, func(s replay.Span) bool { return s.Partition == c.Partition })
		switch {
		case i < 0:
			missing = append(missing, fmt.Errorf("%w: %s: topic %s has no partition %d", ErrNotFound, c, t.opts.Topic, c.Partition))
		case all[i].From == all[i].To:
			missing = append(missing, fmt.Errorf("%w: %s: the partition is empty", ErrNotFound, c))
		case c.Offset < all[i].From || c.Offset >= all[i].To:
			missing = append(missing, fmt.Errorf("%w: %s: the partition holds offsets %d to %d", ErrNotFound, c, all[i].From, all[i].To-1))
		default:
			spans = append(spans, replay.Span{Partition: c.Partition, From: c.Offset, To: c.Offset + 1})
		}
	}
	return spans, errors.Join(missing...)
}

// narrow leaves out what the filter cannot want.
func (t *Topic) narrow(ctx context.Context, filter Filter, all []replay.Span) ([]replay.Span, error) {
	spans := slices.Clone(all)
	if !filter.Since.IsZero() {
		// Timestamps are of the original records, and in no order.
		first, err := t.log.Since(ctx, t.opts.Topic, filter.Since)
		if err != nil {
			return nil, err
		}
		for i := range spans {
			if o, ok := first[spans[i].Partition]; ok {
				spans[i].From = max(spans[i].From, o)
			}
		}
	}
	if after := filter.After; after != nil {
		spans = slices.DeleteFunc(spans, func(s replay.Span) bool { return s.Partition < after.Partition })
		for i := range spans {
			if spans[i].Partition == after.Partition {
				spans[i].From = max(spans[i].From, after.Offset+1)
			}
		}
	}
	return slices.DeleteFunc(spans, func(s replay.Span) bool { return s.From >= s.To }), nil
}

// Each calls f for each letter chosen, by partition and offset. It reports
// whether the filter's limit left any out. An error of f ends it.
func (s *Selection) Each(ctx context.Context, f func(Letter) error) (more bool, err error) {
	n := 0
	for _, p := range s.spans {
		found := false
		err := s.topic.read(ctx, p, func(r *kgo.Record) error {
			if isMark(r) {
				return nil
			}
			l := newLetter(r)
			l.Resolution = s.resolutions[r.Partition].of(r.Offset)
			if !s.filter.takes(&l) {
				return nil
			}
			if s.filter.Limit > 0 && n == s.filter.Limit {
				more = true
				return replay.ErrEnough
			}
			n++
			found = true
			return f(l)
		})
		switch {
		case err != nil:
			return more, err
		case more:
			return true, nil
		case len(s.filter.At) > 0 && !found:
			return false, fmt.Errorf("%w: %d/%d is not a letter, but a mark or a gap", ErrNotFound, p.Partition, p.From)
		}
	}
	return more, nil
}

// ResolvedBefore returns an error for each letter that was replayed or dropped
// before, joined, or nil.
func (s *Selection) ResolvedBefore(ctx context.Context) error {
	var before []error
	_, err := s.Each(ctx, func(l Letter) error {
		if l.Resolution != "" {
			before = append(before, fmt.Errorf("%s was %s before; --again does it once more", l.At, l.Resolution))
		}
		return nil
	})
	return errors.Join(append(before, err)...)
}

// Summary is what a selection holds.
type Summary struct {
	Letters int   `json:"letters"`
	Bytes   int64 `json:"bytes"`
	// Resolved and Incomplete are how many of them were replayed or dropped
	// before, and how many cannot be replayed.
	Resolved   int `json:"settled"`
	Incomplete int `json:"incomplete"`
	// Reasons counts them by reason, Topics by where those that can be
	// replayed would go.
	Reasons map[string]int `json:"reasons"`
	Topics  map[string]int `json:"topics"`
	// Oldest is by topic the earliest timestamp of an original record.
	Oldest map[string]time.Time `json:"oldest"`
}

// Able is how many letters the resolution can be done to.
func (s Summary) Able(to resolve.Resolution) int {
	if to == resolve.Replayed {
		return s.Letters - s.Incomplete
	}
	return s.Letters
}

// Summary counts.
func (s *Selection) Summary(ctx context.Context) (Summary, error) {
	sum := Summary{Reasons: map[string]int{}, Topics: map[string]int{}, Oldest: map[string]time.Time{}}
	_, err := s.Each(ctx, func(l Letter) error {
		sum.Letters++
		sum.Bytes += int64(len(l.Record.Value))
		sum.Reasons[l.Reason]++
		if l.Resolution != "" {
			sum.Resolved++
		}
		if l.Incomplete != "" {
			sum.Incomplete++
			return nil
		}
		sum.Topics[l.Topic]++
		if oldest, ok := sum.Oldest[l.Topic]; !ok || l.Time.Before(oldest) {
			sum.Oldest[l.Topic] = l.Time
		}
		return nil
	})
	return sum, err
}

// CheckTargets fails when a topic that letters of the summary would go to does
// not exist. It calls aged for each topic whose retention, by the records'
// timestamps, may take the oldest of them before they are read.
func (t *Topic) CheckTargets(ctx context.Context, s Summary, aged func(topic string, retention time.Duration)) error {
	for _, name := range slices.Sorted(maps.Keys(s.Topics)) {
		keeps, err := t.Retention(ctx, name)
		if err != nil {
			return fmt.Errorf("%d letters belong into topic %q: %w", s.Topics[name], name, err)
		}
		if keeps > 0 && t.opts.Now().Sub(s.Oldest[name]) > keeps {
			aged(name, keeps)
		}
	}
	return nil
}
