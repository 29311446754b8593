package broker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/broker"
)

const (
	rae     = "RAE-1"
	session = "0b0f3a5e-6a6b-4d0c-9f3a-1d2e3f405162"
	events  = "rollcall/v1/" + rae + "/sessions/" + session + "/events"
	replies = "rollcall/v1/" + rae + "/sessions/" + session + "/replies"

	patience = time.Minute // bounds failures only
)

// forwarder records what it is given and answers as told.
type forwarder struct {
	mu      sync.Mutex
	got     []string
	answer  func(ctx context.Context, payload string) error
	entered chan string
}

func (f *forwarder) Forward(ctx context.Context, topic string, payload []byte) error {
	f.mu.Lock()
	f.got = append(f.got, topic+" "+string(payload))
	f.mu.Unlock()
	if f.entered != nil {
		f.entered <- string(payload)
	}
	if f.answer != nil {
		return f.answer(ctx, string(payload))
	}
	return nil
}

func (f *forwarder) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.got...)
}

func start(t *testing.T, o broker.Options) *broker.Broker {
	t.Helper()
	o.Addr, o.Logger = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	if o.Forwarder == nil {
		o.Forwarder = &forwarder{}
	}
	if o.Passwords == nil {
		o.AllowAnyOnLoopback = true
	}
	b, err := broker.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, b.Close(ctx))
	})
	return b
}

type connectOption func(*paho.ClientConfig, *paho.Connect)

// connect returns the client whatever the answer is.
func connect(t *testing.T, b *broker.Broker, user string, opts ...connectOption) (*paho.Client, *paho.Connack, error) {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr())
	require.NoError(t, err)
	cfg := paho.ClientConfig{Conn: conn, PacketTimeout: patience}
	cp := &paho.Connect{ClientID: user, KeepAlive: 30, CleanStart: true, UsernameFlag: true, Username: user, PasswordFlag: true, Password: []byte("secret")}
	for _, o := range opts {
		o(&cfg, cp)
	}
	client := paho.NewClient(cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ack, err := client.Connect(ctx, cp)
	if err == nil {
		t.Cleanup(func() { _ = client.Disconnect(&paho.Disconnect{}) })
	}
	return client, ack, err
}

func mustConnect(t *testing.T, b *broker.Broker, user string, opts ...connectOption) *paho.Client {
	t.Helper()
	client, _, err := connect(t, b, user, opts...)
	require.NoError(t, err)
	return client
}

// next is what comes from a channel.
func next(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		require.Fail(t, "nothing came")
		return ""
	}
}

func publish(client *paho.Client, topic, payload string) (*paho.PublishResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return client.Publish(ctx, &paho.Publish{QoS: 1, Topic: topic, Payload: []byte(payload)})
}

func TestPubackWaitsForForward(t *testing.T) {
	release := make(chan struct{})
	f := &forwarder{entered: make(chan string, 1), answer: func(context.Context, string) error { <-release; return nil }}
	b := start(t, broker.Options{Forwarder: f})
	client := mustConnect(t, b, rae)

	acked := make(chan error, 1)
	go func() { _, err := publish(client, events, "one"); acked <- err }()
	require.Equal(t, "one", next(t, f.entered))
	select {
	case err := <-acked:
		t.Fatalf("PUBACK while Forward runs: %v", err)
	case <-time.After(200 * time.Millisecond): // nothing to poll for: it must not come
	}
	close(release)
	require.NoError(t, <-acked)
	require.Equal(t, []string{events + " one"}, f.all())
	require.Equal(t, broker.Stats{Clients: 1, Forwarded: 1}, b.Stats())
}

func TestRefusedForwardIsNotAcknowledged(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	f := &forwarder{answer: func(context.Context, string) error {
		if down.Load() {
			return errors.New("Kafka is down")
		}
		return nil
	}}
	b := start(t, broker.Options{Forwarder: f})
	client := mustConnect(t, b, rae)
	response, err := publish(client, replies, "kept")
	require.Error(t, err)
	require.EqualValues(t, 0x83, response.ReasonCode)
	require.Contains(t, response.Properties.ReasonString, "not stored")
	require.EqualValues(t, 1, b.Stats().Refused)

	// The same connection goes on when Kafka is back.
	down.Store(false)
	response, err = publish(client, replies, "kept")
	require.NoError(t, err)
	require.Zero(t, response.ReasonCode)
}

func TestForwardIsBounded(t *testing.T) {
	f := &forwarder{answer: func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }}
	b := start(t, broker.Options{Forwarder: f, ForwardTimeout: 50 * time.Millisecond})
	response, err := publish(mustConnect(t, b, rae), events, "slow")
	require.Error(t, err)
	require.EqualValues(t, 0x83, response.ReasonCode)
}

func TestStoppingRefusesWhatIsBeingForwarded(t *testing.T) {
	f := &forwarder{entered: make(chan string, 1), answer: func(ctx context.Context, _ string) error { <-ctx.Done(); return context.Cause(ctx) }}
	b, err := broker.Start(t.Context(), broker.Options{Addr: "127.0.0.1:0", Forwarder: f, AllowAnyOnLoopback: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	client := mustConnect(t, b, rae)
	acked := make(chan error, 1)
	waiting, giveUp := context.WithCancel(t.Context())
	go func() {
		_, err := client.Publish(waiting, &paho.Publish{QoS: 1, Topic: events, Payload: []byte("late")})
		acked <- err
	}()
	next(t, f.entered)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, b.Close(ctx), "a Forward that waits must not hold up the end")
	giveUp()
	require.Error(t, <-acked)
	require.EqualValues(t, 1, b.Stats().Refused)
}

// TestOrderIsKeptForEachClient: publishes that are sent without waiting reach
// the forwarder in the order they were sent, while another client is blocked.
func TestOrderIsKeptForEachClient(t *testing.T) {
	block := make(chan struct{})
	f := &forwarder{answer: func(_ context.Context, payload string) error {
		if payload == "block" {
			<-block
		}
		return nil
	}}
	b := start(t, broker.Options{Forwarder: f})
	other := mustConnect(t, b, "RAE-2")
	blocked := make(chan error, 1)
	go func() { _, err := publish(other, strings.Replace(events, rae, "RAE-2", 1), "block"); blocked <- err }()

	client := mustConnect(t, b, rae)
	const n = 500
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%s %d", events, i))
		_, err := client.PublishWithOptions(t.Context(), &paho.Publish{QoS: 1, Topic: events, Payload: fmt.Append(nil, i)}, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
		require.NoError(t, err)
	}
	own := func() (got []string) {
		for _, line := range f.all() {
			if strings.HasPrefix(line, events) {
				got = append(got, line)
			}
		}
		return got
	}
	require.Eventually(t, func() bool { return len(own()) == n }, patience, 10*time.Millisecond)
	require.Equal(t, want, own())
	close(block)
	require.NoError(t, <-blocked)
}

func TestOnlyOwnTopics(t *testing.T) {
	f := &forwarder{}
	b := start(t, broker.Options{Forwarder: f})
	client := mustConnect(t, b, rae)
	for _, topic := range []string{
		strings.Replace(events, rae, "RAE-2", 1), strings.Replace(events, rae, "RAE-11", 1),
		"rollcall/v1/" + rae, "rollcall/v2/" + rae + "/x", "other",
	} {
		response, err := publish(client, topic, "x")
		require.Error(t, err, topic)
		require.EqualValues(t, 0x87, response.ReasonCode, topic)
	}
	require.Empty(t, f.all())
	for _, filter := range []string{"#", "rollcall/#", "rollcall/v1/+/sessions/+/commands", "rollcall/v1/RAE-2/#", "$SYS/#", "$share/g/rollcall/v1/" + rae + "/#"} {
		ack, err := client.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
		require.Error(t, err, filter)
		require.GreaterOrEqual(t, ack.Reasons[0], byte(0x80), filter)
	}
	require.GreaterOrEqual(t, b.Stats().Denied, int64(10))
	_, err := client.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "rollcall/v1/" + rae + "/#", QoS: 1}}})
	require.NoError(t, err)
}

func TestWhoMayConnect(t *testing.T) {
	b := start(t, broker.Options{Passwords: map[string]string{rae: "secret", "RAE-2": "secret"}})
	mustConnect(t, b, rae, func(_ *paho.ClientConfig, c *paho.Connect) { c.ClientID = "edge" })
	will := func(topic string) connectOption {
		return func(_ *paho.ClientConfig, c *paho.Connect) {
			c.WillMessage = &paho.WillMessage{Topic: topic, Payload: []byte("gone"), QoS: 1, Retain: true}
		}
	}
	for name, test := range map[string]struct {
		user   string
		change connectOption
		code   byte
	}{
		"wrong password":         {rae, func(_ *paho.ClientConfig, c *paho.Connect) { c.Password = []byte("guess") }, 0x86},
		"unknown user":           {"RAE-3", func(*paho.ClientConfig, *paho.Connect) {}, 0x86},
		"no user":                {"", func(_ *paho.ClientConfig, c *paho.Connect) { c.UsernameFlag, c.PasswordFlag = false, false }, 0x86},
		"user with wildcard":     {"+", func(*paho.ClientConfig, *paho.Connect) {}, 0x86},
		"another's session":      {"RAE-2", func(_ *paho.ClientConfig, c *paho.Connect) { c.ClientID = "edge" }, 0x85},
		"will to another":        {rae, will("rollcall/v1/RAE-2/presence"), 0x87},
		"will around the bridge": {rae, will(events), 0x87},
	} {
		t.Run(name, func(t *testing.T) {
			_, ack, err := connect(t, b, test.user, test.change)
			require.Error(t, err)
			require.NotNil(t, ack)
			require.Equal(t, test.code, ack.ReasonCode)
		})
	}
	mustConnect(t, b, "RAE-2", will("rollcall/v1/RAE-2/presence"))
}

func TestCommandsReachTheSession(t *testing.T) {
	b := start(t, broker.Options{MaxPacketSize: 1 << 10})
	commands := "rollcall/v1/" + rae + "/sessions/" + session + "/commands"
	require.ErrorIs(t, b.Publish(commands, []byte("early")), broker.ErrNoSubscriber)
	require.ErrorContains(t, b.Publish("a/#", nil), "is not a topic")
	require.ErrorContains(t, b.Publish(commands, make([]byte, 1<<10)), "exceeds the packet size")

	got := make(chan string, 1)
	client := mustConnect(t, b, rae, func(cfg *paho.ClientConfig, _ *paho.Connect) {
		cfg.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			got <- fmt.Sprintf("%s %s %d", p.Packet.Topic, p.Packet.Payload, p.Packet.QoS)
			return true, nil
		}}
	})
	_, err := client.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "rollcall/v1/" + rae + "/sessions/+/commands", QoS: 1}}})
	require.NoError(t, err)
	require.NoError(t, b.Publish(commands, []byte("snapshot")))
	require.Equal(t, commands+" snapshot 1", next(t, got))
}

func TestOnlyPresenceIsRetained(t *testing.T) {
	b := start(t, broker.Options{})
	client := mustConnect(t, b, rae)
	retain := func(topic string) (*paho.PublishResponse, error) {
		return client.Publish(t.Context(), &paho.Publish{QoS: 1, Retain: true, Topic: topic, Payload: []byte("x")})
	}
	_, err := retain("rollcall/v1/" + rae + "/presence")
	require.NoError(t, err)
	response, err := retain(events)
	require.Error(t, err)
	require.EqualValues(t, 0x87, response.ReasonCode)
}

// TestWhatCannotBeAnsweredEndsTheConnection sends what a careful client library
// would not, and expects an end rather than silence.
func TestWhatCannotBeAnsweredEndsTheConnection(t *testing.T) {
	b := start(t, broker.Options{MaxPacketSize: 4 << 10})
	for name, packet := range map[string]*packets.Publish{
		"QoS 2":       {QoS: 2, PacketID: 1, Topic: events, Properties: &packets.Properties{}},
		"$SYS":        {QoS: 1, PacketID: 1, Topic: "$SYS/x", Properties: &packets.Properties{}},
		"wildcard":    {QoS: 1, PacketID: 1, Topic: "rollcall/v1/" + rae + "/#", Properties: &packets.Properties{}},
		"topic alias": {QoS: 1, PacketID: 1, Topic: events, Properties: &packets.Properties{TopicAlias: ptr(uint16(1))}},
		"too large":   {QoS: 1, PacketID: 1, Topic: events, Payload: make([]byte, 8<<10), Properties: &packets.Properties{}},
	} {
		t.Run(name, func(t *testing.T) {
			conn := rawConnect(t, b)
			_, err := packet.WriteTo(conn)
			require.NoError(t, err)
			requireEnd(t, conn)
		})
	}
	t.Run("not MQTT", func(t *testing.T) {
		conn, err := net.Dial("tcp", b.Addr())
		require.NoError(t, err)
		_, err = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		require.NoError(t, err)
		requireEnd(t, conn)
	})
	mustConnect(t, b, rae) // and others are still served
}

func ptr[T any](v T) *T { return &v }

func rawConnect(t *testing.T, b *broker.Broker) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = (&packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: t.Name(), UsernameFlag: true, Username: rae, CleanStart: true, KeepAlive: 30, Properties: &packets.Properties{}}).WriteTo(conn)
	require.NoError(t, err)
	answer, err := packets.ReadPacket(conn)
	require.NoError(t, err)
	require.Equal(t, packets.CONNACK, answer.Type)
	return conn
}

func requireEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second))) // less than the keep-alive allows
	for {
		_, err := conn.Read(make([]byte, 1024))
		if err != nil {
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			var timeout net.Error
			require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection is still open")
			return
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := broker.Start(t.Context(), broker.Options{Addr: "127.0.0.1:0"})
	require.ErrorContains(t, err, "Forwarder is nil")
	_, err = broker.Start(t.Context(), broker.Options{Addr: "nowhere", Forwarder: &forwarder{}})
	require.ErrorContains(t, err, "broker: listen tcp")
}
