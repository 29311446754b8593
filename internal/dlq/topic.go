package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/replay"
)

// ErrNotFound is wrapped by the error for a coordinate without a letter.
var ErrNotFound = errors.New("no such letter")

// Options of a Topic. Kafka is required.
type Options struct {
	Kafka kafka.Options
	// KafkaOpts are appended to the package's own, and win over them.
	KafkaOpts []kgo.Opt
	// Topic is the dead-letter topic. Default device.KafkaDeadLetters.
	Topic string
	// Patience is how long Kafka may take to answer any one question, before
	// the command ends with an error. Default 15 s.
	Patience time.Duration
	Logger   *slog.Logger     // default slog.Default
	Now      func() time.Time // default time.Now
}

// Topic is a dead-letter topic.
type Topic struct {
	opts Options
	log  *replay.Log
}

// Open checks that Kafka answers and has the topic. Close the Topic after use.
func Open(ctx context.Context, o Options) (*Topic, error) {
	if o.Topic == "" {
		o.Topic = device.KafkaDeadLetters
	}
	if o.Patience == 0 {
		o.Patience = 15 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	log, err := replay.Open(replay.Options{
		Kafka: o.Kafka, Patience: o.Patience,
		KafkaOpts: slices.Concat([]kgo.Opt{kgo.RecordPartitioner(places{marks: o.Topic})}, o.KafkaOpts),
	})
	if err != nil {
		return nil, fmt.Errorf("dlq: %w", err)
	}
	t := &Topic{opts: o, log: log}
	if _, err := t.Retention(ctx, o.Topic); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close ends the connections.
func (t *Topic) Close() { t.log.Close() }

// places partitions by key, as whoever produces events does; a mark goes where
// its record says.
type places struct{ marks string }

func (p places) ForTopic(topic string) kgo.TopicPartitioner {
	if topic == p.marks {
		return kgo.ManualPartitioner().ForTopic(topic)
	}
	return kgo.StickyKeyPartitioner(nil).ForTopic(topic)
}

// Retention returns how long a topic keeps a record, by the record's
// timestamp; 0 is for ever, or not to be known. It fails when the topic does
// not exist.
func (t *Topic) Retention(ctx context.Context, topic string) (time.Duration, error) {
	return t.log.Retention(ctx, topic)
}

// read calls f for each record of the span, in order.
func (t *Topic) read(ctx context.Context, s replay.Span, f func(*kgo.Record) error) error {
	return t.log.Read(ctx, t.opts.Topic, s, f)
}
