// Package request sends commands to edges and waits for their replies, over
// Kafka, for one who asks now and then: it reads the topic of replies from its
// end on, without a consumer group.
package request

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// Options of a Requester. Kafka is required.
type Options struct {
	Kafka kafka.Options
	// KafkaOpts are appended to the package's own, and win over them.
	KafkaOpts []kgo.Opt
	// CommandsTopic and RepliesTopic default to device.KafkaCommands and
	// device.KafkaReplies.
	CommandsTopic, RepliesTopic string
	Logger                      *slog.Logger // default slog.Default
}

var listenBackoff = retry.Backoff{First: 250 * time.Millisecond, Max: 5 * time.Second}

// maxBatch is what a batch of replies may decompress to, in bytes.
const maxBatch = 16 << 20

// Requester is a Sender that can wait for the replies. Its methods may be called
// concurrently.
type Requester struct {
	*Sender
	opts        Options
	stopReplies context.CancelFunc // ends the watch over the topic of replies

	oversized *kafka.Oversized
	replies   *kafka.TopicWatch

	reading sync.Once // from the first Ask on
	stop    context.CancelFunc
	read    sync.WaitGroup

	mu    sync.Mutex
	asked map[string]chan device.Reply // by the command's ID; holds the first reply
	next  map[int32]kgo.EpochOffset    // what is read next, by partition of the replies
}

// Open notes where the topic of replies ends, so that no reply to what is sent
// from now on is missed. Close the Requester after use.
func Open(ctx context.Context, o Options) (*Requester, error) {
	if o.RepliesTopic == "" {
		o.RepliesTopic = device.KafkaReplies
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	access, err := o.Kafka.Opts()
	if err != nil {
		return nil, err
	}
	oversized, err := kafka.NewOversized(maxBatch, access...)
	if err != nil {
		return nil, err
	}
	sender, err := NewSender(o.Kafka, o.CommandsTopic, nil, append([]kgo.Opt{oversized.Opt()}, o.KafkaOpts...)...)
	if err != nil {
		return nil, err
	}
	r := &Requester{Sender: sender, opts: o, oversized: oversized, next: map[int32]kgo.EpochOffset{}, stop: func() {}, asked: map[string]chan device.Reply{}}
	if err := r.listen(ctx, false); err != nil {
		sender.Close()
		return nil, err
	}
	watching, stopWatch := context.WithCancel(context.Background())
	r.stopReplies = stopWatch
	r.replies = kafka.NewTopicWatch(r.client, o.Logger, kafka.NewTopicMetrics(prometheus.NewRegistry(), "rollcall_replies"),
		func(string) { r.listenAnew(watching) }, o.RepliesTopic)
	r.watching.Go(func() { r.replies.Run(watching) })
	return r, nil
}

// Close ends the connections. Nobody may ask any more.
func (r *Requester) Close() {
	r.reading.Do(func() {})
	r.stop()
	r.stopReplies()
	r.Sender.Close()
	r.read.Wait()
}

// listenAnew reads the topic that is now under the name, from its start: a reply to
// what was sent before may be in it.
func (r *Requester) listenAnew(ctx context.Context) {
	r.client.PurgeTopicsFromConsuming(r.opts.RepliesTopic)
	for n := 0; ; n++ {
		err := r.listen(ctx, true)
		if err == nil || ctx.Err() != nil {
			return
		}
		r.opts.Logger.Warn("replies cannot be read, trying again", "topic", r.opts.RepliesTopic, "err", err)
		if listenBackoff.Sleep(ctx, n) != nil {
			return
		}
	}
}

// listen reads from the end of the topic of replies on, or from its start.
func (r *Requester) listen(ctx context.Context, fromStart bool) error {
	list := kadm.NewClient(r.client).ListEndOffsets
	if fromStart {
		list = kadm.NewClient(r.client).ListStartOffsets
	}
	ends, err := list(ctx, r.opts.RepliesTopic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("end of topic %s: %w", r.opts.RepliesTopic, reason(ctx, err))
	}
	from := map[int32]kgo.Offset{}
	r.mu.Lock()
	ends.Each(func(o kadm.ListedOffset) {
		from[o.Partition] = kgo.NewOffset().At(o.Offset)
		r.next[o.Partition] = kgo.EpochOffset{Epoch: o.LeaderEpoch, Offset: o.Offset}
	})
	r.mu.Unlock()
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.opts.RepliesTopic: from})
	return nil
}

// Ask sends the command and returns the first reply to it, or ctx's cause. A
// command that nobody waits for any more may still be done until it expires.
func (r *Requester) Ask(ctx context.Context, c device.Command) (device.Reply, error) {
	r.reading.Do(func() {
		var reading context.Context
		reading, r.stop = context.WithCancel(context.Background())
		r.read.Go(func() { r.readReplies(reading) })
	})
	reply := make(chan device.Reply, 1)
	r.mu.Lock()
	r.asked[c.ID] = reply
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.asked, c.ID)
	}()
	if err := r.Send(ctx, c); err != nil {
		return device.Reply{}, err
	}
	select {
	case reply := <-reply:
		return reply, nil
	case <-ctx.Done():
		return device.Reply{}, fmt.Errorf("reply to command %s: %w; the command stays until it expires, at %s", c.ID, context.Cause(ctx), c.Expires.Format(time.RFC3339))
	}
}

// readReplies gives each reply to whoever waits for it. What is no reply, or
// answers nobody here, is passed over: others look after it.
func (r *Requester) readReplies(ctx context.Context) {
	for {
		fetches := r.client.PollFetches(ctx)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return
		}
		failed := false
		passing, cancel := context.WithTimeout(ctx, kafka.PassTimeout)
		fetches.EachError(func(topic string, partition int32, err error) {
			failed = true
			r.replies.Failed(topic, err)
			r.mu.Lock()
			next := r.next[partition]
			r.mu.Unlock()
			passed, why, stuck := r.oversized.PassFrom(passing, r.client, next, topic, partition, err)
			if passed == nil {
				r.opts.Logger.Warn("replies cannot be read, trying again", "topic", topic, "partition", partition, "err", cmp.Or(stuck, err))
				return
			}
			r.advance(partition, kgo.EpochOffset{Epoch: -1, Offset: passed.Offset + 1})
			r.opts.Logger.Warn("replies passed over", "topic", topic, "partition", partition, "err", why)
		})
		cancel()
		fetches.EachRecord(func(record *kgo.Record) {
			r.advance(record.Partition, kgo.EpochOffset{Epoch: record.LeaderEpoch, Offset: record.Offset + 1})
			if reply, err := device.DecodeReply(string(record.Key), record.Value); err == nil {
				r.deliver(reply)
			}
		})
		if failed {
			_ = retry.Sleep(ctx, 250*time.Millisecond)
		}
	}
}

func (r *Requester) advance(partition int32, next kgo.EpochOffset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next[partition] = next
}

func (r *Requester) deliver(reply device.Reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.asked[reply.Command] <- reply:
	default: // nobody asked, or a repetition
	}
}
