package bridge_test

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/workers/bridge"
)

func TestForwardsByTheShapeOfTheTopic(t *testing.T) {
	t.Parallel()
	fake := newKafka(t)
	f := newForwarder(t, fake.ListenAddrs(), func(o *bridge.ForwarderOptions) {
		o.Now = func() time.Time { return time.UnixMilli(1_700_000_000_123) }
	})
	require.NoError(t, f.Wait(bounded(t)))
	session := "rollcall/v1/r/sessions/00000000-0000-4000-8000-000000000001/"
	require.NoError(t, f.Forward(bounded(t), session+"events", []byte("payload\x00as it is")))
	require.NoError(t, f.Forward(bounded(t), session+"replies", nil))
	require.NoError(t, f.Forward(bounded(t), "rollcall/v1/r/sessions/no-uuid/events", []byte("e")), "the poller dead-letters it")
	for _, topic := range []string{session + "commands", "rollcall/v1/r/presence", "rollcall/v1/r/sessions/x/y/events", "rollcall/v2/r/sessions/x/events", ""} {
		require.ErrorIs(t, f.Forward(bounded(t), topic, nil), bridge.ErrTopic)
	}
	events, replies := readLog(t, fake.ListenAddrs(), device.KafkaEvents), readLog(t, fake.ListenAddrs(), device.KafkaReplies)
	eventually(t, func() bool { return len(events.all()) == 2 && len(replies.all()) == 1 }, "all is there")
	i := slices.IndexFunc(events.all(), func(r *kgoRecord) bool { return string(r.Key) == session+"events" })
	r := events.all()[i]
	require.Equal(t, "payload\x00as it is", string(r.Value))
	require.Equal(t, "2023-11-14T22:13:20.123Z", kafka.Header(r, bridge.HeaderReceived))
}

func TestForwardReturnsOnlyAfterKafkasAck(t *testing.T) {
	t.Parallel()
	fake := newKafka(t)
	f := newForwarder(t, fake.ListenAddrs())
	var open atomic.Bool
	fault := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1, When: func(kmsg.Request) bool { return !open.Load() }})
	ctx := bounded(t)
	result := make(chan error, 1)
	f.ForwardAsync(ctx, topicOf(0), []byte("b"), func(err error) { result <- err })
	require.NoError(t, fault.Wait(ctx, 2))
	require.Empty(t, result)
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	require.ErrorIs(t, f.Forward(short, topicOf(1), []byte("a")), context.DeadlineExceeded)
	open.Store(true)
	require.NoError(t, <-result)
}

func TestForwardDeadLettersWhatKafkaNeverTakes(t *testing.T) {
	t.Parallel()
	fake := newKafka(t)
	f := newForwarder(t, fake.ListenAddrs())
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: device.KafkaDeadLetters, Err: kerr.TopicAuthorizationFailed, Count: 2})
	payload := bytes.Repeat([]byte("x"), 2<<20)
	require.NoError(t, f.Forward(bounded(t), topicOf(0), payload))
	l := readLog(t, fake.ListenAddrs(), device.KafkaDeadLetters)
	eventually(t, func() bool { return len(l.all()) == 1 }, "dead-lettered")
	r := l.all()[0]
	require.Equal(t, topicOf(0), string(r.Key))
	require.Equal(t, kafka.ReasonKafkaLimit, kafka.Header(r, kafka.HeaderReason))
	require.Equal(t, device.KafkaEvents, kafka.Header(r, kafka.HeaderTopic))
	require.Equal(t, strconv.Itoa(len(payload)), kafka.Header(r, kafka.HeaderSize))
}

func TestPubackOnlyAfterKafkasAck(t *testing.T) {
	t.Parallel()
	addr, fake := mosquitto(t), newKafka(t)
	var open atomic.Bool
	fault := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1, When: func(kmsg.Request) bool { return !open.Load() }})
	s := start(t, addr, newForwarder(t, fake.ListenAddrs()))
	publish := edge(t, addr)
	publishes(publish, 3, 0, 5)
	require.NoError(t, fault.Wait(bounded(t), 3))
	require.Zero(t, s.pubacks.Load())
	open.Store(true)
	eventually(t, func() bool { return s.pubacks.Load() >= 15 }, "all is acknowledged")
	require.NoError(t, readLogNow(t, fake).wait(t, 3, 5))
}

func TestKafkaDownThenUp(t *testing.T) {
	t.Parallel()
	addr, dir, port := mosquitto(t), t.TempDir(), porttest.Port(t)
	fake := newKafka(t, kfake.DataDir(dir), kfake.Ports(port))
	brokers := fake.ListenAddrs()
	s := start(t, addr, newForwarder(t, brokers))
	publish := edge(t, addr)
	publishes(publish, 4, 0, 20)
	eventually(t, func() bool { return s.pubacks.Load() >= 80 }, "the first are through")
	fake.Close()
	publishes(publish, 4, 20, 60)
	fake = newKafka(t, kfake.DataDir(dir), kfake.Ports(port))
	publishes(publish, 4, 80, 20)
	require.NoError(t, readLogNow(t, fake).wait(t, 4, 100))
	eventually(t, func() bool { return s.Ready() == nil }, "it is connected")
}

// A failure that is not an outage costs the connection; the broker delivers again.
func TestRefusedProduceIsRedelivered(t *testing.T) {
	t.Parallel()
	addr, fake := mosquitto(t), newKafka(t)
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: device.KafkaEvents, Err: kerr.TopicAuthorizationFailed, Count: 3})
	metrics := prometheus.NewRegistry()
	start(t, addr, newForwarder(t, fake.ListenAddrs()), func(o *bridge.SubscriberOptions) { o.Registerer = metrics })
	publishes(edge(t, addr), 1, 0, 50)
	l := readLogNow(t, fake)
	eventually(t, func() bool { return len(l.first()[topicOf(0)]) == 50 }, "all of them, in whatever order")
	require.Positive(t, metrictest.Value(t, metrics, "rollcall_bridge_mqtt_disconnects_total"))
}

func TestBridgeKilledMidStream(t *testing.T) {
	t.Parallel()
	addr, fake := mosquitto(t), newKafka(t)
	publish := edge(t, addr)
	published := make(chan struct{})
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	var s *front
	for round := range 4 {
		f := newForwarder(t, fake.ListenAddrs())
		s = start(t, addr, f)
		if round == 0 {
			go func() { defer close(published); publishes(publish, 5, 0, 200) }()
		}
		if round == 3 {
			break // this one may live
		}
		eventually(t, func() bool { // on a slow day the earlier rounds leave less
			select {
			case <-published:
				return true
			default:
				return s.pubacks.Load() > 40
			}
		}, "it works")
		s.cut()
		_ = f.Close(dead)
		s.stop()
	}
	<-published
	require.NoError(t, readLogNow(t, fake).wait(t, 5, 200))
}

func TestStopKeepsTheSession(t *testing.T) {
	t.Parallel()
	addr, fake := mosquitto(t), newKafka(t)
	f := newForwarder(t, fake.ListenAddrs())
	s := start(t, addr, f)
	publish := edge(t, addr)
	publishes(publish, 2, 0, 30)
	l := readLogNow(t, fake)
	require.NoError(t, l.wait(t, 2, 30))
	s.stop()
	<-s.done
	publishes(publish, 2, 30, 30) // while nobody listens
	s = start(t, addr, f)
	publishes(publish, 1, 60, 1) // comes behind what waited
	eventually(t, func() bool { return strings.HasPrefix(l.last(topicOf(0)), `{"n":60,`) }, "the newest")
	require.NoError(t, l.complete(1, 61), "what was published while nobody listened is not lost")
	require.NoError(t, l.wait(t, 2, 60))
	eventually(t, func() bool { return s.pubacks.Load() >= 61 }, "all is acknowledged")
}

// What Kafka had acknowledged when the bridge was stopped is acknowledged to the
// broker too: it does not come again.
func TestStopFlushesAcks(t *testing.T) {
	t.Parallel()
	addr, fake := mosquitto(t), newKafka(t)
	f := &gated{Forwarder: newForwarder(t, fake.ListenAddrs()), gate: make(chan struct{})}
	s := start(t, addr, f, func(o *bridge.SubscriberOptions) { o.DrainTimeout = patience })
	publishes(edge(t, addr), 1, 0, 20)
	eventually(t, func() bool { return f.given.Load() == 20 }, "all is in flight")
	s.stop()
	close(f.gate)
	<-s.done
	require.EqualValues(t, 20, s.pubacks.Load())
}

// gated holds results back.
type gated struct {
	*bridge.Forwarder
	gate  chan struct{}
	given atomic.Int64
}

func (g *gated) ForwardAsync(ctx context.Context, topic string, payload []byte, done func(error)) {
	g.given.Add(1)
	g.Forwarder.ForwardAsync(ctx, topic, payload, func(err error) { go func() { <-g.gate; done(err) }() })
}

func TestOptionsAreRefusedBeforeAnythingStarts(t *testing.T) {
	f := newForwarder(t, []string{"127.0.0.1:1"})
	for want, change := range map[string]func(*bridge.SubscriberOptions){
		"no forwarder":      func(o *bridge.SubscriberOptions) { o.Forwarder = nil },
		"holds a user":      func(o *bridge.SubscriberOptions) { o.Broker.URL = "mqtt://user:secret@127.0.0.1" },
		"neither mqtt":      func(o *bridge.SubscriberOptions) { o.Broker.URL = "http://127.0.0.1" },
		"without TLS":       func(o *bridge.SubscriberOptions) { o.Broker.URL = "mqtt://broker.example" },
		"shared":            func(o *bridge.SubscriberOptions) { o.Filters = []string{"$share/g/rollcall/v1/#"} },
		"does not begin":    func(o *bridge.SubscriberOptions) { o.Filters = []string{"#"} },
		"outside what MQTT": func(o *bridge.SubscriberOptions) { o.KeepAlive = time.Millisecond },
		"not positive":      func(o *bridge.SubscriberOptions) { o.DrainTimeout = -1 },
	} {
		t.Run(want, func(t *testing.T) {
			o := bridge.SubscriberOptions{Broker: mqtt.Broker{URL: "mqtt://127.0.0.1"}, Forwarder: f}
			change(&o)
			_, err := bridge.NewSubscriber(o)
			require.ErrorContains(t, err, want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	_, err := bridge.NewForwarder(bridge.ForwarderOptions{})
	require.ErrorContains(t, err, "no brokers")
}

func TestMetricNamesAreFrozen(t *testing.T) {
	t.Parallel()
	fake, metrics := newKafka(t), prometheus.NewRegistry()
	f := newForwarder(t, fake.ListenAddrs(), func(o *bridge.ForwarderOptions) { o.Registerer = metrics })
	_, err := bridge.NewSubscriber(bridge.SubscriberOptions{Broker: mqtt.Broker{URL: "mqtt://127.0.0.1"}, Forwarder: f, Registerer: metrics})
	require.NoError(t, err)
	require.NoError(t, f.Forward(bounded(t), topicOf(0), make([]byte, 2<<20)))
	families, err := metrics.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "rollcall_bridge_kafka_") {
			names = append(names, strings.TrimPrefix(f.GetName(), "rollcall_bridge_"))
		}
	}
	require.Equal(t, []string{
		"dead_letters_total", "failed_total", "forward_seconds", "forwarded_total", "in_flight", "mqtt_connected",
		"mqtt_connections_total", "mqtt_disconnects_total", "mqtt_sessions_lost_total", "mqtt_takeovers_total",
		"received_total", "refused_total", "topic_missing", "topic_recreations_total",
	}, names)
}

// A caller that gave up must not stand in the way of the next.
func TestForwardAfterOneThatWasGivenUp(t *testing.T) {
	t.Parallel()
	fake := newKafka(t)
	f := newForwarder(t, fake.ListenAddrs())
	fault := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, f.Forward(short, topicOf(0), []byte("a")), context.DeadlineExceeded)
	fault.Remove()
	require.NoError(t, f.Forward(bounded(t), topicOf(0), []byte("b")))
}
