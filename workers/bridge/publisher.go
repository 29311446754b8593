package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/rollcall-platform/rollcall/internal/mqtt"
)

// publishTimeout bounds the wait for a PUBACK. There are brokers that leave a
// forbidden publish without one; past it the connection is given up.
const publishTimeout = 10 * time.Second

// Message is a command on its way to a RAE.
type Message struct {
	Topic    string
	Payload  []byte
	Expiry   time.Duration // the broker drops it when so much has passed; at least a second
	ID       string        // correlation data of MQTT 5
	Response string        // topic that the reply is expected on
}

// ErrUnheard is returned by a Publisher for a message that the broker has
// thrown away, because no MQTT session subscribes to its topic: the RAE has
// never been there, or was away for longer than the broker keeps its session.
var ErrUnheard = errors.New("no MQTT session subscribes to the topic")

// Publisher gives messages to an MQTT broker. When Publish returns nil, the
// broker has taken the message over. It is called by many goroutines.
type Publisher interface {
	Publish(ctx context.Context, m Message) error
}

// ClientOptions of an MQTT client that publishes. Broker is required.
type ClientOptions struct {
	Broker mqtt.Broker
	// ClientID must be no other client's: a broker ends the older connection
	// of two. Default "rollcall-bridge-commands".
	ClientID string
	// KeepAlive is MQTT's. Default 30 s; whole seconds.
	KeepAlive time.Duration

	Logger *slog.Logger // default slog.Default
	// Dial opens the connection. Default a net.Dialer's DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client is a Publisher for any MQTT 5 broker, at QoS 1. It keeps nothing: what
// has no PUBACK when the connection ends has failed, and is the caller's to
// publish again.
type Client struct {
	opts ClientOptions
	link *link

	mu     sync.Mutex
	client *paho.Client  // nil while there is no connection
	up     chan struct{} // closed while there is one
	fail   func(error)   // ends the connection
}

// NewClient validates o and returns a Client that has touched nothing.
func NewClient(o ClientOptions) (*Client, error) {
	or(&o.ClientID, "rollcall-bridge-commands")
	or(&o.KeepAlive, 30*time.Second)
	or(&o.Logger, slog.Default())
	l, err := newLink(o.Broker, o.ClientID, o.KeepAlive, o.Dial)
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	return &Client{opts: o, link: l, up: make(chan struct{})}, nil
}

// Ready is nil while connected.
func (c *Client) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return fmt.Errorf("bridge is not connected to the MQTT broker at %s to publish commands", c.link.address)
	}
	return nil
}

// Run keeps a connection until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	return c.link.keep(ctx, c.opts.Logger, c.serve)
}

// serve runs one connection. served tells that there was one.
func (c *Client) serve(ctx context.Context) (served bool, _ error) {
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default: // an earlier reason is enough
		}
	}
	opening, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	client, conn, _, err := c.link.connect(opening, paho.ClientConfig{PacketTimeout: publishTimeout}, paho.Connect{CleanStart: true}, fail)
	if err != nil {
		return false, err
	}
	c.set(client, fail)
	defer c.unset()
	c.opts.Logger.Info("connected to publish commands", "broker", c.link.address)
	select {
	case err := <-failed:
		_ = conn.Close()
		<-client.Done()
		return true, err
	case <-ctx.Done():
		return true, client.Disconnect(&paho.Disconnect{})
	}
}

func (c *Client) set(client *paho.Client, fail func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client, c.fail = client, fail
	close(c.up)
}

func (c *Client) unset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client, c.up = nil, make(chan struct{})
}

// Publish waits for a connection, publishes and waits for the PUBACK. It fails
// with ErrUnheard where the broker says that nobody is there, else with what
// went wrong; then the message may have been taken all the same.
func (c *Client) Publish(ctx context.Context, m Message) error {
	c.mu.Lock()
	client, up, fail := c.client, c.up, c.fail
	c.mu.Unlock()
	if client == nil {
		select {
		case <-up:
			return c.Publish(ctx, m)
		case <-ctx.Done():
			return fmt.Errorf("publish to %s: no connection to the broker: %w", m.Topic, ctx.Err())
		}
	}
	expiry := uint32(max(1, min(math.Ceil(m.Expiry.Seconds()), math.MaxUint32)))
	r, err := client.Publish(ctx, &paho.Publish{
		Topic: m.Topic, QoS: 1, Payload: m.Payload,
		Properties: &paho.PublishProperties{
			ContentType: "application/cloudevents+json", MessageExpiry: &expiry,
			CorrelationData: []byte(m.ID), ResponseTopic: m.Response,
		},
	})
	switch {
	case r != nil && r.ReasonCode == packets.PubackNoMatchingSubscribers:
		return ErrUnheard
	case r == nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		err = fmt.Errorf("no PUBACK within %s", publishTimeout)
		fail(err) // the send quota that it took comes back with a new connection alone
		return err
	}
	return err
}
