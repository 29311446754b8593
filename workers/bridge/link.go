package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"syscall"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// connectTimeout bounds dialling, TLS and CONNECT together.
const connectTimeout = 15 * time.Second

var reconnectBackoff = retry.Backoff{First: 100 * time.Millisecond, Max: 15 * time.Second}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// errTakenOver ends a connection whose client ID another client has connected with.
var errTakenOver = errors.New("another client has connected with this client ID: give each bridge one of its own (--mqtt-client-id)")

// takeoverWithin is how soon the end of a connection is taken for a takeover where
// the broker does not say why it closed it. Some brokers close without a word, and
// two clients of one ID end each other's connections within a back-off.
const takeoverWithin = 30 * time.Second

// takenOver reports whether a connection that began at begin and ended now with err
// was, or looks as if, another client with the ID has connected.
func takenOver(err error, begin time.Time) bool {
	closed := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	return errors.Is(err, errTakenOver) || closed && time.Since(begin) < takeoverWithin
}

// link is how one MQTT client reaches its broker.
type link struct {
	address   string
	tls       *tls.Config // nil: none
	broker    mqtt.Broker
	clientID  string
	keepAlive uint16 // s
	dial      dialFunc
}

func newLink(b mqtt.Broker, clientID string, keepAlive time.Duration, dial dialFunc) (*link, error) {
	u, config, err := b.Endpoint()
	if err != nil {
		return nil, err
	}
	if keepAlive < time.Second || keepAlive.Seconds() > math.MaxUint16 {
		return nil, fmt.Errorf("keep-alive %s is outside what MQTT can say", keepAlive)
	}
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &link{address: u.Host, tls: config, broker: b, clientID: clientID, keepAlive: uint16(keepAlive.Seconds()), dial: dial}, nil
}

// connect opens a connection and logs in. It completes config and connect with
// what is the same for all clients. failed is called with why the connection
// ends; it may be called more than once. resumed tells that the broker had the
// client's MQTT session.
func (l *link) connect(ctx context.Context, config paho.ClientConfig, connect paho.Connect, failed func(error)) (client *paho.Client, conn net.Conn, resumed bool, err error) {
	if conn, err = l.open(ctx); err != nil {
		return nil, nil, false, err
	}
	config.ClientID, config.Conn = l.clientID, packets.NewThreadSafeConn(conn)
	config.OnClientError = failed
	config.OnServerDisconnect = func(d *paho.Disconnect) {
		if d.ReasonCode == packets.DisconnectSessionTakenOver {
			failed(errTakenOver)
			return
		}
		failed(fmt.Errorf("broker disconnected, reason code %#x", d.ReasonCode))
	}
	connect.ClientID, connect.KeepAlive = l.clientID, l.keepAlive
	connect.Username, connect.UsernameFlag = l.broker.Username, l.broker.Username != ""
	connect.Password, connect.PasswordFlag = []byte(l.broker.Password), l.broker.Password != ""
	client = paho.NewClient(config)
	ack, err := client.Connect(ctx, &connect)
	if err != nil {
		_ = conn.Close()
		return nil, nil, false, err
	}
	return client, conn, ack.SessionPresent, nil
}

// open opens the network connection, with TLS where it is asked for.
func (l *link) open(ctx context.Context) (net.Conn, error) {
	conn, err := l.dial(ctx, "tcp", l.address)
	if err != nil || l.tls == nil {
		return conn, err
	}
	secure := tls.Client(conn, l.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// keep has serve run one connection after the other until ctx ends. served tells
// that there was one, so that the next is tried at once.
func (l *link) keep(ctx context.Context, log *slog.Logger, serve func(context.Context) (served bool, err error)) error {
	log = log.With("client", l.clientID)
	for n := 0; ; n++ {
		served, err := serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if served {
			n = 0
		}
		log.Warn("MQTT connection ended, trying again (are address, TLS and credentials right?)", "broker", l.address, "err", err)
		if reconnectBackoff.Sleep(ctx, n) != nil {
			return nil
		}
	}
}
