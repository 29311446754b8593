package request_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/kafkatest"
	"github.com/rollcall-platform/rollcall/internal/request"
)

// Commands and replies are topics that are deleted and made anew between two
// questions.
func TestAsksOnOverTopicsThatAreMadeAnew(t *testing.T) {
	const patience = time.Minute
	brokers := kafkatest.Brokers(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	admin := kadm.NewClient(cl)
	commands, replies := "commands-"+uuid.NewString(), "replies-"+uuid.NewString()
	create := func() {
		for _, topic := range []string{commands, replies} {
			require.Eventually(t, func() bool {
				r, err := admin.CreateTopic(t.Context(), 2, 1, nil, topic)
				return err == nil && r.Err == nil
			}, patience, 20*time.Millisecond)
		}
	}
	create()
	var r *request.Requester
	require.Eventually(t, func() bool { // the broker knows a new topic a little later
		r, err = request.Open(t.Context(), request.Options{Kafka: kafka.Options{Brokers: brokers}, CommandsTopic: commands, RepliesTopic: replies})
		return err == nil
	}, patience, 100*time.Millisecond)
	t.Cleanup(r.Close)

	ask := func() error { // and play the edge, over connections of its own
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		edge, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(commands), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
		require.NoError(t, err)
		defer edge.Close()
		go func() {
			for ctx.Err() == nil {
				for _, record := range edge.PollFetches(ctx).Records() {
					c, err := device.DecodeCommand(string(record.Key), record.Value)
					if err != nil {
						continue
					}
					reply := device.Reply{Command: c.ID, RAE: c.RAE, Session: c.Session, Action: c.Action, Outcome: device.Refused, Detail: "no", Time: c.Time}
					topic, _ := reply.Topic()
					value, _ := reply.Encode()
					edge.Produce(ctx, &kgo.Record{Topic: replies, Key: []byte(topic), Value: value}, nil)
				}
			}
		}()
		_, err = r.Ask(ctx, command())
		return err
	}
	require.NoError(t, ask())
	require.NoError(t, r.Ready())

	_, err = admin.DeleteTopics(t.Context(), commands, replies)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.Ready() != nil }, patience, 20*time.Millisecond, "the topic is missed")
	create()
	require.Eventually(t, func() bool { return ask() == nil }, patience, 100*time.Millisecond, "it asks on")
	require.Eventually(t, func() bool { return r.Ready() == nil }, patience, 20*time.Millisecond, "and is ready")
}
