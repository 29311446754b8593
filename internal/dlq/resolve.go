package dlq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/resolve"
)

// Letters are resolved so many, or of so many bytes, at a time.
const (
	chunkLetters = 500
	chunkBytes   = 8 << 20
)

// Result counts what became of a selection's letters. It implements
// resolve.Report.
type Result struct {
	// Done were replayed or dropped, and marked.
	Done int `json:"done"`
	// Incomplete cannot be replayed and were left as they are.
	Incomplete int `json:"incomplete"`
	// Failed were not taken by the topic, and are left as they are.
	Failed int `json:"failed"`
	// Unmarked were replayed, but their mark was not taken: they would be
	// replayed again.
	Unmarked int `json:"unmarked"`
}

// Left implements resolve.Report.
func (r Result) Left() int { return r.Incomplete + r.Failed }

// Resolve replays or drops what the selection holds. It calls refused for each
// letter that it could not do it to, with the reason, and goes on with the
// others; the error that ends it early is of the topic itself, or of ctx.
//
// What a cancelled ctx finds replayed is marked before Resolve returns.
func (s *Selection) Resolve(ctx context.Context, to resolve.Resolution, refused func(Letter, error)) (Result, error) {
	c := &chunk{topic: s.topic, resolution: to, refused: refused}
	_, err := s.Each(ctx, func(l Letter) error { return c.add(ctx, l) })
	if flushed := c.flush(ctx); err == nil {
		err = flushed
	}
	return c.result, err
}

// chunk is what is resolved together.
type chunk struct {
	topic      *Topic
	resolution resolve.Resolution
	refused    func(Letter, error)
	result     Result

	letters []Letter
	records []*kgo.Record // the originals of a replay, by the same index
	bytes   int
}

func (c *chunk) add(ctx context.Context, l Letter) error {
	if c.resolution == resolve.Replayed {
		r, err := kafka.Original(l.Record)
		if err == nil && r.Topic == c.topic.opts.Topic {
			err = fmt.Errorf("%w: it was in the dead-letter topic itself", kafka.ErrIncomplete)
		}
		if err != nil {
			c.result.Incomplete++
			c.refused(l, err)
			return nil
		}
		c.records = append(c.records, r)
	}
	c.letters = append(c.letters, l)
	c.bytes += len(l.Record.Key) + len(l.Record.Value)
	if len(c.letters) >= chunkLetters || c.bytes >= chunkBytes {
		return c.flush(ctx)
	}
	return nil
}

// flush replays what is gathered, then marks it.
func (c *chunk) flush(ctx context.Context) error {
	letters, records := c.letters, c.records
	c.letters, c.records, c.bytes = nil, nil, 0
	if len(letters) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.resolution == resolve.Replayed {
		letters = c.replay(ctx, letters, records)
	}
	marked := c.mark(ctx, letters)
	return errors.Join(marked, ctx.Err())
}

// replay produces the originals and returns the letters whose original was
// acknowledged.
func (c *chunk) replay(ctx context.Context, letters []Letter, records []*kgo.Record) (done []Letter) {
	of := make(map[*kgo.Record]*Letter, len(records))
	for i := range records {
		of[records[i]] = &letters[i]
	}
	failed := map[Coordinate]bool{}
	for _, p := range c.topic.log.Produce(ctx, records...) {
		if l := of[p.Record]; p.Err != nil {
			failed[l.At] = true
			c.result.Failed++
			c.refused(*l, p.Err)
		}
	}
	return slices.DeleteFunc(letters, func(l Letter) bool { return failed[l.At] })
}

// mark writes the marks of letters that were resolved.
func (c *chunk) mark(ctx context.Context, letters []Letter) error {
	offsets := map[int32][]int64{}
	for _, l := range letters {
		offsets[l.At.Partition] = append(offsets[l.At.Partition], l.At.Offset)
	}
	// The letters have been replayed: the mark is due, also when ctx has ended.
	ctx = context.WithoutCancel(ctx)
	now := c.topic.opts.Now().Truncate(time.Millisecond)
	var errs []error
	for _, partition := range slices.Sorted(maps.Keys(offsets)) {
		for some := range slices.Chunk(ranges(offsets[partition]), maxRanges) {
			r, err := Mark{Resolution: c.resolution, At: now, Offsets: some}.record(c.topic.opts.Topic, partition)
			if err != nil {
				return err
			}
			n := 0
			for _, o := range some {
				n += int(o[1] - o[0] + 1)
			}
			if err := c.topic.log.Produce(ctx, r).FirstErr(); err != nil {
				if c.resolution == resolve.Replayed {
					c.result.Unmarked += n
				}
				errs = append(errs, fmt.Errorf("mark letters of partition %d at offsets %v as %s: %w", partition, some, c.resolution, err))
				continue
			}
			c.result.Done += n
		}
	}
	return errors.Join(errs...)
}
