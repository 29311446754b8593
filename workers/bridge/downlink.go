package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"golang.org/x/sync/semaphore"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/offsets"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// DefaultGroup is the consumer group of the downlinks.
const DefaultGroup = "rollcall-bridge-commands"

// maxSpan bounds the records from the oldest command that waits for its RAE to
// the newest that was fetched. Of those that are done only the offsets are kept:
// the commit waits for the oldest.
const maxSpan = 100_000

// How long what failed waits for its next try.
var (
	deliveryBackoff = retry.Backoff{First: 200 * time.Millisecond, Max: 5 * time.Second} // a command
	fetchBackoff    = retry.Backoff{First: 100 * time.Millisecond, Max: 5 * time.Second} // a poll of Kafka
)

const (
	// maxBatch is what a producer's batch of commands may decompress to, in bytes.
	maxBatch = 16 << 20
	// maxPasses is of how many partitions one poll may pass such a batch.
	maxPasses = 256
)

// DownlinkOptions of a Downlink. Kafka and Publisher are required.
type DownlinkOptions struct {
	// Kafka says how the cluster is reached.
	Kafka kafka.Options
	// KafkaOpts are appended to the downlink's own, and win over them.
	KafkaOpts []kgo.Opt
	// Publisher gives commands to the MQTT broker.
	Publisher Publisher
	// Topic and DeadLetterTopic default to device.KafkaCommands and
	// device.KafkaDeadLetters.
	Topic, DeadLetterTopic string
	// Group shares the partitions among the downlinks. Default DefaultGroup.
	Group string
	// InstanceID makes the downlink a static member of the group (KIP-345):
	// one that was killed and started again has its partitions back at once,
	// while the partitions of one that does not come back wait for
	// SessionTimeout, also after an orderly stop. It must be no other's.
	// Default: none; then the same wait follows a kill alone.
	InstanceID string
	// SessionTimeout is how long Kafka waits for a member that is gone.
	// Commands do not live long: the default is 10 s.
	SessionTimeout time.Duration
	// MaxHeld bounds the commands that were fetched and are neither delivered
	// nor expired, of at most device.MaxCommandBytes each. Those for RAEs
	// that no broker knows are held until they expire; when they are so many,
	// the commands behind them wait. Default 1,024.
	MaxHeld int
	// CommitInterval is how often finished offsets are committed: what a
	// kill repeats. At least 100 ms. Default 1 s.
	CommitInterval time.Duration

	Logger     *slog.Logger          // default slog.Default
	Registerer prometheus.Registerer // default: metrics are kept and shown nowhere
	Now        func() time.Time      // default time.Now
}

// Downlink carries commands from Kafka to the MQTT broker.
//
// The offset of a command is committed when the broker has acknowledged it,
// when it has expired, or when it is in the dead-letter topic. The commands of
// one key go one after the other; different keys do not wait for each other, so
// that a RAE that is not there holds up nobody else. A command is delivered at
// least once: the edge does it once.
type Downlink struct {
	opts      DownlinkOptions
	kafka     []kgo.Opt
	client    *kgo.Client   // while it runs
	built     chan struct{} // closed when client is set: callbacks may come before
	metrics   *downMetrics
	held      *semaphore.Weighted
	span      *semaphore.Weighted
	oversized *kafka.Oversized
	letters   *kafka.DeadLetterProducer // from when it runs
	offsets   *offsets.Tracker
	ready     atomic.Bool
	watch     atomic.Pointer[kafka.TopicWatch] // while it runs
	topics    *kafka.TopicMetrics
	anew      kafka.Anew
	lanes     lanes
	running   sync.WaitGroup
}

// NewDownlink validates o and returns a Downlink. It connects when it runs.
func NewDownlink(o DownlinkOptions) (*Downlink, error) {
	or(&o.Topic, device.KafkaCommands)
	or(&o.DeadLetterTopic, device.KafkaDeadLetters)
	or(&o.Group, DefaultGroup)
	or(&o.SessionTimeout, 10*time.Second)
	or(&o.MaxHeld, 1024)
	or(&o.CommitInterval, time.Second)
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
	if o.Publisher == nil || o.MaxHeld < 1 || o.CommitInterval < 0 {
		return nil, errors.New("bridge: the downlink needs a publisher, and max held and commit interval above 0")
	}
	d := &Downlink{opts: o, built: make(chan struct{}), held: semaphore.NewWeighted(int64(o.MaxHeld)), span: semaphore.NewWeighted(maxSpan), lanes: lanes{queues: map[string][]*offsets.Record{}}}
	if d.oversized, err = kafka.NewOversized(maxBatch, access...); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	own := []kgo.Opt{
		kgo.ConsumerGroup(o.Group), kgo.ConsumeTopics(o.Topic),
		// A group without offsets takes what is there: what has expired is not sent.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(o.SessionTimeout), kgo.HeartbeatInterval(o.SessionTimeout / 4),
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(o.CommitInterval),
		kgo.BlockRebalanceOnPoll(), // what is polled is noted before its partition can go
		kgo.AdjustFetchOffsetsFn(d.locate),
		kgo.OnPartitionsAssigned(d.assigned), kgo.OnPartitionsRevoked(d.revoked), kgo.OnPartitionsLost(d.lost),
		kgo.FetchMaxBytes(4 << 20), kgo.FetchMaxPartitionBytes(1 << 20), kgo.MaxConcurrentFetches(1), d.oversized.Opt(),
		kgo.RequiredAcks(kgo.AllISRAcks()), // of dead letters
		kgo.UnknownTopicRetries(-1),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(10 * time.Second), // partitions that are added are read when it is renewed
		kgo.WithHooks(kprom.NewMetrics("rollcall_bridge", kprom.Subsystem("commands_kafka"), kprom.Registerer(o.Registerer))),
	}
	if o.InstanceID != "" {
		own = append(own, kgo.InstanceID(o.InstanceID))
	}
	d.kafka = slices.Concat(own, access, o.KafkaOpts)
	if err := kgo.ValidateOpts(d.kafka...); err != nil {
		return nil, fmt.Errorf("bridge: Kafka client of the downlink: %w", err)
	}
	d.offsets = offsets.NewTracker(o.Topic, func(m map[string]map[int32]kgo.EpochOffset) { d.client.MarkCommitOffsets(m) })
	d.metrics = newDownMetrics(o.Registerer)
	d.topics = kafka.NewTopicMetrics(o.Registerer, "rollcall_bridge_commands")
	return d, nil
}

// Ready is nil while Kafka answers and has the topics. That the group has given it partitions
// is not asked: there may be more downlinks than partitions.
func (d *Downlink) Ready() error {
	if !d.ready.Load() {
		return errors.New("downlink waits for Kafka")
	}
	return d.watch.Load().Ready()
}

// Ping returns nil when it is Ready, and Kafka answers now and has the topics with
// leaders; else what is missing.
func (d *Downlink) Ping(ctx context.Context) error {
	select {
	case <-d.built:
		if err := d.Ready(); err != nil {
			return err
		}
		return kafka.Check(ctx, d.client, d.opts.Topic, d.opts.DeadLetterTopic)
	default:
		return errors.New("downlink does not run")
	}
}

// Run carries commands until ctx ends. A Downlink runs once. Commands in flight are given up, and fetched again by whoever comes next.
func (d *Downlink) Run(ctx context.Context) error {
	var err error
	if d.client, err = kgo.NewClient(d.kafka...); err != nil {
		return fmt.Errorf("bridge: Kafka client of the downlink: %w", err)
	}
	d.letters = kafka.NewDeadLetterProducer(d.opts.DeadLetterTopic, d.client, d.opts.Logger)
	close(d.built)
	defer d.client.CloseAllowingRebalance()
	defer context.AfterFunc(ctx, d.offsets.Stop)()
	if kafka.Wait(ctx, d.client, d.opts.Logger, d.opts.Topic, d.opts.DeadLetterTopic) != nil {
		return nil
	}
	watch := kafka.NewTopicWatch(d.client, d.opts.Logger, d.topics, d.recreated, d.opts.Topic, d.opts.DeadLetterTopic)
	d.letters.Failed = watch.Failed
	d.watch.Store(watch)
	watching, stopWatching := context.WithCancel(ctx)
	var watches sync.WaitGroup
	watches.Go(func() { watch.Run(watching) })
	defer watches.Wait()
	defer stopWatching()
	d.ready.Store(true)
	defer d.ready.Store(false)
	for n := 0; ctx.Err() == nil; {
		failed := d.poll(ctx)
		if !failed {
			n = 0
			continue
		}
		_ = fetchBackoff.Sleep(ctx, n)
		n++
	}
	d.offsets.Stop()
	d.running.Wait()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := d.client.CommitMarkedOffsets(closing); err != nil {
		d.opts.Logger.Warn("offsets of commands not committed: some will be sent again", "err", err)
	}
	return nil
}

// recreated has the client forget the topic that was under the name before. The
// commands are read from the start of the new one: what has expired is not sent.
func (d *Downlink) recreated(topic string) {
	d.client.PurgeTopicsFromProducing(topic)
	if topic == d.opts.Topic {
		d.anew.Recreated()
		d.client.PurgeTopicsFromConsuming(topic)
		d.client.AddConsumeTopics(topic)
	}
}

// poll takes what there is room for. It reports whether Kafka failed.
func (d *Downlink) poll(ctx context.Context) (failed bool) {
	if d.held.Acquire(ctx, 1) != nil {
		return false
	}
	room := 1
	for room < d.opts.MaxHeld && room < 256 && d.held.TryAcquire(1) {
		room++
	}
	defer func() { d.held.Release(int64(room)) }()
	spare := int64(room) + maxPasses
	if d.span.Acquire(ctx, spare) != nil {
		return false
	}
	defer func() { d.span.Release(spare) }()
	fetches := d.client.PollRecords(ctx, room)
	defer d.client.AllowRebalance()
	fetches.EachRecord(func(r *kgo.Record) {
		own := d.offsets.Fetched(r)
		if own == nil {
			return // its partition has gone; whoever has it gets it
		}
		room, spare = room-1, spare-1
		d.metrics.held.Inc()
		d.take(own)
	})
	passing, cancel := context.WithTimeout(ctx, kafka.PassTimeout)
	defer cancel()
	fetches.EachError(func(topic string, partition int32, err error) {
		if spare == 0 {
			return // the next poll is told again
		}
		r, why, stuck := d.oversized.Pass(passing, d.client, topic, partition, err)
		switch {
		case r != nil:
			if d.pass(r, why) {
				spare--
			}
		case ctx.Err() == nil:
			err = cmp.Or(stuck, err)
			failed = true
			d.watch.Load().Failed(topic, err)
			d.opts.Logger.Warn("commands cannot be fetched, trying again", "topic", topic, "partition", partition, "err", kafka.Explain(err))
		}
	})
	return failed
}

// pass dead-letters the record that stands for a batch which would not fit
// memory. It counts as one that is open, and not as one that is held.
func (d *Downlink) pass(r *kgo.Record, why string) (open bool) {
	own := d.offsets.Fetched(r)
	if own == nil {
		return false
	}
	d.running.Go(func() {
		if d.deadLetter(own, &device.Invalid{Cause: kafka.ReasonDecompress, Detail: why}) {
			d.span.Release(int64(d.offsets.Done(own)))
		}
	})
	return true
}

func (d *Downlink) locate(ctx context.Context, starts map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	<-d.built
	d.anew.Place(starts[d.opts.Topic])
	kafka.Locate(ctx, d.client, d.opts.Logger, starts)
	return starts, nil
}

func (d *Downlink) assigned(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	d.offsets.Assign(parts[d.opts.Topic])
}

func (d *Downlink) revoked(ctx context.Context, cl *kgo.Client, parts map[string][]int32) {
	d.span.Release(int64(d.offsets.Revoke(parts[d.opts.Topic])))
	if err := cl.CommitMarkedOffsets(ctx); err != nil {
		d.opts.Logger.Warn("offsets of revoked partitions not committed: their commands will be sent again", "err", err)
	}
}

func (d *Downlink) lost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	d.span.Release(int64(d.offsets.Revoke(parts[d.opts.Topic])))
}

// lanes are the commands that are held, by key, each in order. A key with a
// queue has a goroutine.
type lanes struct {
	mu     sync.Mutex
	queues map[string][]*offsets.Record
}

func (d *Downlink) take(r *offsets.Record) {
	key := string(r.Key)
	d.lanes.mu.Lock()
	defer d.lanes.mu.Unlock()
	queue, busy := d.lanes.queues[key]
	d.lanes.queues[key] = append(queue, r)
	if !busy {
		d.running.Go(func() { d.work(key) })
	}
}

// work delivers the commands of one key until there are none.
func (d *Downlink) work(key string) {
	for {
		d.lanes.mu.Lock()
		queue := d.lanes.queues[key]
		if len(queue) == 0 {
			delete(d.lanes.queues, key)
			d.lanes.mu.Unlock()
			return
		}
		r := queue[0]
		d.lanes.queues[key] = queue[1:]
		d.lanes.mu.Unlock()
		if d.deliver(r) {
			d.span.Release(int64(d.offsets.Done(r)))
		}
		d.metrics.held.Dec()
		d.held.Release(1)
	}
}

// deliver reports whether the record is done with; if not, its context is done.
func (d *Downlink) deliver(r *offsets.Record) bool {
	ctx := r.Context()
	if ctx.Err() != nil {
		return false
	}
	topic := string(r.Key)
	c, err := device.DecodeCommand(topic, r.Value)
	if err != nil {
		return d.deadLetter(r, err)
	}
	response, err := device.SessionTopic(c.RAE, c.Session, device.KindReplies)
	if err != nil {
		return d.deadLetter(r, err)
	}
	for n := 0; ; n++ {
		now := d.opts.Now()
		if c.Expired(now) {
			d.metrics.commands.WithLabelValues(resultExpired).Inc()
			d.opts.Logger.Warn("command expired before the broker took it", "session", c.Session, "rae", c.RAE, "command", c.ID, "tries", n)
			return true
		}
		left := c.Expires.Sub(now)
		try, cancel := context.WithTimeout(ctx, left)
		err := d.opts.Publisher.Publish(try, Message{Topic: topic, Payload: r.Value, Expiry: left, ID: c.ID, Response: response})
		cancel()
		if err == nil {
			d.metrics.commands.WithLabelValues(resultSent).Inc()
			d.metrics.seconds.Observe(max(0, d.opts.Now().Sub(r.Timestamp).Seconds()))
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		why := retryFailed
		if errors.Is(err, ErrUnheard) {
			why = retryUnheard
		}
		d.metrics.retries.WithLabelValues(why).Inc()
		if n == 0 {
			d.opts.Logger.Warn("command not taken by the broker; trying again until it expires", "session", c.Session, "rae", c.RAE, "command", c.ID, "expires", c.Expires, "err", err)
		}
		if retry.Sleep(ctx, min(deliveryBackoff.Delay(n), max(0, c.Expires.Sub(d.opts.Now())))) != nil {
			return false
		}
	}
}

// deadLetter gives to the dead-letter topic what can never be a command. It
// reports whether that was acknowledged before r's context ended.
func (d *Downlink) deadLetter(r *offsets.Record, why error) bool {
	reason := kafka.ReasonTopic
	var invalid *device.Invalid
	if errors.As(why, &invalid) {
		reason = string(invalid.Cause)
	}
	letter := d.letters.Letter(r.Record, reason, why.Error())
	if len(r.Value) > device.MaxCommandBytes {
		letter.Truncate()
	}
	if d.letters.Deliver(r.Context(), letter) != nil {
		return false
	}
	d.metrics.commands.WithLabelValues(resultDeadLetter).Inc()
	d.opts.Logger.Warn("record dead-lettered: it is no command", "partition", r.Partition, "offset", r.Offset, "err", why)
	return true
}
