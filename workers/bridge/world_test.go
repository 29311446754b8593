package bridge_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/workers/bridge"
)

// patience only bounds a failure.
const patience = time.Minute

// bounded is the test's context, with patience.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, ok func() bool, msg string, args ...any) {
	t.Helper()
	require.Eventually(t, ok, patience, 5*time.Millisecond, append([]any{msg}, args...)...)
}

func logger(t testing.TB) *slog.Logger {
	if os.Getenv("ROLLCALL_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func newKafka(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	fake, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.SeedTopics(3, device.KafkaEvents), kfake.SeedTopics(1, device.KafkaReplies, device.KafkaDeadLetters),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	return fake
}

func newForwarder(t testing.TB, brokers []string, change ...func(*bridge.ForwarderOptions)) *bridge.Forwarder {
	o := bridge.ForwarderOptions{Kafka: kafka.Options{Brokers: brokers}, Logger: logger(t)}
	for _, f := range change {
		f(&o)
	}
	f, err := bridge.NewForwarder(o)
	require.NoError(t, err)
	t.Cleanup(func() { ctx, cancel := context.WithCancel(context.Background()); cancel(); _ = f.Close(ctx) })
	return f
}

// log reads a Kafka topic as it grows.
type kafkaLog struct {
	mu      sync.Mutex
	records []*kgo.Record
}

func readLog(t testing.TB, brokers []string, topics ...string) *kafkaLog {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	require.NoError(t, err)
	l := &kafkaLog{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			fs := cl.PollFetches(context.Background())
			if fs.IsClientClosed() {
				return
			}
			l.mu.Lock()
			l.records = append(l.records, fs.Records()...)
			l.mu.Unlock()
		}
	})
	t.Cleanup(func() { cl.Close(); wg.Wait() })
	return l
}

func (l *kafkaLog) all() []*kgo.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*kgo.Record(nil), l.records...)
}

// first is each topic's payloads in the order of their first appearance.
func (l *kafkaLog) first() map[string][]string {
	out, seen := map[string][]string{}, map[string]bool{}
	for _, r := range l.all() {
		if id := string(r.Key) + " " + string(r.Value); !seen[id] {
			seen[id] = true
			out[string(r.Key)] = append(out[string(r.Key)], string(r.Value))
		}
	}
	return out
}

// mosquitto starts a real broker of the test's own and returns its address.
func mosquitto(t testing.TB) string { return newMosquitto(t).addr }

func newMosquitto(t testing.TB) *mosquittoBroker {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not in everybody's PATH
		if _, err := os.Stat(path); err != nil {
			t.Skip("no mosquitto: apt-get install mosquitto")
		}
	}
	addr := porttest.Addr(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "mosquitto.conf")
	_, port, _ := net.SplitHostPort(addr)
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nmax_inflight_messages 100\n", port, dir)
	if os.Getuid() == 0 {
		text += "user root\n"
	}
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	b := &mosquittoBroker{t: t, addr: addr, args: []string{path, "-c", config}}
	b.start()
	t.Cleanup(b.stop)
	return b
}

// mosquittoBroker can be stopped, in an orderly way, and started again.
type mosquittoBroker struct {
	t       testing.TB
	addr    string
	args    []string
	process *exec.Cmd
}

func (b *mosquittoBroker) start() {
	b.process = exec.Command(b.args[0], b.args[1:]...)
	require.NoError(b.t, b.process.Start())
	eventually(b.t, func() bool {
		c, err := net.Dial("tcp", b.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, "mosquitto listens")
}

func (b *mosquittoBroker) stop() {
	_ = b.process.Process.Signal(syscall.SIGTERM)
	_ = b.process.Wait()
}

// edge publishes at QoS 1, each topic in order.
func edge(t testing.TB, addr string) func(topic, payload string) {
	ctx, cancel := context.WithCancel(context.Background())
	cm, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: addr}}, KeepAlive: 30, ClientConfig: paho.ClientConfig{ClientID: "edge", PacketTimeout: patience},
	})
	require.NoError(t, err)
	t.Cleanup(func() { cancel(); <-cm.Done() })
	wait, done := context.WithTimeout(ctx, patience)
	defer done()
	require.NoError(t, cm.AwaitConnection(wait))
	return func(topic, payload string) {
		_, err := cm.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
		require.NoError(t, err)
	}
}

// front is a subscriber that runs, and what it writes to the broker.
type front struct {
	*bridge.Subscriber
	stop    context.CancelFunc
	done    chan struct{}
	pubacks atomic.Int64
	mu      sync.Mutex
	conns   []net.Conn
	dead    bool
}

func start(t testing.TB, addr string, f bridge.AsyncForwarder, change ...func(*bridge.SubscriberOptions)) *front {
	s := &front{done: make(chan struct{})}
	o := bridge.SubscriberOptions{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Forwarder: f, Logger: logger(t), Dial: s.dial}
	for _, f := range change {
		f(&o)
	}
	var err error
	s.Subscriber, err = bridge.NewSubscriber(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { defer close(s.done); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); s.cut(); <-s.done })
	eventually(t, func() bool { return s.Ready() == nil }, "the bridge is connected")
	return s
}

func (s *front) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil, net.ErrClosed
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s.conns = append(s.conns, c)
	return &watched{Conn: c, pubacks: &s.pubacks}, nil
}

// cut is kill -9, as the broker sees it.
func (s *front) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	for _, c := range s.conns {
		c.Close()
	}
}

// watched counts the PUBACKs written. Each packet's write begins with its type.
type watched struct {
	net.Conn
	pubacks *atomic.Int64
	rest    []byte
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.rest = append(w.rest, b[:n]...)
	for len(w.rest) >= 2 && w.rest[1] < 0x80 && len(w.rest) >= 2+int(w.rest[1]) {
		if w.rest[0]>>4 == 4 {
			w.pubacks.Add(1)
		}
		w.rest = w.rest[2+int(w.rest[1]):]
	}
	return n, err
}

func topicOf(n int) string {
	return fmt.Sprintf("rollcall/v1/rae-%d/sessions/00000000-0000-4000-8000-%012d/events", n%3, n+1)
}

// publishes sends count messages on each of topics topics, in turn.
func publishes(publish func(topic, payload string), topics, from, count int) {
	for i := from; i < from+count; i++ {
		for n := range topics {
			publish(topicOf(n), fmt.Sprintf(`{"n":%d,"pad":"%s"}`, i, strings.Repeat("x", 300)))
		}
	}
}

// last is the topic's newest payload, "" for none.
func (l *kafkaLog) last(topic string) (payload string) {
	for _, r := range l.all() {
		if string(r.Key) == topic {
			payload = string(r.Value)
		}
	}
	return payload
}

// complete reports whether each topic has its first count messages, in order.
func (l *kafkaLog) complete(topics, count int) error {
	got := l.first()
	for n := range topics {
		payloads := got[topicOf(n)]
		for i := range count {
			if i >= len(payloads) {
				return fmt.Errorf("topic %d has %d of %d", n, len(payloads), count)
			}
			if !strings.HasPrefix(payloads[i], fmt.Sprintf(`{"n":%d,`, i)) {
				return fmt.Errorf("topic %d: message %d is %.20s", n, i, payloads[i])
			}
		}
	}
	return nil
}

type kgoRecord = kgo.Record

func readLogNow(t testing.TB, fake *kfake.Cluster) *kafkaLog {
	return readLog(t, fake.ListenAddrs(), device.KafkaEvents)
}

// wait waits for complete, and returns why it is not.
func (l *kafkaLog) wait(t testing.TB, topics, count int) error {
	t.Helper()
	var last atomic.Pointer[error]
	ok := func() bool { err := l.complete(topics, count); last.Store(&err); return err == nil }
	for deadline := time.Now().Add(patience); !ok() && time.Now().Before(deadline); {
		<-time.After(5 * time.Millisecond)
	}
	return *last.Load()
}
