package bridge_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/kafkatest"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
	"github.com/rollcall-platform/rollcall/workers/bridge"
)

// topics of a test in a shared Kafka.
type topics struct {
	admin *kadm.Client
}

func newTopics(t testing.TB, brokers []string) *topics {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return &topics{kadm.NewClient(cl)}
}

func (ts *topics) create(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		eventually(t, func() bool {
			r, err := ts.admin.CreateTopic(t.Context(), 2, 1, nil, name)
			return err == nil && r.Err == nil
		}, "topic %s is made", name)
	}
}

func (ts *topics) delete(t testing.TB, names ...string) {
	t.Helper()
	_, err := ts.admin.DeleteTopics(t.Context(), names...)
	require.NoError(t, err)
}

// Each of the bridge's topics is deleted and made anew under it: it says so, is
// not ready meanwhile, and goes on. What the MQTT broker has no PUBACK for comes
// again.
func TestBridgeGoesOnWithTopicsThatAreMadeAnew(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Brokers(t)
	ts, metrics := newTopics(t, brokers), prometheus.NewRegistry()
	events, replies, letters := "events-anew", "replies-anew", "letters-anew"
	ts.create(t, events, replies, letters)
	f := newForwarder(t, brokers, func(o *bridge.ForwarderOptions) {
		o.EventsTopic, o.RepliesTopic, o.DeadLetterTopic, o.Registerer = events, replies, letters, metrics
	})
	addr := mosquitto(t)
	start(t, addr, f)
	publish := edge(t, addr)
	publishes(publish, 2, 0, 10)
	require.NoError(t, f.Forward(bounded(t), topicOf(0), make([]byte, 2<<20)), "dead-lettered")
	require.NoError(t, readLog(t, brokers, events).wait(t, 2, 10))
	eventually(t, func() bool { return f.Ready() == nil }, "it is ready")

	ts.delete(t, events, letters)
	eventually(t, func() bool { return f.Ready() != nil }, "it is not ready")
	require.ErrorContains(t, f.Ready(), "does not exist")
	eventually(t, func() bool { return metrictest.Value(t, metrics, "rollcall_bridge_topic_missing") == 2 }, "it says of both that they are missing")
	published := make(chan struct{})
	go func() { defer close(published); publishes(publish, 2, 10, 10) }() // waits at the broker
	ts.create(t, events, letters)
	<-published
	holds(t, brokers, events, 10)
	require.NoError(t, f.Forward(bounded(t), topicOf(0), make([]byte, 2<<20)), "dead-lettered in the new topic")
	eventually(t, func() bool { return f.Ready() == nil }, "it is ready again")
	require.EqualValues(t, 1, metrictest.Value(t, metrics, "rollcall_bridge_topic_recreations_total", "topic", events))

	ts.delete(t, events) // and at once
	ts.create(t, events)
	publishes(publish, 2, 20, 10)
	holds(t, brokers, events, 10)
	eventually(t, func() bool { return f.Ready() == nil }, "it is ready again")
}

// holds waits until the topic holds count messages of each of two MQTT topics.
func holds(t testing.TB, brokers []string, topic string, count int) {
	t.Helper()
	l := readLog(t, brokers, topic)
	eventually(t, func() bool {
		got := l.first()
		return len(got[topicOf(0)]) == count && len(got[topicOf(1)]) == count
	}, "the new topic holds what was sent since")
}

// collector takes commands.
type collector struct {
	mu  sync.Mutex
	ids []string
}

func (c *collector) Publish(_ context.Context, m bridge.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids = append(c.ids, m.ID)
	return nil
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ids)
}

func TestDownlinkGoesOnWithTopicsThatAreMadeAnew(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Brokers(t)
	ts, reg, sink := newTopics(t, brokers), prometheus.NewRegistry(), &collector{}
	commands, letters := "commands-anew", "commands-letters-anew"
	ts.create(t, commands, letters)
	d, err := bridge.NewDownlink(bridge.DownlinkOptions{
		Kafka: kafka.Options{Brokers: brokers}, Publisher: sink, Topic: commands, DeadLetterTopic: letters, Group: "commands-anew",
		Logger: logger(t), Registerer: reg, CommitInterval: 100 * time.Millisecond,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	send := func(n int) {
		t.Helper()
		cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(commands), kgo.UnknownTopicRetries(-1))
		require.NoError(t, err)
		defer cl.Close()
		c := commandTo("RAE-1", n%3, n, time.Hour)
		topic, err := c.Topic()
		require.NoError(t, err)
		value, err := c.Encode()
		require.NoError(t, err)
		require.NoError(t, cl.ProduceSync(t.Context(), kgo.StringRecord("no command")).FirstErr())
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Key: []byte(topic), Value: value}).FirstErr())
	}
	send(1)
	eventually(t, func() bool { return sink.count() == 1 }, "a command goes down")
	eventually(t, func() bool { return d.Ready() == nil }, "it is ready")

	ts.delete(t, commands, letters)
	eventually(t, func() bool { return d.Ready() != nil }, "it is not ready")
	ts.create(t, letters, commands)
	send(2)
	eventually(t, func() bool { return sink.count() == 2 }, "a command of the new topic goes down")
	eventually(t, func() bool { return d.Ready() == nil }, "it is ready again")
	require.EqualValues(t, 1, metrictest.Value(t, reg, "rollcall_bridge_commands_topic_recreations_total", "topic", commands))
	dead := readLog(t, brokers, letters)
	eventually(t, func() bool { return len(dead.all()) == 1 }, "the new dead-letter topic too")

	_, err = ts.admin.CreatePartitions(t.Context(), 1, commands)
	require.NoError(t, err)
	added := time.Now()
	for n := 3; sink.count() < 12; n++ {
		before := sink.count()
		send(n)
		eventually(t, func() bool { return sink.count() > before }, "also from a partition that was added")
	}
	require.Less(t, time.Since(added), patience)
}

func TestQoS0IsOwedNoAck(t *testing.T) {
	t.Parallel()
	addr, fake := mosquitto(t), newKafka(t)
	s := start(t, addr, newForwarder(t, fake.ListenAddrs()), func(o *bridge.SubscriberOptions) { o.DrainTimeout = patience })
	ctx, cancel := context.WithCancel(context.Background())
	cm, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: addr}}, KeepAlive: 30, ClientConfig: paho.ClientConfig{ClientID: "careless"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { cancel(); <-cm.Done() })
	require.NoError(t, cm.AwaitConnection(bounded(t)))
	_, err = cm.Publish(bounded(t), &paho.Publish{Topic: topicOf(0), QoS: 0, Payload: []byte("0")})
	require.NoError(t, err)
	publishes(edge(t, addr), 2, 1, 5)
	l := readLogNow(t, fake)
	eventually(t, func() bool { return len(l.all()) == 11 }, "all is in Kafka, the one of QoS 0 too")
	eventually(t, func() bool { return s.pubacks.Load() == 10 }, "the others are acknowledged")
	began := time.Now()
	s.stop()
	<-s.done
	require.Less(t, time.Since(began), patience/2, "nothing waits for an ack that never comes")
}

func TestBrokerThatLostTheSessionIsTold(t *testing.T) {
	t.Parallel()
	broker, fake, metrics := newMosquitto(t), newKafka(t), prometheus.NewRegistry()
	s := start(t, broker.addr, newForwarder(t, fake.ListenAddrs()), func(o *bridge.SubscriberOptions) { o.Registerer = metrics })
	require.Zero(t, metrictest.Value(t, metrics, "rollcall_bridge_mqtt_sessions_lost_total"), "the first has none to lose")
	s.mu.Lock()
	for _, c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	eventually(t, func() bool { return metrictest.Value(t, metrics, "rollcall_bridge_mqtt_connections_total") == 2 }, "it is back")
	require.Zero(t, metrictest.Value(t, metrics, "rollcall_bridge_mqtt_sessions_lost_total"), "its session was there")

	broker.stop()
	stores, err := filepath.Glob(filepath.Join(filepath.Dir(broker.args[2]), "*.db"))
	require.NoError(t, err)
	require.NotEmpty(t, stores)
	for _, store := range stores {
		require.NoError(t, os.Remove(store))
	}
	broker.start()
	eventually(t, func() bool { return metrictest.Value(t, metrics, "rollcall_bridge_mqtt_sessions_lost_total") == 1 }, "it is told")
	eventually(t, func() bool { return s.Ready() == nil }, "and goes on")
}

func TestTwoBridgesOfOneClientIDAreCounted(t *testing.T) {
	t.Parallel()
	addr, fake, metrics := mosquitto(t), newKafka(t), prometheus.NewRegistry()
	f := newForwarder(t, fake.ListenAddrs())
	start(t, addr, f, func(o *bridge.SubscriberOptions) { o.Registerer = metrics })
	start(t, addr, f)
	eventually(t, func() bool { return metrictest.Value(t, metrics, "rollcall_bridge_mqtt_takeovers_total") >= 4 }, "each takeover is")
}
