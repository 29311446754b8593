package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/retry"
	"github.com/rollcall-platform/rollcall/workers/bridge"
)

func newCommandKafka(t testing.TB) *kfake.Cluster {
	return newKafka(t, kfake.SeedTopics(2, device.KafkaCommands))
}

// life of a command that is not to expire.
const life = 30 * time.Minute

func sessionOf(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n+1) }

func commandTo(rae string, session, n int, life time.Duration) device.Command {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return device.Command{
		ID: fmt.Sprintf("11111111-1111-4111-8111-%06d%06d", session, n+1), Source: device.CommandSource("test"), RAE: rae, Session: sessionOf(session),
		Action: device.ActionSnapshot, Time: now, Expires: now.Add(life),
	}
}

// asker produces commands as an activity or a CLI does.
func asker(t testing.TB, fake *kfake.Cluster) func(cs ...device.Command) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DefaultProduceTopic(device.KafkaCommands))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return func(cs ...device.Command) {
		for _, c := range cs {
			topic, err := c.Topic()
			require.NoError(t, err)
			b, err := c.Encode()
			require.NoError(t, err)
			require.NoError(t, cl.ProduceSync(bounded(t), &kgo.Record{Key: []byte(topic), Value: b}).FirstErr())
		}
	}
}

// down is a downlink with its MQTT client, running.
type down struct {
	*bridge.Downlink
	reg  *prometheus.Registry
	stop func()
}

func startDown(t testing.TB, fake *kfake.Cluster, addr string, change ...func(*bridge.DownlinkOptions)) *down {
	client, err := bridge.NewClient(bridge.ClientOptions{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Logger: logger(t)})
	require.NoError(t, err)
	d := &down{reg: prometheus.NewRegistry()}
	o := bridge.DownlinkOptions{
		Kafka: kafka.Options{Brokers: fake.ListenAddrs()}, Publisher: client, Logger: logger(t), Registerer: d.reg, CommitInterval: 100 * time.Millisecond,
		KafkaOpts: []kgo.Opt{kgo.FetchMaxWait(50 * time.Millisecond)},
	}
	for _, f := range change {
		f(&o)
	}
	d.Downlink, err = bridge.NewDownlink(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(ctx) })
	running.Go(func() { _ = d.Run(ctx) })
	d.stop = func() { cancel(); running.Wait() }
	t.Cleanup(d.stop)
	return d
}

// count is the value of the counter's series that has the label's value.
func (d *down) count(t testing.TB, name, label, value string) float64 {
	t.Helper()
	return metrictest.Value(t, d.reg, name, label, value)
}

// raeClient is what a RAE is to the broker: a session that stays.
type raeClient struct {
	mu   sync.Mutex
	got  []*paho.Publish
	stop func()
}

func startRAE(t testing.TB, addr, serial string) *raeClient {
	r := &raeClient{}
	ctx, cancel := context.WithCancel(context.Background())
	subscribed := make(chan struct{}, 100)
	filter := "rollcall/v1/" + serial + "/sessions/+/commands"
	cm, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: addr}}, KeepAlive: 30, SessionExpiryInterval: 3600,
		ReconnectBackoff: autopaho.NewConstantBackoff(20 * time.Millisecond),
		OnConnectionUp: func(cm *autopaho.ConnectionManager, _ *paho.Connack) {
			go func() {
				if _, err := cm.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}}); err == nil {
					subscribed <- struct{}{}
				}
			}()
		},
		ClientConfig: paho.ClientConfig{ClientID: serial, PacketTimeout: patience, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(p paho.PublishReceived) (bool, error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.got = append(r.got, p.Packet)
				return true, nil
			}}},
	})
	require.NoError(t, err)
	r.stop = sync.OnceFunc(func() { cancel(); <-cm.Done() })
	t.Cleanup(r.stop)
	select {
	case <-subscribed:
	case <-time.After(patience):
		require.Fail(t, "RAE is not subscribed")
	}
	return r
}

// ids are those of the commands that came, by session, each in the order of its
// first appearance.
func (r *raeClient) ids(t testing.TB) map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string][]string{}
	for _, p := range r.got {
		c, err := device.DecodeCommand(p.Topic, p.Payload)
		require.NoError(t, err)
		if !slices.Contains(out[c.Session], c.ID) {
			out[c.Session] = append(out[c.Session], c.ID)
		}
	}
	return out
}

// count is how many commands came.
func (r *raeClient) count(t testing.TB) (n int) {
	for _, ids := range r.ids(t) {
		n += len(ids)
	}
	return n
}

// first is the first message that came.
func (r *raeClient) first() *paho.Publish {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[0]
}

// committed is how many records the group has left behind; -1: not known.
func committed(t testing.TB, fake *kfake.Cluster) int64 {
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...))
	require.NoError(t, err)
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(context.Background(), bridge.DefaultGroup)
	if err != nil {
		return -1
	}
	var n int64
	offsets.Each(func(o kadm.OffsetResponse) { n += max(0, o.At) })
	return n
}

func TestACommandGoesDownWithItsCorrelation(t *testing.T) {
	addr, fake := mosquitto(t), newCommandKafka(t)
	rae := startRAE(t, addr, "RAE-1")
	d := startDown(t, fake, addr)
	c := commandTo("RAE-1", 0, 0, life)
	asker(t, fake)(c)
	eventually(t, func() bool { return len(rae.ids(t)[c.Session]) == 1 }, "the command")
	p := rae.first()
	require.Equal(t, c.ID, string(p.Properties.CorrelationData))
	require.Equal(t, strings.Replace(p.Topic, "/commands", "/replies", 1), p.Properties.ResponseTopic)
	require.NotNil(t, p.Properties.MessageExpiry)
	require.InDelta(t, life.Seconds(), int(*p.Properties.MessageExpiry), patience.Seconds())
	eventually(t, func() bool { return committed(t, fake) == 1 }, "the offset")
	require.NoError(t, d.Ready())
}

// The broker is restarted, the downlink is killed before it can commit, the
// next one takes over: each command reaches its RAE, in order by session.
func TestNoCommandIsLost(t *testing.T) {
	b, fake := newMosquitto(t), newCommandKafka(t)
	rae := startRAE(t, b.addr, "RAE-1")
	var dead atomic.Bool // what dies commits nothing
	fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		return nil, errors.New("dead"), dead.Load()
	})
	ask := asker(t, fake)
	const sessions, each = 5, 40
	want := map[string][]string{}
	give := func(from, to int) {
		for n := from; n < to; n++ {
			for s := range sessions {
				c := commandTo("RAE-1", s, n, life)
				want[c.Session] = append(want[c.Session], c.ID)
				ask(c)
			}
		}
	}
	dead.Store(true)
	first := startDown(t, fake, b.addr)
	give(0, each/2)
	eventually(t, func() bool { return first.count(t, "rollcall_bridge_commands_total", "result", "sent") > sessions }, "some are sent")
	b.stop()
	first.stop()
	require.Zero(t, committed(t, fake))
	dead.Store(false)
	_ = startDown(t, fake, b.addr)
	b.start()
	give(each/2, each)
	eventually(t, func() bool { return committed(t, fake) == sessions*each }, "all done")
	eventually(t, func() bool { return rae.count(t) == sessions*each }, "all commands")
	require.Equal(t, want, rae.ids(t))
}

func TestARAEThatIsAwayGetsItsCommandsWhenItComes(t *testing.T) {
	addr, fake := mosquitto(t), newCommandKafka(t)
	d := startDown(t, fake, addr, func(o *bridge.DownlinkOptions) { o.MaxHeld = 8 })
	here := startRAE(t, addr, "RAE-1")
	away := startRAE(t, addr, "RAE-2")
	away.stop()
	ask := asker(t, fake)
	ask(commandTo("RAE-2", 1, 0, life)) // its session stays with the broker
	ask(commandTo("RAE-3", 2, 0, life)) // nobody knows it
	for n := range 20 {
		ask(commandTo("RAE-1", 0, n, life))
	}
	eventually(t, func() bool { return len(here.ids(t)[sessionOf(0)]) == 20 }, "nobody waits for those who are not there")
	eventually(t, func() bool { return d.count(t, "rollcall_bridge_command_retries_total", "reason", "unheard") > 0 }, "it is tried")
	require.Less(t, committed(t, fake), int64(22), "the one that waits is not committed")
	away = startRAE(t, addr, "RAE-2")
	unknown := startRAE(t, addr, "RAE-3")
	eventually(t, func() bool { return len(away.ids(t)[sessionOf(1)]) == 1 && len(unknown.ids(t)[sessionOf(2)]) == 1 }, "both come")
	eventually(t, func() bool { return committed(t, fake) == 22 }, "all done")
}

func TestWhatHasExpiredIsNotSent(t *testing.T) {
	addr, fake := mosquitto(t), newCommandKafka(t)
	rae := startRAE(t, addr, "RAE-1")
	ask := asker(t, fake)
	late := commandTo("RAE-1", 0, 0, life)
	late.Time, late.Expires = late.Time.Add(-time.Hour), late.Time.Add(-time.Minute)
	ask(late, commandTo("RAE-9", 1, 0, 1500*time.Millisecond), commandTo("RAE-1", 0, 1, life))
	d := startDown(t, fake, addr)
	eventually(t, func() bool { return len(rae.ids(t)[sessionOf(0)]) == 1 }, "the one that has not")
	require.Equal(t, commandTo("RAE-1", 0, 1, 0).ID, rae.ids(t)[sessionOf(0)][0])
	eventually(t, func() bool { return d.count(t, "rollcall_bridge_commands_total", "result", "expired") == 2 }, "both are counted")
	eventually(t, func() bool { return committed(t, fake) == 3 }, "all done")
}

func TestPoisonIsDeadLettered(t *testing.T) {
	addr, fake := mosquitto(t), newCommandKafka(t)
	rae := startRAE(t, addr, "RAE-1")
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DefaultProduceTopic(device.KafkaCommands))
	require.NoError(t, err)
	defer cl.Close()
	good := commandTo("RAE-1", 0, 0, life)
	topic, err := good.Topic()
	require.NoError(t, err)
	oversized(t, fake, 0, 1) // also where nothing was committed before
	for _, r := range []*kgo.Record{
		{Key: []byte(topic), Value: []byte("{")},
		{Key: []byte("no topic"), Value: []byte("{}")},
		{Key: nil, Value: nil},
		{Key: []byte(topic), Value: []byte(strings.Repeat("x", 100_000))},
	} {
		require.NoError(t, cl.ProduceSync(bounded(t), r).FirstErr())
	}
	asker(t, fake)(good)
	oversized(t, fake, 0, 1) // also where nothing follows
	d := startDown(t, fake, addr)
	letters := readLog(t, fake.ListenAddrs(), device.KafkaDeadLetters)
	eventually(t, func() bool {
		return len(letters.all()) == 8 && len(rae.ids(t)[good.Session]) == 1 && d.count(t, "rollcall_bridge_commands_total", "result", "dead-letter") == 8
	}, "eight letters and a command")
	reasons := map[string]int{}
	for _, l := range letters.all() {
		require.Equal(t, device.KafkaCommands, kafka.Header(l, kafka.HeaderTopic))
		reasons[kafka.Header(l, kafka.HeaderReason)]++
	}
	require.Equal(t, map[string]int{"not-json": 1, "topic-mismatch": 2, "too-large": 1, kafka.ReasonDecompress: 4}, reasons)
	eventually(t, func() bool { return committed(t, fake) == 9 }, "all done")
}

// A partition that is full of commands holds up no batch of another that is to
// be passed.
func TestPoisonBesideABacklog(t *testing.T) {
	fake := newCommandKafka(t)
	oversized(t, fake, 0)
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer cl.Close()
	const backlog = 5000
	records := make([]*kgo.Record, backlog)
	for n := range records {
		c := commandTo("RAE-1", n%50, n, life)
		topic, err := c.Topic()
		require.NoError(t, err)
		value, err := c.Encode()
		require.NoError(t, err)
		records[n] = &kgo.Record{Topic: device.KafkaCommands, Partition: 1, Key: []byte(topic), Value: value}
	}
	require.NoError(t, cl.ProduceSync(bounded(t), records...).FirstErr())
	slow := &slowPublisher{}
	startDown(t, fake, mosquitto(t), func(o *bridge.DownlinkOptions) { o.Publisher, o.MaxHeld = slow, 4 })
	letters := readLog(t, fake.ListenAddrs(), device.KafkaDeadLetters)
	eventually(t, func() bool { return len(letters.all()) == 1 }, "the batch is dead-lettered")
	require.Less(t, slow.sent.Load(), int64(backlog))
}

// slowPublisher takes a millisecond.
type slowPublisher struct{ sent atomic.Int64 }

func (s *slowPublisher) Publish(ctx context.Context, _ bridge.Message) error {
	s.sent.Add(1)
	return retry.Sleep(ctx, time.Millisecond)
}

// oversized writes a batch to each of the partitions that would not fit memory.
func oversized(t testing.TB, fake *kfake.Cluster, partitions ...int32) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DefaultProduceTopic(device.KafkaCommands), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(32<<20), kgo.BrokerMaxWriteBytes(64<<20))
	require.NoError(t, err)
	defer cl.Close()
	for _, partition := range partitions {
		require.NoError(t, cl.ProduceSync(bounded(t), &kgo.Record{Partition: partition, Value: make([]byte, 17<<20)}).FirstErr())
	}
}

// Two downlinks share the partitions; one goes and the other takes its part.
func TestDownlinksShareThePartitions(t *testing.T) {
	addr, fake := mosquitto(t), newCommandKafka(t)
	rae := startRAE(t, addr, "RAE-1")
	first := startDown(t, fake, addr, func(o *bridge.DownlinkOptions) { o.Publisher = ownClient(t, addr, "a") })
	_ = startDown(t, fake, addr, func(o *bridge.DownlinkOptions) { o.Publisher = ownClient(t, addr, "b") })
	ask := asker(t, fake)
	for n := range 60 {
		ask(commandTo("RAE-1", n%7, n, life))
		if n == 30 {
			go first.stop()
		}
	}
	eventually(t, func() bool { return committed(t, fake) == 60 }, "all done")
	eventually(t, func() bool { return rae.count(t) == 60 }, "all commands") // the broker has them first
	for _, ids := range rae.ids(t) {
		require.True(t, slices.IsSorted(ids), ids)
	}
}

// ownClient runs for the test's time.
func ownClient(t testing.TB, addr, id string) *bridge.Client {
	c, err := bridge.NewClient(bridge.ClientOptions{Broker: mqtt.Broker{URL: "mqtt://" + addr}, ClientID: id, Logger: logger(t)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func TestDownlinkMetricNamesAreFrozen(t *testing.T) {
	reg := prometheus.NewRegistry()
	_, err := bridge.NewDownlink(bridge.DownlinkOptions{Kafka: kafka.Options{Brokers: []string{"127.0.0.1:1"}}, Publisher: &bridge.Client{}, Registerer: reg})
	require.NoError(t, err)
	families, err := reg.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Equal(t, []string{"rollcall_bridge_command_retries_total", "rollcall_bridge_command_seconds", "rollcall_bridge_commands_held", "rollcall_bridge_commands_total"}, names)
}
