package poller

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// letterBatch is how many dead letters are produced at a time.
const letterBatch = 256

// letters produces dead letters.
//
// It holds: a letter stays until its produce is acknowledged or its partition
// is no longer ours. Nothing is dropped, and nothing else bounds the queue than
// the valve: letters count against their partition's bytes.
type letters struct {
	produce func(context.Context, ...*kgo.Record) kgo.ProduceResults
	buried  func(*letter)
	log     *slog.Logger
	metrics *metrics

	mu    sync.Mutex
	queue []*letter
	wake  chan struct{}
}

func (d *letters) post(ls ...*letter) {
	if len(ls) == 0 {
		return
	}
	d.mu.Lock()
	d.queue = append(d.queue, ls...)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *letters) next() []*letter {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(d.queue), letterBatch)
	ls := d.queue[:n:n]
	if d.queue = d.queue[n:]; len(d.queue) == 0 {
		d.queue = nil
	}
	return ls
}

func (d *letters) run(ctx context.Context) {
	failures := 0
	var again []*letter
	for ctx.Err() == nil {
		ls := again
		if again = nil; len(ls) == 0 {
			ls = d.next()
		}
		if len(ls) == 0 {
			select {
			case <-ctx.Done():
			case <-d.wake:
			}
			continue
		}
		again = d.bury(ctx, ls)
		if len(again) == 0 {
			failures = 0
			continue
		}
		_ = kafka.Sleep(ctx, kafka.Backoff(failures, 100*time.Millisecond, 15*time.Second)) // the loop looks at ctx
		failures++
	}
}

// bury produces ls and returns those that have to be tried again.
func (d *letters) bury(ctx context.Context, ls []*letter) (again []*letter) {
	byRecord := make(map[*kgo.Record]*letter, len(ls))
	records := make([]*kgo.Record, 0, len(ls))
	for _, l := range ls {
		if l.a.ctx.Err() != nil {
			l.a.dropped()
			continue
		}
		byRecord[l.record] = l
		records = append(records, l.record)
	}
	if len(records) == 0 {
		return nil
	}
	for _, r := range d.produce(ctx, records...) {
		l := byRecord[r.Record]
		switch {
		case r.Err == nil:
			d.metrics.deadLetters.WithLabelValues(l.reason).Inc()
			d.buried(l)
			continue
		case errors.Is(r.Err, kerr.MessageTooLarge) && !l.truncated:
			l.record, l.truncated = kafka.Truncate(l.record), true
		default:
			// The client has written to the record; what is produced
			// again must not carry its place in the failed batch.
			l.record = &kgo.Record{Topic: l.record.Topic, Key: l.record.Key, Value: l.record.Value, Headers: l.record.Headers, Timestamp: l.record.Timestamp}
			d.metrics.deadLetterFailures.Inc()
			d.log.Warn("dead letter not taken, trying again", "partition", l.a.partition, "reason", l.reason, "err", r.Err)
		}
		again = append(again, l)
	}
	return again
}
