package request_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/request"
)

func command() device.Command {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return device.Command{
		ID: uuid.NewString(), Source: device.CommandSource("test"), RAE: "RAE-1", Session: uuid.NewString(),
		Action: device.ActionSnapshot, Time: now, Expires: now.Add(time.Minute),
	}
}

func open(t *testing.T) (*request.Requester, *kgo.Client) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, device.KafkaCommands, device.KafkaReplies))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	r, err := request.Open(t.Context(), request.Options{Kafka: kafka.Options{Brokers: c.ListenAddrs()}})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	edge, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(device.KafkaCommands),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	t.Cleanup(edge.Close)
	return r, edge
}

// answer plays the edges: it answers every command twice, the last of those it
// has first, with noise in between.
func answer(ctx context.Context, edge *kgo.Client) error {
	for {
		fetches := edge.PollFetches(ctx)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return nil
		}
		records := fetches.Records()
		for i := range records {
			c, err := device.DecodeCommand(string(records[len(records)-1-i].Key), records[len(records)-1-i].Value)
			if err != nil {
				return err
			}
			reply := device.Reply{Command: c.ID, RAE: c.RAE, Session: c.Session, Action: c.Action, Outcome: device.Refused, Detail: c.Reason, Time: c.Time}
			topic, _ := reply.Topic()
			value, err := reply.Encode()
			if err != nil {
				return err
			}
			noise := &kgo.Record{Topic: device.KafkaReplies, Key: []byte(topic), Value: []byte("{")}
			one := &kgo.Record{Topic: device.KafkaReplies, Key: []byte(topic), Value: value}
			two := &kgo.Record{Topic: device.KafkaReplies, Key: []byte(topic), Value: value}
			if err := edge.ProduceSync(ctx, noise, one, two).FirstErr(); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// Many ask at once, and each gets the reply to its own command.
func TestEachGetsItsOwnReply(t *testing.T) {
	r, edge := open(t)
	askAtOnce(t, r, edge)
}

// Batches of replies that would not fit memory take none of those behind them
// along.
func TestOversizedRepliesArePassedOver(t *testing.T) {
	r, edge := open(t)
	bomb, err := kgo.NewClient(kgo.SeedBrokers(edge.OptValue(kgo.SeedBrokers).([]string)...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(32<<20), kgo.BrokerMaxWriteBytes(64<<20))
	require.NoError(t, err)
	defer bomb.Close()
	for partition := range int32(3) {
		require.NoError(t, bomb.ProduceSync(t.Context(), &kgo.Record{Topic: device.KafkaReplies, Partition: partition, Value: make([]byte, 17<<20)}).FirstErr())
	}
	askAtOnce(t, r, edge)
}

// askAtOnce asks for enough that each of the three partitions has replies.
func askAtOnce(t *testing.T, r *request.Requester, edge *kgo.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	playing := make(chan error, 1)
	go func() { playing <- answer(ctx, edge) }()
	var asking sync.WaitGroup
	for i := range 20 {
		asking.Go(func() {
			c := command()
			c.Reason = fmt.Sprint(i)
			reply, err := r.Ask(ctx, c)
			if err != nil || reply.Command != c.ID || reply.Detail != c.Reason {
				t.Errorf("asked %s with reason %q, got %+v, %v", c.ID, c.Reason, reply, err)
			}
		})
	}
	asking.Wait()
	cancel()
	require.NoError(t, <-playing)
}

func TestNobodyAnswers(t *testing.T) {
	r, edge := open(t)
	bound, enough := context.WithTimeout(t.Context(), time.Minute)
	defer enough()
	ctx, cancel := context.WithCancelCause(bound)
	c := command()
	failed := make(chan error, 1)
	go func() {
		_, err := r.Ask(ctx, c)
		failed <- err
	}()
	for edge.PollFetches(bound).NumRecords() == 0 { // it has the command, and says nothing
		require.NoError(t, bound.Err())
	}
	next := c
	next.ID = uuid.NewString()
	require.NoError(t, r.Send(bound, next)) // acknowledged after the one before: that one waits for its reply
	cancel(errors.New("none in time"))
	err := <-failed
	require.ErrorContains(t, err, "none in time")
	require.ErrorContains(t, err, "until it expires")
}

func TestCloseWithoutAsking(t *testing.T) {
	r, _ := open(t)
	require.NoError(t, r.Send(t.Context(), command()))
	r.Close()
}
