package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

const (
	contentType = "application/cloudevents+json"
	// minPacketSize is the largest event with room for its topic and header.
	minPacketSize = device.MaxEventBytes + 1024

	keepAlive      = 30 // s
	connectTimeout = 10 * time.Second
	goodbyeTimeout = 2 * time.Second
	// willDelay spares the watchers of the presence topic the will of a
	// connection that comes back at once.
	willDelay  = 5 // s
	minBackoff = 100 * time.Millisecond
	// ackInterval is how often paho sends the acknowledgements of commands
	// that are due. Those that are not sent when the connection ends cost a
	// repetition.
	ackInterval = 10 * time.Millisecond
	// steady is how long a connection must have lasted for the next attempt
	// to be made without back-off: a broker may accept and then hang up.
	steady = 10 * time.Second
	// cleanAfter is how many connections in a row may be short before the
	// next one starts a new MQTT session: some brokers close the connection on
	// which they have refused something, and paho would repeat that at once.
	// The outbox has all that the MQTT session had.
	cleanAfter = 3
)

// Uplink publishes an outbox.
type Uplink struct {
	o        Options
	url      *url.URL
	tls      *tls.Config // nil: none
	presence string
	session  *mqttSession
	metrics  *metrics
	inbox    *inbox // nil: no commands are subscribed to

	greeting  sync.WaitGroup
	withdrawn atomic.Bool // the broker has our goodbye: it needs no will

	mu        sync.Mutex
	stopGreet context.CancelFunc // ends the greeting of the last connection
	err       error              // why there is no connection, nil while there is one
	refusal   error              // why the broker does not take events, nil while it does
	clean     bool               // the next connection starts a new MQTT session
	asked     bool               // the last one asked for a new one
	had       bool               // there was a connection, and so an MQTT session at the broker
	upSince   time.Time
	short     int // connections in a row that did not last
	reported  string
}

// New validates the options.
func New(o Options) (*Uplink, error) {
	u := &Uplink{session: newMQTTSession(), err: errors.New("not started")}
	var err error
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	if u.url, u.tls, err = o.Broker.Endpoint(); err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	u.o = o
	if u.presence, err = device.PresenceTopic(o.RAE); err != nil {
		return nil, err
	}
	if o.Commands != nil {
		u.inbox = newInbox(u)
	}
	if u.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, err
	}
	return u, nil
}

// Ready returns nil while events flow, else why they do not.
func (u *Uplink) Ready() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.refusal != nil {
		return u.refusal
	}
	return u.err
}

// Run connects, publishes and reconnects until ctx is cancelled. Then, while
// the broker is there, it goes on for up to Options.Drain until the outbox is
// empty, says goodbye and returns nil. It never gives up by itself.
func (u *Uplink) Run(ctx context.Context) error {
	defer u.metrics.unregister()
	// A connection that came up while we say goodbye greets until link ends: it
	// must have ended before the wait.
	defer u.greeting.Wait()
	link, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	cm, err := autopaho.NewConnection(link, u.config(link))
	if err != nil {
		return fmt.Errorf("uplink to %s: %w", u.url, err)
	}
	var handling sync.WaitGroup
	defer handling.Wait()
	if u.inbox != nil {
		handling.Go(func() { u.inbox.run(ctx) })
	}
	p := &pump{u: u, session: u.session, more: true}
	p.run(ctx)
	handling.Wait() // what was answered is drained with the rest
	if u.o.Drain > 0 {
		drain, cancel := context.WithTimeout(link, u.o.Drain)
		p.drain(drain)
		cancel()
	}
	goodbye, cancel := context.WithTimeout(link, goodbyeTimeout)
	defer cancel()
	u.stopGreeting()
	if p.session.peek().up {
		if err := u.announce(goodbye, cm, statusOffline); err != nil {
			u.o.Logger.Debug("presence was not withdrawn; the broker will publish the will", "topic", u.presence, "err", err)
		} else {
			u.withdrawn.Store(true)
		}
	}
	if err := cm.Disconnect(goodbye); err != nil {
		u.o.Logger.Debug("disconnect was not clean; the broker will publish the will", "url", u.url.String(), "err", err)
	}
	return nil
}

func (u *Uplink) config(ctx context.Context) autopaho.ClientConfig {
	qos, expiry, delay := byte(1), uint32(u.o.SessionExpiry/time.Second), uint32(willDelay)
	received := func(paho.PublishReceived) (bool, error) { return true, nil } // nothing is subscribed to
	if u.inbox != nil {
		received = u.inbox.receive
	}
	return autopaho.ClientConfig{
		ServerUrls:            []*url.URL{u.url},
		TlsCfg:                u.tls,
		KeepAlive:             keepAlive,
		SessionExpiryInterval: expiry,
		ConnectTimeout:        connectTimeout,
		ReconnectBackoff:      u.reconnectBackoff,
		ConnectPacketBuilder:  u.connectPacket,
		ConnectUsername:       u.o.Broker.Username,
		ConnectPassword:       []byte(u.o.Broker.Password),
		WillMessage:           &paho.WillMessage{Topic: u.presence, Payload: presencePayload(u.o.RAE, statusOffline, time.Time{}), QoS: qos, Retain: true},
		WillProperties:        &paho.WillProperties{WillDelayInterval: &delay, ContentType: "application/json"},
		OnConnectionUp:        func(cm *autopaho.ConnectionManager, ack *paho.Connack) { u.onUp(ctx, cm, ack) },
		OnConnectionDown:      u.onDown,
		OnConnectError:        u.onConnectError,
		DisconnectPacketBuilder: func() *paho.Disconnect {
			if u.withdrawn.Load() {
				return &paho.Disconnect{}
			}
			// On a connection that came up too late for the goodbye.
			return &paho.Disconnect{ReasonCode: packets.DisconnectDisconnectWithWillMessage}
		},
		ClientConfig: paho.ClientConfig{
			ClientID: u.o.RAE,
			Session:  u.session,
			OnServerDisconnect: func(d *paho.Disconnect) {
				if d.ReasonCode == packets.DisconnectSessionTakenOver {
					u.o.Logger.Error("another client has connected with this RAE's serial: are there two, or a copy of one?", "url", u.url.String())
				}
				u.o.Logger.Warn("broker closed the connection", "url", u.url.String(), "reason", fmt.Sprintf("0x%02x", d.ReasonCode))
			},
			OnPublishReceived:          []func(paho.PublishReceived) (bool, error){received},
			EnableManualAcknowledgment: u.inbox != nil,
			SendAcksInterval:           ackInterval,
		},
	}
}

func (u *Uplink) onUp(ctx context.Context, cm *autopaho.ConnectionManager, ack *paho.Connack) {
	u.stopGreeting()
	ctx, cancel := context.WithCancel(ctx)
	u.mu.Lock()
	u.err, u.upSince, u.reported, u.stopGreet = nil, time.Now(), "", cancel
	lost := u.had && !u.asked && !ack.SessionPresent
	u.clean, u.had = false, true
	u.mu.Unlock()
	if lost {
		u.metrics.sessionsLost.Inc()
		u.o.Logger.Warn("the broker has lost this RAE's MQTT session: commands that waited there are gone; events are in the outbox and are sent again", "url", u.url.String())
	}
	u.metrics.connected.Set(1)
	u.metrics.connects.Inc()
	u.o.Logger.Info("connected to the broker", "url", u.url.String(), "session_present", ack.SessionPresent)
	u.greeting.Go(func() { u.greet(ctx, cm) })
	if u.inbox != nil {
		u.greeting.Go(func() { u.inbox.subscribe(ctx, cm) })
	}
}

func (u *Uplink) stopGreeting() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopGreet != nil {
		u.stopGreet()
	}
}

func (u *Uplink) onDown() bool {
	u.mu.Lock()
	u.err = fmt.Errorf("connection to %s is down", u.url)
	if time.Since(u.upSince) < steady {
		u.short++
	} else {
		u.short = 0
	}
	u.mu.Unlock()
	u.metrics.connected.Set(0)
	u.metrics.subscribed.Set(0)
	u.o.Logger.Warn("connection to the broker was lost; reconnecting", "url", u.url.String())
	return true
}

func (u *Uplink) onConnectError(err error) {
	u.mu.Lock()
	u.err = fmt.Errorf("broker: %w", err)
	var answer *autopaho.ConnackError
	if errors.As(err, &answer) && answer.ReasonCode < 0x80 {
		u.short++ // accepted, and closed while the session was repeated
	}
	first := u.reported != err.Error()
	u.reported = err.Error()
	u.mu.Unlock()
	if first { // the same again is not news
		u.o.Logger.Warn("cannot connect to the broker; retrying with back-off, events wait in the outbox", "url", u.url.String(), "err", err)
	}
}

// setRefusal sets why the broker does not take events; nil if it does.
func (u *Uplink) setRefusal(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refusal = err
}

// startClean lets the next connection start a new MQTT session.
func (u *Uplink) startClean() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clean = true
}

// reconnect drops the connection for reasons of our own, which do not count
// against the MQTT session: it is continued.
func (u *Uplink) reconnect() {
	u.mu.Lock()
	u.upSince = time.Time{}
	u.mu.Unlock()
	u.session.closeConn()
}

func (u *Uplink) connectPacket(cp *paho.Connect, _ *url.URL) (*paho.Connect, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.inbox != nil {
		most, size := uint16(receiveMaximum), uint32(maxCommandPacket)
		if cp.Properties == nil {
			cp.Properties = &paho.ConnectProperties{}
		}
		cp.Properties.ReceiveMaximum, cp.Properties.MaximumPacketSize = &most, &size
	}
	cp.CleanStart = cp.CleanStart || u.clean || u.short >= cleanAfter
	u.asked = cp.CleanStart
	return cp, nil
}

func (u *Uplink) reconnectBackoff(attempt int) time.Duration {
	u.mu.Lock()
	short := u.short
	u.mu.Unlock()
	return u.backoff(attempt + short)
}

// backoff is how long to wait before an attempt: nothing before attempt 0, then
// up to MaxBackoff.
func (u *Uplink) backoff(attempt int) time.Duration {
	if attempt <= 0 {
		return 0
	}
	return retry.Backoff{First: minBackoff, Max: u.o.MaxBackoff, Rand: u.o.Rand}.Delay(attempt - 1)
}
