package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// ackInterval is how often paho sends the acks that are due, in order.
const ackInterval = 10 * time.Millisecond

// AsyncForwarder is what the subscriber needs of a Forwarder.
type AsyncForwarder interface {
	ForwardAsync(ctx context.Context, topic string, payload []byte, done func(error))
}

// SubscriberOptions of a Subscriber. Broker and Forwarder are required.
type SubscriberOptions struct {
	Broker mqtt.Broker
	// ClientID names the persistent MQTT session, in which the broker keeps what
	// comes while the bridge is away: keep it the same over restarts, and
	// give each bridge its own. Default "rollcall-bridge".
	ClientID string
	// Filters are what this bridge takes. Default: the events and replies of
	// all RAEs. To scale, give each bridge filters that no other has, such as
	// rollcall/v1/RAE-7/sessions/+/events. $share is refused: no broker we
	// know keeps a topic's order in a shared subscription.
	Filters []string
	// SessionExpiry is how long the broker keeps the MQTT session while the bridge
	// is away. Default 7 days; whole seconds. When it passes, what came
	// meanwhile is lost to the cloud until the next snapshots.
	SessionExpiry time.Duration
	// ReceiveMaximum is how many messages may be unacknowledged: the
	// pipeline's depth, and the bound on what a lost connection repeats.
	// Default 1,000.
	ReceiveMaximum uint16
	// KeepAlive is MQTT's. Default 30 s; whole seconds.
	KeepAlive time.Duration
	// DrainTimeout bounds the wait for Kafka when Run is stopped. Default 10 s.
	DrainTimeout time.Duration

	Forwarder  AsyncForwarder
	Logger     *slog.Logger          // default slog.Default
	Registerer prometheus.Registerer // default: metrics are kept and shown nowhere
	// Dial opens the connection. Default a net.Dialer's DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Subscriber takes messages from an MQTT 5 broker and acknowledges each only
// when it is durable. An MQTT message cannot be refused and asked for again on
// the same connection, so a message that fails costs the connection: the broker
// redelivers all that was not acknowledged on the next.
type Subscriber struct {
	opts    SubscriberOptions
	link    *link
	log     *slog.Logger
	metrics *frontMetrics
	up      atomic.Bool
	had     bool // the broker had our MQTT session; serve's
}

// NewSubscriber validates o and returns a Subscriber that has touched nothing.
func NewSubscriber(o SubscriberOptions) (*Subscriber, error) {
	or(&o.ClientID, "rollcall-bridge")
	or(&o.SessionExpiry, 7*24*time.Hour)
	or(&o.ReceiveMaximum, 1000)
	or(&o.KeepAlive, 30*time.Second)
	or(&o.DrainTimeout, 10*time.Second)
	or(&o.Logger, slog.Default())
	if len(o.Filters) == 0 {
		o.Filters = []string{device.FilterEvents, device.FilterReplies}
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	s := &Subscriber{opts: o, log: o.Logger}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	s.metrics = newFrontMetrics(o.Registerer)
	return s, nil
}

func (s *Subscriber) check() error {
	o := s.opts
	if o.Forwarder == nil {
		return errors.New("no forwarder")
	}
	var err error
	if s.link, err = newLink(o.Broker, o.ClientID, o.KeepAlive, o.Dial); err != nil {
		return err
	}
	for _, f := range o.Filters {
		if strings.HasPrefix(f, "$share/") {
			return fmt.Errorf("filter %q is a shared subscription, which loses the order within a topic: give each bridge filters of its own", f)
		}
		if !strings.HasPrefix(f, "rollcall/v1/") {
			return fmt.Errorf("filter %q does not begin with rollcall/v1/", f)
		}
	}
	for name, d := range map[string]time.Duration{"session expiry": o.SessionExpiry, "drain timeout": o.DrainTimeout} {
		if d <= 0 {
			return fmt.Errorf("%s %s is not positive", name, d)
		}
	}
	if o.SessionExpiry.Seconds() >= math.MaxUint32 {
		return fmt.Errorf("session expiry %s is outside what MQTT can say", o.SessionExpiry)
	}
	return nil
}

// Ready is nil while connected and subscribed.
func (s *Subscriber) Ready() error {
	if !s.up.Load() {
		return fmt.Errorf("bridge is not connected to the MQTT broker at %s", s.link.address)
	}
	return nil
}

// Run takes messages until ctx ends. Then it waits for Kafka to acknowledge what
// it has, acknowledges that to the broker, and disconnects; the MQTT session stays.
func (s *Subscriber) Run(ctx context.Context) error {
	return s.link.keep(ctx, s.log, s.serve)
}

// connection is one connection to the broker. failed has room for the first
// reason why it ends; later ones do not matter.
type connection struct {
	s      *Subscriber
	conn   net.Conn
	client *paho.Client
	acks   acks
	failed chan error
	ctx    context.Context // of what is forwarded
	cancel context.CancelFunc

	mu       sync.Mutex
	stopping bool
	pending  sync.WaitGroup // forwarded and not yet answered
}

// serve runs one connection. served tells that it was subscribed.
func (s *Subscriber) serve(ctx context.Context) (served bool, err error) {
	c := &connection{s: s, failed: make(chan error, 1), acks: acks{SessionManager: state.NewInMemory()}}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer c.cancel()
	if err := c.open(ctx); err != nil {
		return false, err
	}
	s.metrics.connections.Inc()
	s.metrics.connected.Set(1)
	s.up.Store(true)
	began := time.Now()
	defer func() { s.up.Store(false); s.metrics.connected.Set(0) }()
	s.log.Info("subscribed", "broker", s.link.address, "filters", s.opts.Filters)
	select {
	case err := <-c.failed:
		s.metrics.disconnects.Inc()
		c.abandon()
		if takenOver(err, began) {
			s.metrics.takeovers.Inc()
			return false, fmt.Errorf("%w: has another bridge this client ID?", err) // with back-off: the two would do nothing else
		}
		return true, err
	case <-ctx.Done():
		return true, c.drain()
	}
}

func (c *connection) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	o := c.s.opts
	expiry, receive := uint32(o.SessionExpiry.Seconds()), o.ReceiveMaximum
	var err error
	var resumed bool
	c.client, c.conn, resumed, err = c.s.link.connect(ctx, paho.ClientConfig{
		Session: &c.acks, EnableManualAcknowledgment: true, SendAcksInterval: ackInterval,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){c.receive},
	}, paho.Connect{
		CleanStart: false, // it continues the MQTT session
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry, ReceiveMaximum: &receive},
	}, c.fail)
	if err != nil {
		return err
	}
	subscribe := &paho.Subscribe{}
	for _, f := range o.Filters {
		// 2: what is retained is not sent at subscribing.
		subscribe.Subscriptions = append(subscribe.Subscriptions, paho.SubscribeOptions{Topic: f, QoS: 1, RetainHandling: 2})
	}
	if _, err := c.client.Subscribe(ctx, subscribe); err != nil {
		c.abandon()
		return fmt.Errorf("subscribe to %q: %w", o.Filters, err)
	}
	if c.s.had && !resumed {
		c.s.metrics.sessionsLost.Inc()
		c.s.log.Error("the broker has lost this bridge's MQTT session: what it held for the bridge is gone, and gaps will ask the edges for snapshots; has the broker a durable store, and is the session's expiry long enough?",
			"broker", c.s.link.address, "session_expiry", o.SessionExpiry)
	}
	c.s.had = true
	return nil
}

// fail ends the connection for the first reason given.
func (c *connection) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

// receive is called for one message at a time, in order. When it blocks, for
// Kafka, the broker stops at the Receive Maximum.
func (c *connection) receive(p paho.PublishReceived) (bool, error) {
	c.s.metrics.received.Inc()
	c.mu.Lock()
	if c.stopping {
		c.mu.Unlock()
		return true, nil // neither forwarded nor acknowledged: it comes again
	}
	c.pending.Add(1)
	c.mu.Unlock()
	m := p.Packet
	c.s.opts.Forwarder.ForwardAsync(c.ctx, m.Topic, m.Payload, func(err error) {
		defer c.pending.Done()
		switch {
		case errors.Is(err, ErrTopic):
			c.s.log.Warn("message dropped: a filter takes what is not forwarded", "topic", m.Topic)
		case err != nil && m.QoS == 0: // it would not come again on another connection
			c.s.log.Warn("message lost: it came with QoS 0, and Kafka did not take it", "topic", m.Topic, "err", err)
			return
		case err != nil:
			c.stop()
			c.fail(err)
			return
		}
		if m.QoS == 0 {
			return // it is owed no ack
		}
		if p.Client.Ack(m) == nil { // it fails only where the connection is gone
			c.acks.due.Add(1)
		}
	})
	return true, nil
}

// stop ends forwarding: what follows a message that failed must not go first.
func (c *connection) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
}

// abandon drops the connection as it is. The MQTT session, and what was not
// acknowledged, stay with the broker. The client ends only when receive has
// returned, hence the cancelling first.
func (c *connection) abandon() {
	c.stop()
	c.cancel()
	c.conn.Close()
	<-c.client.Done()
}

// drain waits for what was forwarded, lets paho send the acks, and disconnects
// in an orderly way, which keeps the MQTT session.
func (c *connection) drain() error {
	c.stop()
	ctx, cancel := context.WithTimeout(c.ctx, c.s.opts.DrainTimeout)
	defer cancel()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		c.pending.Wait()
		for !c.acks.written() && retry.Sleep(ctx, ackInterval) == nil {
		}
	}()
	select {
	case <-answered:
	case err := <-c.failed:
		c.abandon()
		return err
	case <-ctx.Done():
		c.s.log.Warn("Kafka did not acknowledge in time: the broker will deliver again", "after", c.s.opts.DrainTimeout)
		c.cancel()
	}
	return c.client.Disconnect(&paho.Disconnect{})
}

// acks is a client's MQTT session, and knows which acks are written: paho sends those
// that are due at an interval, and they are lost if the connection ends first.
type acks struct {
	session.SessionManager
	due, sent atomic.Int64
}

// Ack implements session.SessionManager.
func (a *acks) Ack(p *packets.Publish) error {
	defer a.sent.Add(1)
	return a.SessionManager.Ack(p)
}

// ConnectionLost implements session.SessionManager. It also ends what waits for
// an answer, as paho does with a session of its own.
func (a *acks) ConnectionLost(d *packets.Disconnect) error {
	return errors.Join(a.SessionManager.ConnectionLost(d), a.Close())
}

func (a *acks) written() bool { return a.sent.Load() >= a.due.Load() }
