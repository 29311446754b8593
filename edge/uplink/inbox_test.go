package uplink_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/uplink"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

const commandTopic = "rollcall/v1/RAE-1/sessions/s1/commands"

// commands remembers what came, in order.
type commands struct {
	mu   sync.Mutex
	got  []string
	fail int           // so many calls fail first
	wait chan struct{} // nil: nothing waits
}

func (c *commands) handle(ctx context.Context, _ string, payload []byte) error {
	if c.wait != nil {
		select {
		case <-c.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail > 0 {
		c.fail--
		return errors.New("disk is full")
	}
	c.got = append(c.got, string(payload))
	return nil
}

// seen counts what came at least once.
func (c *commands) seen() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	different := map[string]bool{}
	for _, p := range c.got {
		different[p] = true
	}
	return len(different)
}

// cloud publishes to a topic at QoS 1.
func (m *mosquitto) cloud() func(topic, payload string) {
	ctx, cancel := context.WithCancel(context.Background())
	cm, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: m.addr}}, KeepAlive: 30, ClientConfig: paho.ClientConfig{ClientID: "cloud", PacketTimeout: patience},
		ReconnectBackoff: autopaho.NewConstantBackoff(20 * time.Millisecond),
	})
	require.NoError(m.t, err)
	m.t.Cleanup(func() { cancel(); <-cm.Done() })
	return func(topic, payload string) {
		require.NoError(m.t, cm.AwaitConnection(m.t.Context()))
		_, err := cm.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
		require.NoError(m.t, err)
	}
}

func subscribed(t *testing.T, reg *prometheus.Registry) {
	eventually(t, "subscribed", func() bool {
		return metrictest.Value(t, reg, "rollcall_edge_commands_subscribed") == 1
	})
}

func TestCommandsWaitInTheSessionWhileTheRAEIsAway(t *testing.T) {
	m, c := newMosquitto(t, ""), &commands{}
	m.start()
	publish := m.cloud()
	reg := prometheus.NewRegistry()
	o := uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + m.addr}, Outbox: newOutbox(), Commands: c.handle, Registerer: reg}
	_, stop := start(t, o)
	subscribed(t, reg)
	publish(commandTopic, "1")
	publish("rollcall/v1/RAE-2/sessions/s1/commands", "another's")
	eventually(t, "the command", func() bool { return c.seen() == 1 })
	stop()
	for n := range 5 {
		publish(commandTopic, fmt.Sprint(n+2))
	}
	m.stop(syscall.SIGTERM)
	m.start()
	_, _ = start(t, o)
	eventually(t, "what came meanwhile", func() bool { return c.seen() == 6 })
	require.Equal(t, []string{"1", "2", "3", "4", "5", "6"}, slices.Compact(c.got), "in order; what was not acknowledged in time, again")
}

func TestABrokerThatForgotTheSessionIsSubscribedToAgain(t *testing.T) {
	m, c := newMosquitto(t, ""), &commands{}
	m.start()
	reg := prometheus.NewRegistry()
	_, _ = start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + m.addr}, Outbox: newOutbox(), Commands: c.handle, Registerer: reg})
	subscribed(t, reg)
	m.stop(syscall.SIGKILL)
	m.start()
	publish := m.cloud()
	n := 0
	eventually(t, "a command", func() bool { n++; publish(commandTopic, fmt.Sprint(n)); return c.seen() > 0 })
}

func TestACommandIsAcknowledgedOnlyWhenItIsDealtWith(t *testing.T) {
	m, c := newMosquitto(t, ""), &commands{wait: make(chan struct{})}
	m.start()
	publish := m.cloud()
	reg := prometheus.NewRegistry()
	o := uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + m.addr}, Outbox: newOutbox(), Commands: c.handle, Registerer: reg, Drain: -1}
	_, stop := start(t, o)
	subscribed(t, reg)
	publish(commandTopic, "1")
	eventually(t, "it came", func() bool { return metrictest.Value(t, reg, "rollcall_edge_commands_received_total") == 1 })
	stop()
	require.Zero(t, c.seen())
	close(c.wait)
	c.fail = 2
	_, _ = start(t, o)
	eventually(t, "it came again, and a failure did not lose it", func() bool { return c.seen() == 1 })
}

// pubacks counts the acknowledgements that reach the broker.
type pubacks struct {
	hook
	n atomic.Int64
}

func (p *pubacks) OnPacketRead(_ *mochi.Client, packet packets.Packet) (packets.Packet, error) {
	if packet.FixedHeader.Type == packets.Puback {
		p.n.Add(1)
	}
	return packet, nil
}

// A crash must not lose a command that is not done: so no acknowledgement of it is
// written before it is.
func TestNoAcknowledgementIsWrittenBeforeTheCommandIsDone(t *testing.T) {
	seen, addr := &pubacks{hook: hook{presence: make(chan string, 9)}}, porttest.Addr(t)
	s := mochi.New(&mochi.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, s.AddHook(seen, nil))
	require.NoError(t, s.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: addr})))
	require.NoError(t, s.Serve())
	t.Cleanup(func() { _ = s.Close() })
	steps := make(chan struct{}, 1)
	c, reg := &commands{wait: steps}, prometheus.NewRegistry()
	_, _ = start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Outbox: newOutbox(), Commands: c.handle, Registerer: reg})
	subscribed(t, reg)
	for n := range 2 {
		require.NoError(t, s.Publish(commandTopic, []byte(fmt.Sprint(n)), false, 1))
	}
	eventually(t, "both came", func() bool { return metrictest.Value(t, reg, "rollcall_edge_commands_received_total") == 2 })
	for done := range int64(2) {
		require.Never(t, func() bool { return seen.n.Load() > done }, 25*uplink.AckInterval, uplink.AckInterval, "acknowledged before it is done")
		steps <- struct{}{}
		eventually(t, "its acknowledgement", func() bool { return seen.n.Load() == done+1 })
	}
}

func TestMoreCommandsThanTheInboxHolds(t *testing.T) {
	m, c := newMosquitto(t, "max_inflight_messages 0"), &commands{wait: make(chan struct{})}
	m.start()
	publish := m.cloud()
	reg := prometheus.NewRegistry()
	u, _ := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + m.addr}, Outbox: newOutbox(), Commands: c.handle, Registerer: reg})
	subscribed(t, reg)
	const total = 300
	for n := range total {
		publish(commandTopic, fmt.Sprint(n))
	}
	// Each connection brings 128 again; the inbox holds 256.
	for n := range 3 {
		eventually(t, "a window", func() bool {
			return metrictest.Value(t, reg, "rollcall_edge_commands_received_total") >= float64(128*(n+1))
		})
		if n < 2 {
			uplink.CutConnection(u)
			eventually(t, "another connection", func() bool {
				return metrictest.Value(t, reg, "rollcall_edge_connects_total") > float64(n+1)
			})
			subscribed(t, reg)
		}
	}
	close(c.wait)
	eventually(t, "all", func() bool { return c.seen() == total })
}
