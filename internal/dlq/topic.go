package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
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
	opts   Options
	access []kgo.Opt
	client *kgo.Client // for questions and for producing
	admin  *kadm.Client
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
	access, err := o.Kafka.Opts()
	if err != nil {
		return nil, err
	}
	t := &Topic{opts: o, access: slices.Concat(access, o.KafkaOpts)}
	t.client, err = kgo.NewClient(slices.Concat([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(places{marks: o.Topic}),
		kgo.UnknownTopicRetries(1),
	}, t.access)...)
	if err != nil {
		return nil, fmt.Errorf("dlq: Kafka client: %w", err)
	}
	t.admin = kadm.NewClient(t.client)
	if _, err := t.Retention(ctx, o.Topic); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close ends the connections.
func (t *Topic) Close() { t.client.Close() }

// places partitions by key, as whoever produces events does; a mark goes where
// its record says.
type places struct{ marks string }

func (p places) ForTopic(topic string) kgo.TopicPartitioner {
	if topic == p.marks {
		return kgo.ManualPartitioner().ForTopic(topic)
	}
	return kgo.StickyKeyPartitioner(nil).ForTopic(topic)
}

// patiently bounds one question. An error of the bound says what it was.
func (t *Topic) patiently(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.opts.Patience, fmt.Errorf("no answer within %s", t.opts.Patience))
	defer cancel()
	err := ask(ctx)
	if err != nil && ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return kafka.Explain(err)
}

// Retention returns how long the topic keeps a record, by the record's
// timestamp; 0 is for ever, or not to be known. It fails when the topic does
// not exist.
func (t *Topic) Retention(ctx context.Context, topic string) (keeps time.Duration, err error) {
	err = t.patiently(ctx, func(ctx context.Context) error {
		details, err := t.admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		switch d, ok := details[topic]; {
		case !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			return fmt.Errorf("topic %s does not exist", topic)
		case d.Err != nil:
			return fmt.Errorf("topic %s: %w", topic, d.Err)
		}
		configs, err := t.admin.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return nil // whoever may not ask for it may do the rest
		}
		for _, c := range configs {
			for _, e := range c.Configs {
				if e.Key == "retention.ms" && e.Value != nil {
					keeps, _ = time.ParseDuration(*e.Value + "ms")
				}
			}
		}
		return nil
	})
	return max(0, keeps), err
}

// span is what to read of a partition: offsets from, and up to and without to.
type span struct {
	partition int32
	from, to  int64
}

// bounds are the offsets that each partition has now, by partition.
func (t *Topic) bounds(ctx context.Context) (spans []span, err error) {
	err = t.patiently(ctx, func(ctx context.Context) error {
		starts, err := t.admin.ListStartOffsets(ctx, t.opts.Topic)
		if err != nil {
			return err
		}
		// Below what open transactions may yet add: a read would wait for them.
		ends, err := t.admin.ListCommittedOffsets(ctx, t.opts.Topic)
		if err != nil {
			return err
		}
		for _, o := range []kadm.ListedOffsets{starts, ends} {
			if err := o.Error(); err != nil {
				return err
			}
		}
		spans = spans[:0]
		ends.Each(func(end kadm.ListedOffset) {
			if start, ok := starts.Lookup(end.Topic, end.Partition); ok {
				spans = append(spans, span{end.Partition, start.Offset, end.Offset})
			}
		})
		return nil
	})
	slices.SortFunc(spans, func(a, b span) int { return int(a.partition - b.partition) })
	return spans, err
}

// errEnough ends a read early, without error.
var errEnough = errors.New("enough")

// read calls f for each record of the span, in order.
func (t *Topic) read(ctx context.Context, s span, f func(*kgo.Record) error) error {
	if s.from >= s.to {
		return nil
	}
	client, err := kgo.NewClient(slices.Concat([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.opts.Topic: {s.partition: kgo.NewOffset().At(s.from)}}),
		// What retention has taken meanwhile is gone.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// What a transaction took back was never there.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The end is a record too, whatever it is.
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(4 << 20), kgo.FetchMaxPartitionBytes(1 << 20), kgo.MaxConcurrentFetches(1),
		kgo.MaxDecompressBatchBytes(64 << 20),
		kgo.FetchMaxWait(500 * time.Millisecond),
	}, t.access)...)
	if err != nil {
		return fmt.Errorf("dlq: Kafka client: %w", err)
	}
	defer client.Close()
	for {
		var fetches kgo.Fetches
		err := t.patiently(ctx, func(ctx context.Context) error {
			fetches = client.PollRecords(ctx, 1000)
			return fetches.Err()
		})
		if err != nil {
			return fmt.Errorf("read %s partition %d from offset %d: %w", t.opts.Topic, s.partition, s.from, err)
		}
		for _, r := range fetches.Records() {
			if r.Offset < s.to && !r.Attrs.IsControl() {
				if err := f(r); errors.Is(err, errEnough) {
					return nil
				} else if err != nil {
					return err
				}
			}
			if r.Offset >= s.to-1 {
				return nil
			}
			s.from = r.Offset + 1
		}
	}
}
