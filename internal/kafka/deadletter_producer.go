package kafka

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

// DeadLetterBackoff is between two tries to produce dead letters.
var DeadLetterBackoff = retry.Backoff{First: 100 * time.Millisecond, Max: 15 * time.Second}

// Producer is what a DeadLetterProducer needs of a *kgo.Client. Its acks must be
// those of all in-sync replicas.
type Producer interface {
	ProduceSync(ctx context.Context, records ...*kgo.Record) kgo.ProduceResults
}

// DeadLetterProducer produces dead letters.
//
// Invariant: a letter counts as taken only when its produce was acknowledged.
// One that Kafka refuses for its size is truncated and produced again, once;
// whatever else fails is an outage, and nothing is dropped for it.
type DeadLetterProducer struct {
	topic  string
	client Producer
	log    *slog.Logger

	// Failed, where it is not nil, is told of each produce that failed; see
	// TopicWatch.Failed. Set it before the first letter.
	Failed func(topic string, err error)
}

// NewDeadLetterProducer returns a producer of letters to topic.
func NewDeadLetterProducer(topic string, client Producer, log *slog.Logger) *DeadLetterProducer {
	return &DeadLetterProducer{topic: topic, client: client, log: log}
}

// Letter is a dead letter that is to be produced. Not safe for concurrent use.
type Letter struct {
	record    *kgo.Record // never given to the client: it writes to what it produces
	truncated bool
}

// Letter returns the letter that tells of r; see DeadLetter.
func (p *DeadLetterProducer) Letter(r *kgo.Record, reason, detail string) *Letter {
	return &Letter{record: DeadLetter(p.topic, r, reason, detail)}
}

// Truncate makes l small before it is tried; see the function Truncate.
func (l *Letter) Truncate() {
	if !l.truncated {
		l.record, l.truncated = Truncate(l.record), true
	}
}

// Strip leaves of the record what names it: its coordinates, its key, and the size
// and hash of its value.
func (l *Letter) Strip() {
	l.Truncate()
	l.record.Value = nil
	l.record.Headers = slices.DeleteFunc(l.record.Headers, func(h kgo.RecordHeader) bool { return !strings.HasPrefix(h.Key, "rollcall-dlq-") })
}

// Bytes is what l takes in memory, about.
func (l *Letter) Bytes() int {
	n := 256 + len(l.record.Key) + len(l.record.Value)
	for _, h := range l.record.Headers {
		n += 64 + len(h.Key) + len(h.Value)
	}
	return n
}

// Produce tries each of the letters once and waits for the answers. It returns
// an error for each letter, by index: nil where its produce was acknowledged.
// The others may be given again.
func (p *DeadLetterProducer) Produce(ctx context.Context, letters ...*Letter) []error {
	errs := p.produce(ctx, letters)
	var large []*Letter
	var at []int // their indexes in letters
	for i, l := range letters {
		if errors.Is(errs[i], kerr.MessageTooLarge) && !l.truncated {
			l.Truncate()
			large, at = append(large, l), append(at, i)
		}
	}
	for n, err := range p.produce(ctx, large) {
		errs[at[n]] = err
	}
	return errs
}

func (p *DeadLetterProducer) produce(ctx context.Context, letters []*Letter) []error {
	if len(letters) == 0 {
		return nil
	}
	records, index := make([]*kgo.Record, len(letters)), make(map[*kgo.Record]int, len(letters))
	for i, l := range letters {
		r := *l.record
		records[i], index[&r] = &r, i
	}
	errs := make([]error, len(letters))
	for _, r := range p.client.ProduceSync(ctx, records...) {
		errs[index[r.Record]] = r.Err
		if r.Err != nil && p.Failed != nil {
			p.Failed(p.topic, r.Err)
		}
	}
	return errs
}

// Deliver produces l until that is acknowledged. It returns an error only when
// ctx ends first.
func (p *DeadLetterProducer) Deliver(ctx context.Context, l *Letter) error {
	for n := 0; ; n++ {
		err := p.Produce(ctx, l)[0]
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		p.log.Warn("dead letter not taken, trying again", "topic", Header(l.record, HeaderTopic), "partition", Header(l.record, HeaderPartition),
			"offset", Header(l.record, HeaderOffset), "reason", Header(l.record, HeaderReason), "err", err)
		if DeadLetterBackoff.Sleep(ctx, n) != nil {
			return err
		}
	}
}
