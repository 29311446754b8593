package request

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// Sender sends commands and waits for no replies. It may be used concurrently.
type Sender struct {
	client    *kgo.Client
	topic     string
	watch     *kafka.TopicWatch
	stopWatch context.CancelFunc // ends the watch
	watching  sync.WaitGroup
}

// NewSender returns a Sender for the topic, by default device.KafkaCommands. It
// waits for nothing: Kafka may come later. Its metrics, rollcall_commands_…, are
// registered with r, or nowhere where that is nil. Close the Sender after use.
func NewSender(o kafka.Options, topic string, r prometheus.Registerer, opts ...kgo.Opt) (*Sender, error) {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	if topic == "" {
		topic = device.KafkaCommands
	}
	access, err := o.Opts()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.UnknownTopicRetries(1),
		// A command that is late is sent anew by who wants it.
		kgo.RecordDeliveryTimeout(10 * time.Second),
	}, access...), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	s := &Sender{client: client, topic: topic}
	s.watch = kafka.NewTopicWatch(client, slog.Default(), kafka.NewTopicMetrics(r, "rollcall_commands"),
		func(topic string) { client.PurgeTopicsFromProducing(topic) }, topic)
	ctx, cancel := context.WithCancel(context.Background())
	s.stopWatch = cancel
	s.watching.Go(func() { s.watch.Run(ctx) })
	return s, nil
}

// Ready is nil while Kafka answers and has the topic; else it says what is not.
func (s *Sender) Ready() error { return s.watch.Ready() }

// Close ends the connections.
func (s *Sender) Close() {
	s.stopWatch()
	s.watching.Wait()
	s.client.Close()
}

// Ping returns nil when Kafka answers and has the topic with leaders; else what is
// missing.
func (s *Sender) Ping(ctx context.Context) error { return kafka.Check(ctx, s.client, s.topic) }

// Send returns nil when Kafka has the command.
func (s *Sender) Send(ctx context.Context, c device.Command) error {
	topic, err := c.Topic()
	if err != nil {
		return err
	}
	value, err := c.Encode()
	if err != nil {
		return err
	}
	record := &kgo.Record{Topic: s.topic, Key: []byte(topic), Value: value, Timestamp: time.Now()}
	if err := s.client.ProduceSync(ctx, record).FirstErr(); err != nil {
		s.watch.Failed(s.topic, err)
		return fmt.Errorf("produce command %s to %s: %w", c.ID, s.topic, reason(ctx, err))
	}
	return nil
}

// reason prefers why ctx ended to what that looked like.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return kafka.Explain(err)
}
