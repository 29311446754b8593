package uplink_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

// mosquitto is a real broker of the test's own.
type mosquitto struct {
	t       *testing.T
	path    string
	config  string
	addr    string
	process *exec.Cmd
}

// newMosquitto prepares a broker on a free loopback port that keeps its state
// in a file, as deploy's does.
func newMosquitto(t *testing.T, extra string) *mosquitto {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not in everybody's PATH
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("no mosquitto: apt-get install mosquitto")
	}
	m := &mosquitto{t: t, path: path, addr: porttest.Addr(t)}
	dir := t.TempDir()
	m.config = filepath.Join(dir, "mosquitto.conf")
	var port int
	_, err = fmt.Sscanf(m.addr, "127.0.0.1:%d", &port)
	require.NoError(t, err)
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nautosave_interval 1\n%s\n", port, dir, extra)
	if os.Getuid() == 0 {
		text += "user root\n"
	}
	require.NoError(t, os.WriteFile(m.config, []byte(text), 0o600))
	return m
}

func (m *mosquitto) start() {
	m.process = exec.Command(m.path, "-c", m.config)
	require.NoError(m.t, m.process.Start())
	p := m.process
	m.t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
}

// stop stops the broker. SIGTERM lets it save its state; SIGKILL does not.
func (m *mosquitto) stop(signal syscall.Signal) {
	require.NoError(m.t, m.process.Process.Signal(signal))
	_ = m.process.Wait()
}

// save has the broker write its state now: one that is killed before its first
// save knows no subscription, and throws away what comes before the next.
func (m *mosquitto) save() {
	path := filepath.Join(filepath.Dir(m.config), "mosquitto.db")
	_ = os.Remove(path)
	require.NoError(m.t, m.process.Process.Signal(syscall.SIGUSR1))
	eventually(m.t, "saved", func() bool { _, err := os.Stat(path); return err == nil })
}

// subscribe is what a bridge is to the broker: a client with a session that
// outlives connections.
func (m *mosquitto) subscribe(ctx context.Context, got *received, presence chan<- string) {
	subscribed := make(chan string, 100)
	cm, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: m.addr}}, KeepAlive: 10, SessionExpiryInterval: 3600,
		ReconnectBackoff: autopaho.NewConstantBackoff(20 * time.Millisecond),
		OnConnectionUp: func(cm *autopaho.ConnectionManager, _ *paho.Connack) {
			go func() {
				_, err := cm.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "rollcall/v1/#", QoS: 1}}})
				if err == nil {
					subscribed <- "rollcall/v1/#"
				}
			}()
		},
		ClientConfig: paho.ClientConfig{ClientID: "bridge", PacketTimeout: patience, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(p paho.PublishReceived) (bool, error) {
				if p.Packet.Topic == "rollcall/v1/RAE-1/presence" {
					if presence != nil {
						presence <- string(p.Packet.Payload)
					}
				} else {
					got.add(p.Packet.Payload)
				}
				return true, nil
			}}},
	})
	require.NoError(m.t, err)
	m.t.Cleanup(func() { _ = cm.Disconnect(context.Background()) })
	next(m.t, subscribed)
}

func TestMosquittoRestartsMidStream(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			m, box, got := newMosquitto(t, ""), newOutbox(), &received{}
			m.start()
			m.subscribe(t.Context(), got, nil)
			m.save()
			u, _ := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + m.addr}, Outbox: box})
			const total = 6000
			for range 4 {
				before := got.len() // what a kill of the broker lost never comes
				box.add(total / 4)
				eventually(t, "progress", func() bool { return got.len() > before+100 })
				m.stop(signal)
				m.start()
				eventually(t, "back", func() bool { return u.Ready() == nil })
				if signal == syscall.SIGKILL {
					// What Mosquitto acknowledged and had not written yet
					// went with it: that is between it and the bridge. Only
					// what the uplink still owed can be asked for.
					eventually(t, "all acknowledged", func() bool { return box.pending() == 0 })
				}
			}
			eventually(t, "all published", func() bool { return box.pending() == 0 })
			if signal == syscall.SIGTERM {
				eventually(t, "all delivered", func() bool { return len(got.firsts()) == total })
			}
			firsts := got.firsts()
			require.IsIncreasing(t, firsts, "first appearances are in order")
			t.Logf("%d of %d events delivered, in %d publications", len(firsts), total, got.len())
		})
	}
}

func TestMosquittoWithoutASubscriberKeepsTheOutbox(t *testing.T) {
	m, box, got := newMosquitto(t, ""), newOutbox(), &received{}
	m.start()
	box.add(100)
	u, _ := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + m.addr}, Outbox: box})
	eventually(t, "says so", func() bool { return contains(u.Ready(), "no one is subscribed") })
	require.Equal(t, 100, box.pending(), "Mosquitto threw them away")
	m.subscribe(t.Context(), got, nil)
	eventually(t, "all published", func() bool { return box.pending() == 0 })
	// The subscriber may come while others of the window have been thrown away:
	// then these and all behind them come again.
	eventually(t, "all delivered, at last in order", func() bool { return slices.Equal(got.last(100), upTo(100)) })
}

func TestMosquittoRefusesByItsAccessRules(t *testing.T) {
	acl := filepath.Join(t.TempDir(), "acl")
	require.NoError(t, os.WriteFile(acl, []byte("topic read #\ntopic write rollcall/v1/RAE-2/#\n"), 0o644))
	m, box := newMosquitto(t, "acl_file "+acl), newOutbox()
	m.start()
	box.add(5)
	reg := prometheus.NewRegistry()
	u, _ := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + m.addr}, Outbox: box, Registerer: reg})
	eventually(t, "says so", func() bool { return contains(u.Ready(), "0x87") })
	require.Equal(t, 5, box.pending())

	// Mosquitto 2.0.11 answers, and then often closes the connection. Once
	// the rules are right, events flow all the same.
	eventually(t, "is cut off", func() bool { return metrictest.Value(t, reg, "rollcall_edge_connects_total") > 1 })
	require.NoError(t, os.WriteFile(acl, []byte("topic readwrite #\n"), 0o644))
	require.NoError(t, m.process.Process.Signal(syscall.SIGHUP))
	m.subscribe(t.Context(), &received{}, nil)
	eventually(t, "all published", func() bool { return box.pending() == 0 })
}

func TestMosquittoHearsOfPresence(t *testing.T) {
	m, presence := newMosquitto(t, ""), make(chan string, 10)
	m.start()
	m.subscribe(t.Context(), &received{}, presence)
	u, stop := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + m.addr}, Outbox: newOutbox()})
	require.Contains(t, next(t, presence), `"status":"online"`)
	cut := time.Now()
	uplink.CutConnection(u)
	for !strings.Contains(next(t, presence), `"status":"online"`) {
		require.Greater(t, time.Since(cut), uplink.WillDelay, "a connection that comes back at once has no will, but a birth")
	}
	stop()
	for !strings.Contains(next(t, presence), `"status":"offline"`) { // a birth may come twice
	}
}
