// Package replay reads what a topic holds between two offsets, and produces
// records again, for commands that a person waits for: one answer at a time,
// each within a bound, memory of one fetch.
package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// Options of a Log. Kafka is required.
type Options struct {
	Kafka kafka.Options
	// KafkaOpts are appended to the package's own, and win over them.
	KafkaOpts []kgo.Opt
	// Patience is how long Kafka may take to answer any one question, before
	// it is an error. Default 15 s.
	Patience time.Duration
}

// Log is Kafka, as far as records of the past go.
type Log struct {
	patience time.Duration
	access   []kgo.Opt
	client   *kgo.Client // for questions and for producing
	admin    *kadm.Client
}

// Open prepares a client. It does not connect. Close the Log after use.
func Open(o Options) (*Log, error) {
	if o.Patience == 0 {
		o.Patience = 15 * time.Second
	}
	access, err := o.Kafka.Opts()
	if err != nil {
		return nil, err
	}
	l := &Log{patience: o.Patience, access: slices.Concat(access, o.KafkaOpts)}
	l.client, err = kgo.NewClient(slices.Concat([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // as whoever produces events
		kgo.UnknownTopicRetries(1),
	}, l.access)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	l.admin = kadm.NewClient(l.client)
	return l, nil
}

// Close ends the connections.
func (l *Log) Close() { l.client.Close() }

// patiently bounds one question. An error of the bound says what it was.
func (l *Log) patiently(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.patience, fmt.Errorf("no answer within %s", l.patience))
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
func (l *Log) Retention(ctx context.Context, topic string) (keeps time.Duration, err error) {
	err = l.patiently(ctx, func(ctx context.Context) error {
		details, err := l.admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		switch d, ok := details[topic]; {
		case !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			return fmt.Errorf("topic %s does not exist", topic)
		case d.Err != nil:
			return fmt.Errorf("topic %s: %w", topic, d.Err)
		}
		configs, err := l.admin.DescribeTopicConfigs(ctx, topic)
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

// Span is what to read of a partition: offsets from, and up to and without To.
type Span struct {
	// TopicID is of which incarnation of the topic: see device.Position. Empty:
	// of whichever there is.
	TopicID   string
	Partition int32
	From, To  int64
}

// Bounds are the offsets that each partition has now, by partition.
func (l *Log) Bounds(ctx context.Context, topic string) (spans []Span, err error) {
	err = l.patiently(ctx, func(ctx context.Context) error {
		details, err := l.admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		topicID := device.TopicIDOf(details[topic].ID)
		starts, err := l.admin.ListStartOffsets(ctx, topic)
		if err != nil {
			return err
		}
		// Below what open transactions may yet add: a read would wait for them.
		ends, err := l.admin.ListCommittedOffsets(ctx, topic)
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
				spans = append(spans, Span{topicID, end.Partition, start.Offset, end.Offset})
			}
		})
		return nil
	})
	slices.SortFunc(spans, func(a, b Span) int { return int(a.Partition - b.Partition) })
	return spans, err
}

// Since is, by partition, the offset of the first record that is not older. A
// topic's timestamps may be in no order.
func (l *Log) Since(ctx context.Context, topic string, at time.Time) (map[int32]int64, error) {
	first := map[int32]int64{}
	err := l.patiently(ctx, func(ctx context.Context) error {
		offsets, err := l.admin.ListOffsetsAfterMilli(ctx, at.UnixMilli(), topic)
		if err != nil {
			return err
		}
		offsets.Each(func(o kadm.ListedOffset) {
			if o.Err == nil {
				first[o.Partition] = o.Offset
			}
		})
		return nil
	})
	return first, err
}

// ErrReplaced is wrapped where the topic was deleted and made again: what was at
// the span's offsets is not what is there now.
var ErrReplaced = errors.New("the topic was deleted and made again since")

// ErrEnough ends a Read early, without error.
var ErrEnough = errors.New("enough")

// Read calls f for each record of the span, in order. What retention took
// before it was read is left out without a word. A topic of another incarnation
// than the span's is ErrReplaced, before f is called for any of its records.
func (l *Log) Read(ctx context.Context, topic string, s Span, f func(*kgo.Record) error) error {
	if s.From >= s.To {
		return nil
	}
	client, err := kgo.NewClient(slices.Concat([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {s.Partition: kgo.NewOffset().At(s.From)}}),
		// What retention has taken meanwhile is gone.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// What a transaction took back was never there.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The end is a record too, whatever it is.
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(4 << 20), kgo.FetchMaxPartitionBytes(1 << 20), kgo.MaxConcurrentFetches(1),
		kgo.MaxDecompressBatchBytes(64 << 20),
		kgo.FetchMaxWait(500 * time.Millisecond),
	}, l.access)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	for {
		var fetches kgo.Fetches
		err := l.patiently(ctx, func(ctx context.Context) error {
			fetches = client.PollRecords(ctx, 1000)
			return fetches.Err()
		})
		if err != nil {
			return fmt.Errorf("read %s partition %d from offset %d: %w", topic, s.Partition, s.From, err)
		}
		replaced := false
		fetches.EachTopic(func(t kgo.FetchTopic) { replaced = s.TopicID != "" && device.TopicIDOf(t.TopicID) != s.TopicID })
		if replaced {
			return fmt.Errorf("read %s partition %d from offset %d: %w", topic, s.Partition, s.From, ErrReplaced)
		}
		for _, r := range fetches.Records() {
			if r.Offset < s.To && !r.Attrs.IsControl() {
				if err := f(r); errors.Is(err, ErrEnough) {
					return nil
				} else if err != nil {
					return err
				}
			}
			if r.Offset >= s.To-1 {
				return nil
			}
			s.From = r.Offset + 1
		}
	}
}

// Produce returns when every record was acknowledged by all replicas, or
// failed. Not by kgo.RecordDeliveryTimeout: that counts from a record's
// timestamp, and these may be old.
func (l *Log) Produce(ctx context.Context, records ...*kgo.Record) kgo.ProduceResults {
	ctx, cancel := context.WithTimeoutCause(ctx, l.patience, fmt.Errorf("not acknowledged within %s", l.patience))
	defer cancel()
	results := l.client.ProduceSync(ctx, records...)
	for i := range results {
		if err := results[i].Err; err != nil {
			results[i].Err = errors.Join(context.Cause(ctx), kafka.Explain(err))
		}
	}
	return results
}
