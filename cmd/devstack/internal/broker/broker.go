// Package broker runs an MQTT 5 broker inside this process whose publish hook
// is the bridge to Kafka: the PUBACK of a session's event or reply is sent after
// Forward returned nil, so that it means what it means in production, where the
// bridge acknowledges to a separate broker after Kafka's ack.
//
// Each client's publishes are forwarded one at a time in the order they came,
// and a client that is waited for reads no further: TCP carries the back-pressure
// to the edge. A publish that could not be forwarded is answered with reason code
// 0x83, and the edge keeps it. Later publishes that the edge had already sent are
// still tried, so a publish that is sent again can arrive after its successors;
// consumers order by seq.
//
// Access is denied by default. A client's user name is the serial of its RAE, and
// it may publish and subscribe under rollcall/v1/{user name}/ and nowhere else.
//
// Sessions, queued commands and retained messages are in memory: when the process
// ends they are lost, and the edges connect and announce themselves again. Events
// are not affected, since none is acknowledged before Kafka has it.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// Defaults of Options.
const (
	DefaultForwardTimeout = 10 * time.Second
	DefaultMaxPacketSize  = 256 << 10
	DefaultMaxClients     = 10_000
	DefaultReceiveMaximum = 256
)

// Forwarder takes over the responsibility for a message: when Forward returns
// nil the message is durable. It is called by many clients at once, one call at
// a time for each. The payload must not be changed.
type Forwarder interface {
	Forward(ctx context.Context, topic string, payload []byte) error
}

// Options say where the broker listens, whom it lets in and where events go.
type Options struct {
	// Addr is host:port; required. Without TLS, so keep it on loopback.
	Addr string

	// Forwarder gets every publish to a session's events and replies. Required.
	Forwarder Forwarder

	// Passwords by user name, which is the serial of the RAE.
	Passwords map[string]string

	// AllowAnyOnLoopback lets any user name in without looking at its password,
	// from loopback addresses only: for a demo whose RAEs are made up.
	AllowAnyOnLoopback bool

	// ForwardTimeout bounds one Forward; past it the publish is refused. While a
	// client waits its pings are not answered, so keep it below the clients'
	// keep-alive. Default: DefaultForwardTimeout.
	ForwardTimeout time.Duration

	// MaxPacketSize in bytes; a client that sends more is disconnected. Default:
	// DefaultMaxPacketSize, four times the largest event.
	MaxPacketSize uint32

	// MaxClients connected at a time; the next is told that the server is busy.
	// Default: DefaultMaxClients.
	MaxClients int64

	// ReceiveMaximum is how many publishes a client may have unacknowledged.
	// Default: DefaultReceiveMaximum.
	ReceiveMaximum uint16

	// Logger: refusals at warning. Default: slog.Default().
	Logger *slog.Logger
}

func (o *Options) setDefaults() error {
	if o.Forwarder == nil {
		return errors.New("broker: Options.Forwarder is nil")
	}
	if o.ForwardTimeout == 0 {
		o.ForwardTimeout = DefaultForwardTimeout
	}
	if o.MaxPacketSize == 0 {
		o.MaxPacketSize = DefaultMaxPacketSize
	}
	if o.MaxClients == 0 {
		o.MaxClients = DefaultMaxClients
	}
	if o.ReceiveMaximum == 0 {
		o.ReceiveMaximum = DefaultReceiveMaximum
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

// ErrNoSubscriber is returned by Publish when no session, connected or kept,
// subscribes to the topic.
var ErrNoSubscriber = errors.New("broker: nobody subscribes to the topic")

// Stats are counts since the start, except Clients.
type Stats struct {
	Clients   int64 // connected now
	Forwarded int64 // publishes that Forward took
	Refused   int64 // publishes that Forward did not take; the edge keeps them
	Denied    int64 // connections, publishes and subscriptions that are not allowed
	Dropped   int64 // messages to subscribers that could not take them
}

// Broker is a running broker.
type Broker struct {
	server *mqtt.Server
	addr   string
	hook   *hook
	cancel context.CancelCauseFunc
}

// Start listens and returns.
func Start(ctx context.Context, o Options) (*Broker, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	server := mqtt.New(&mqtt.Options{
		Capabilities: capabilities(&o),
		InlineClient: true,
		Logger:       slog.New(quiet{o.Logger.Handler()}),
		// Seconds; nobody may subscribe to these.
		SysTopicResendInterval: 3600,
	})
	forwarding, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	h := &hook{options: &o, server: server, ctx: forwarding}
	b := &Broker{server: server, addr: listener.Addr().String(), hook: h, cancel: cancel}
	if err := errors.Join(
		server.AddHook(h, nil),
		server.AddListener(&acceptor{listener: listener, log: o.Logger}),
		server.Serve(),
	); err != nil {
		cancel(err)
		return nil, errors.Join(fmt.Errorf("broker: %w", err), listener.Close())
	}
	return b, nil
}

func capabilities(o *Options) *mqtt.Capabilities {
	c := mqtt.NewDefaultServerCapabilities()
	c.MinimumProtocolVersion = 5 // before 5 a PUBACK cannot carry a refusal
	c.MaximumQos = 1
	c.MaximumPacketSize = o.MaxPacketSize
	c.MaximumClients = o.MaxClients
	c.ReceiveMaximum = o.ReceiveMaximum
	c.MaximumClientWritesPending = 1024
	c.MaximumInflight = 1024
	c.MaximumSessionExpiryInterval = uint32(24 * time.Hour / time.Second)
	c.SharedSubAvailable = 0
	c.TopicAliasMaximum = 0 // mochi asks the ACL before it resolves an alias
	c.Compatibilities.NoInheritedPropertiesOnAck = true
	return c
}

// Addr is the host:port that clients connect to.
func (b *Broker) Addr() string { return b.addr }

// Stats returns the counts of this moment.
func (b *Broker) Stats() Stats {
	info := b.server.Info
	return Stats{
		Clients:   atomic.LoadInt64(&info.ClientsConnected),
		Forwarded: b.hook.forwarded.Load(),
		Refused:   b.hook.refused.Load(),
		Denied:    b.hook.denied.Load(),
		Dropped:   atomic.LoadInt64(&info.MessagesDropped) + atomic.LoadInt64(&info.InflightDropped),
	}
}

// Publish sends payload at QoS 1 to whoever subscribes to topic, and queues it
// for those whose session is kept while they are away. That it returned nil says
// nothing about their having received it: a command is confirmed by its reply.
// A subscriber whose queue is full misses it (Stats.Dropped).
func (b *Broker) Publish(topic string, payload []byte) error {
	if !mqtt.IsValidFilter(topic, true) || topic == "" {
		return fmt.Errorf("broker: %q is not a topic", topic)
	}
	if len(payload) > math.MaxInt32 || uint32(len(payload)+len(topic))+64 > b.hook.options.MaxPacketSize {
		return fmt.Errorf("broker: a payload of %d bytes to %s exceeds the packet size of %d", len(payload), topic, b.hook.options.MaxPacketSize)
	}
	if len(b.server.Topics.Subscribers(topic).Subscriptions) == 0 {
		return fmt.Errorf("%w: %s", ErrNoSubscriber, topic)
	}
	return b.server.Publish(topic, payload, false, 1)
}

// Close refuses what is being forwarded, disconnects the clients and stops, or
// returns when ctx is done, whichever is first. It is called once.
func (b *Broker) Close(ctx context.Context) error {
	b.cancel(errors.New("the broker is stopping"))
	closed := make(chan error, 1)
	go func() { closed <- b.server.Close() }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("broker: still stopping: %w", context.Cause(ctx))
	}
}
