package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"golang.org/x/sync/semaphore"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// HeaderReceived is the header of a record that says when the bridge had it, by
// its clock: RFC 3339 with milliseconds, UTC.
const HeaderReceived = "rollcall-received-at"

// ErrTopic is wrapped by the error for a topic that is not forwarded. Trying
// again cannot help.
var ErrTopic = errors.New("topic is not forwarded")

// ForwarderOptions of a Forwarder. Kafka is required.
type ForwarderOptions struct {
	// Kafka says how the cluster is reached.
	Kafka kafka.Options
	// KafkaOpts are appended to the forwarder's own, and win over them.
	KafkaOpts []kgo.Opt
	// EventsTopic, RepliesTopic and DeadLetterTopic default to
	// device.KafkaEvents, device.KafkaReplies and device.KafkaDeadLetters.
	EventsTopic, RepliesTopic, DeadLetterTopic string

	// Linger is how long a record waits for others to share a request.
	// Default 1 ms: a batch under load, hardly anything when it is light.
	// Negative: none.
	Linger time.Duration
	// MaxRecords and MaxBytes bound what waits for Kafka's ack; past them
	// forwarding blocks. Defaults 4,096 and 64 MiB.
	MaxRecords, MaxBytes int

	Logger     *slog.Logger          // default slog.Default
	Registerer prometheus.Registerer // default: metrics are kept and shown nowhere
	Now        func() time.Time      // default time.Now
}

// Forwarder produces MQTT messages to Kafka: the key is the MQTT topic, the
// value the payload as it came. It may be used by many goroutines.
//
// An outage fails nothing: records wait, in order, for as long as it takes. What can never be taken for its size goes to the
// dead-letter topic, shortened, and then counts as taken.
type Forwarder struct {
	opts          ForwarderOptions
	client        *kgo.Client
	metrics       *metrics
	ctx           context.Context // ends at Close
	cancel        context.CancelFunc
	letters       *kafka.DeadLetterProducer
	watch         *kafka.TopicWatch
	watching      sync.WaitGroup
	deadLettering sync.WaitGroup
	room          *semaphore.Weighted // in bytes; each record takes at least MaxBytes/MaxRecords

	waiting  atomic.Int64 // messages that wait for Kafka's acknowledgement
	progress atomic.Int64 // when Kafka last acknowledged one, or the first of these came, unix ns
}

// NewForwarder validates o and returns a Forwarder. It fails for no cluster that
// cannot be reached. Close it after use.
func NewForwarder(o ForwarderOptions) (*Forwarder, error) {
	or(&o.EventsTopic, device.KafkaEvents)
	or(&o.RepliesTopic, device.KafkaReplies)
	or(&o.DeadLetterTopic, device.KafkaDeadLetters)
	or(&o.Linger, time.Millisecond)
	or(&o.MaxRecords, 4096)
	or(&o.MaxBytes, 64<<20)
	or(&o.Logger, slog.Default())
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	access, err := o.Kafka.Opts()
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	if o.MaxRecords < 1 || o.MaxBytes < 1<<20 {
		return nil, fmt.Errorf("bridge: max records %d must be positive, and max bytes %d at least 1 MiB", o.MaxRecords, o.MaxBytes)
	}
	own := []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), // with the idempotent producer, the default: in order, each once
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerLinger(max(0, o.Linger)),
		kgo.MaxBufferedRecords(2 * o.MaxRecords), // the room is ours to give: this is never reached
		kgo.UnknownTopicRetries(-1),              // a topic that is not there yet is an outage
		// After an error of a partition the client tries again when it has new
		// metadata, which it does not ask for more often than this (default 5 s).
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.WithHooks(kprom.NewMetrics("rollcall_bridge", kprom.Subsystem("kafka"), kprom.Registerer(o.Registerer))),
	}
	client, err := kgo.NewClient(slices.Concat(own, access, o.KafkaOpts)...)
	if err != nil {
		return nil, fmt.Errorf("bridge: Kafka client: %w", err)
	}
	f := &Forwarder{opts: o, client: client, metrics: newMetrics(o.Registerer), room: semaphore.NewWeighted(int64(o.MaxBytes))}
	f.letters = kafka.NewDeadLetterProducer(o.DeadLetterTopic, client, o.Logger)
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.watch = kafka.NewTopicWatch(client, o.Logger, kafka.NewTopicMetrics(o.Registerer, "rollcall_bridge"),
		func(topic string) { client.PurgeTopicsFromProducing(topic) }, o.EventsTopic, o.RepliesTopic, o.DeadLetterTopic)
	f.letters.Failed = f.watch.Failed
	f.watching.Go(func() { f.watch.Run(f.ctx) })
	return f, nil
}

func or[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Wait returns when Kafka answers and has the topics, or with ctx's error.
func (f *Forwarder) Wait(ctx context.Context) error {
	return kafka.Wait(ctx, f.client, f.opts.Logger, f.opts.EventsTopic, f.opts.RepliesTopic, f.opts.DeadLetterTopic)
}

// unackedFor is how long Kafka may acknowledge nothing while messages wait.
const unackedFor = 10 * time.Second

// Ping returns nil when it is Ready, and Kafka answers now, has the topics with
// leaders, and acknowledges what it is given; else what is missing.
func (f *Forwarder) Ping(ctx context.Context) error {
	if err := f.Ready(); err != nil {
		return err
	}
	if err := kafka.Check(ctx, f.client, f.opts.EventsTopic, f.opts.RepliesTopic, f.opts.DeadLetterTopic); err != nil {
		return err
	}
	n, since := f.waiting.Load(), f.opts.Now().Sub(time.Unix(0, f.progress.Load()))
	if n > 0 && since > unackedFor {
		return fmt.Errorf("kafka has acknowledged nothing for %s, and %d messages wait", since.Round(time.Second), n)
	}
	return nil
}

// Ready is nil while Kafka answers and has the topics; else it says what is not.
func (f *Forwarder) Ready() error { return f.watch.Ready() }

// Forward returns nil when the message is durable: acknowledged by Kafka, or by
// the dead-letter topic. When it returns an error the message may still become
// so: what is given again may come twice.
func (f *Forwarder) Forward(ctx context.Context, topic string, payload []byte) error {
	result := make(chan error, 1)
	f.ForwardAsync(ctx, topic, payload, func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("forward %s: %w", topic, ctx.Err())
	}
}

// ForwardAsync is Forward without the wait: done is called once with its
// result, on another goroutine or on this one; it must not block. Messages that
// are given one after the other are produced in that order. It blocks while too
// much waits for Kafka, until ctx ends; once taken, a message is produced
// whatever becomes of ctx.
func (f *Forwarder) ForwardAsync(ctx context.Context, topic string, payload []byte, done func(error)) {
	to, err := f.route(topic)
	if err != nil {
		f.metrics.refused.Inc()
		done(err)
		return
	}
	size := int64(min(max(len(topic)+len(payload)+256, f.opts.MaxBytes/f.opts.MaxRecords), f.opts.MaxBytes))
	if err := f.room.Acquire(ctx, size); err != nil {
		f.metrics.failed.Inc()
		done(fmt.Errorf("forward %s: too much waits for Kafka: %w", topic, err))
		return
	}
	start := f.opts.Now()
	r := &kgo.Record{
		Topic: to, Key: []byte(topic), Value: bytes.Clone(payload), Timestamp: start,
		Headers: []kgo.RecordHeader{{Key: HeaderReceived, Value: []byte(start.UTC().Format("2006-01-02T15:04:05.000Z07:00"))}},
	}
	f.metrics.inFlight.Inc()
	if f.waiting.Add(1) == 1 {
		f.progress.Store(start.UnixNano())
	}
	finish := func(err error) {
		f.room.Release(size)
		f.metrics.inFlight.Dec()
		f.waiting.Add(-1)
		if err == nil {
			f.progress.Store(f.opts.Now().UnixNano())
			f.metrics.forwarded.WithLabelValues(to).Inc()
			f.metrics.seconds.Observe(f.opts.Now().Sub(start).Seconds())
		} else {
			f.metrics.failed.Inc()
			f.watch.Failed(to, err)
			err = fmt.Errorf("forward %s: %w", topic, err)
		}
		done(err)
	}
	// Not with the caller's context: when it ends, the client would fail the
	// whole batch, other callers' records too.
	f.client.Produce(f.ctx, r, func(r *kgo.Record, err error) {
		if !errors.Is(err, kerr.MessageTooLarge) {
			finish(err)
			return
		}
		f.deadLettering.Go(func() { finish(f.deadLetter(r, err)) })
	})
}

// route chooses the Kafka topic by the shape of the MQTT topic. A serial or
// session that is not well formed goes through: its event is dead-lettered where
// all events are checked.
func (f *Forwarder) route(topic string) (string, error) {
	p := strings.Split(topic, "/")
	if len(p) == 6 && p[0] == "rollcall" && p[1] == "v1" && p[3] == "sessions" {
		switch p[5] {
		case device.KindEvents:
			return f.opts.EventsTopic, nil
		case device.KindReplies:
			return f.opts.RepliesTopic, nil
		}
	}
	return "", fmt.Errorf("%w: %q", ErrTopic, topic)
}

// deadLetter gives to the dead-letter topic what Kafka refuses for its size.
func (f *Forwarder) deadLetter(r *kgo.Record, why error) error {
	origin := &kgo.Record{Topic: r.Topic, Partition: -1, Offset: -1, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
	letter := f.letters.Letter(origin, kafka.ReasonKafkaLimit, why.Error())
	letter.Truncate()
	if err := f.letters.Deliver(f.ctx, letter); err != nil {
		return err
	}
	f.metrics.deadLetters.WithLabelValues(kafka.ReasonKafkaLimit).Inc()
	f.opts.Logger.Warn("message dead-lettered: Kafka refuses its size", "topic", string(r.Key), "bytes", len(r.Value), "err", why)
	return nil
}

// Close waits until all that was given is acknowledged, or until ctx ends, and
// closes the client. What is not acknowledged then has not been promised.
func (f *Forwarder) Close(ctx context.Context) error {
	err := f.client.Flush(ctx)
	f.cancel()
	f.watching.Wait()
	f.client.Close()
	f.deadLettering.Wait()
	if err != nil {
		return fmt.Errorf("bridge: flush: %w", err)
	}
	return nil
}
