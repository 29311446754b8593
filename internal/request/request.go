// Package request sends a command to an edge and waits for its reply, over
// Kafka, for one who asks now and then: it reads the topic of replies from its
// end on, without a consumer group.
package request

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
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

// Requester sends commands and reads replies.
type Requester struct {
	opts   Options
	client *kgo.Client
}

// Open notes where the topic of replies ends, so that no reply to what is sent
// from now on is missed. Close the Requester after use.
func Open(ctx context.Context, o Options) (*Requester, error) {
	if o.CommandsTopic == "" {
		o.CommandsTopic = device.KafkaCommands
	}
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
	client, err := kgo.NewClient(append(append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.UnknownTopicRetries(1),
	}, access...), o.KafkaOpts...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	r := &Requester{opts: o, client: client}
	if err := r.listen(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return r, nil
}

// Close ends the connections.
func (r *Requester) Close() { r.client.Close() }

func (r *Requester) listen(ctx context.Context) error {
	ends, err := kadm.NewClient(r.client).ListEndOffsets(ctx, r.opts.RepliesTopic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("end of topic %s: %w", r.opts.RepliesTopic, reason(ctx, err))
	}
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) { from[o.Partition] = kgo.NewOffset().At(o.Offset) })
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.opts.RepliesTopic: from})
	return nil
}

// reason prefers why ctx ended to what that looked like.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return kafka.Explain(err)
}

// Send returns nil when Kafka has the command.
func (r *Requester) Send(ctx context.Context, c device.Command) error {
	topic, err := c.Topic()
	if err != nil {
		return err
	}
	value, err := c.Encode()
	if err != nil {
		return err
	}
	record := &kgo.Record{Topic: r.opts.CommandsTopic, Key: []byte(topic), Value: value, Timestamp: time.Now()}
	if err := r.client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return fmt.Errorf("produce command %s to %s: %w", c.ID, r.opts.CommandsTopic, reason(ctx, err))
	}
	return nil
}

// Await returns the first reply to the command, or ctx's cause. What is no
// reply is passed over: others look after it. It is called by one goroutine.
func (r *Requester) Await(ctx context.Context, command string) (device.Reply, error) {
	for {
		fetches := r.client.PollFetches(ctx)
		if err := context.Cause(ctx); err != nil {
			return device.Reply{}, fmt.Errorf("reply to command %s: %w", command, err)
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			r.opts.Logger.Warn("replies cannot be read, trying again", "topic", topic, "partition", partition, "err", err)
		})
		for _, record := range fetches.Records() {
			if reply, err := device.DecodeReply(string(record.Key), record.Value); err == nil && reply.Command == command {
				return reply, nil
			}
		}
	}
}
