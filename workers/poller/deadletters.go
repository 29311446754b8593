package poller

import (
	"context"
	"log/slog"
	"sync"

	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/offsets"
)

// deadLetterBatch is how many dead letters are produced at a time.
const deadLetterBatch = 256

// deadLetter is a record on its way to the dead-letter topic.
type deadLetter struct {
	a      *assignment
	unit   *offsets.Unit
	letter *kafka.Letter
	reason string
	bytes  int
}

// deadLetters is the queue of dead letters that wait for their produce.
//
// Invariant: a letter stays until its produce is acknowledged or its partition
// is no longer ours. Nothing is dropped, and nothing bounds the queue but the
// valve: letters count against their partition's bytes.
type deadLetters struct {
	producer     *kafka.DeadLetterProducer
	acknowledged func(*deadLetter)
	log          *slog.Logger
	metrics      *metrics

	mu    sync.Mutex
	queue []*deadLetter
	wake  chan struct{} // holds one: the queue is not empty
}

func (d *deadLetters) add(letters ...*deadLetter) {
	if len(letters) == 0 {
		return
	}
	d.mu.Lock()
	d.queue = append(d.queue, letters...)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *deadLetters) next() []*deadLetter {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(d.queue), deadLetterBatch)
	letters := d.queue[:n:n]
	if d.queue = d.queue[n:]; len(d.queue) == 0 {
		d.queue = nil
	}
	return letters
}

func (d *deadLetters) run(ctx context.Context) {
	failures := 0
	var failed []*deadLetter
	for ctx.Err() == nil {
		letters := failed
		if failed = nil; len(letters) == 0 {
			letters = d.next()
		}
		if len(letters) == 0 {
			select {
			case <-ctx.Done():
			case <-d.wake:
			}
			continue
		}
		failed = d.produce(ctx, letters)
		if len(failed) == 0 {
			failures = 0
			continue
		}
		_ = kafka.DeadLetterBackoff.Sleep(ctx, failures) // the loop looks at ctx
		failures++
	}
}

// produce tries letters once and returns those that have to be tried again.
func (d *deadLetters) produce(ctx context.Context, letters []*deadLetter) (failed []*deadLetter) {
	var ours []*deadLetter
	var records []*kafka.Letter
	for _, l := range letters {
		if l.a.ctx.Err() != nil {
			l.a.dropped()
			continue
		}
		ours, records = append(ours, l), append(records, l.letter)
	}
	for i, err := range d.producer.Produce(ctx, records...) {
		l := ours[i]
		if err == nil {
			d.metrics.deadLetters.WithLabelValues(l.reason).Inc()
			d.acknowledged(l)
			continue
		}
		d.metrics.deadLetterFailures.Inc()
		d.log.Warn("dead letter not taken, trying again", "partition", l.a.partition, "reason", l.reason, "err", err)
		failed = append(failed, l)
	}
	return failed
}
