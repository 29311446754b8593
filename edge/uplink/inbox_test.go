package uplink_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/uplink"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
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
