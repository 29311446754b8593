package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

// connectTimeout bounds dialling, TLS and CONNECT together.
const connectTimeout = 15 * time.Second

var reconnectBackoff = retry.Backoff{First: 100 * time.Millisecond, Max: 15 * time.Second}

// link is how an MQTT broker is reached.
type link struct {
	address string
	tls     *tls.Config // nil: none
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// newLink checks a broker's URL, mqtt://host:1883 or mqtts://host:8883.
func newLink(raw string, insecure bool, config *tls.Config, dial func(context.Context, string, string) (net.Conn, error)) (*link, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, errors.New("broker URL is not of the form mqtt://host:1883 or mqtts://host:8883, with nothing else in it")
	}
	port := map[string]string{"mqtt": "1883", "mqtts": "8883"}[u.Scheme]
	if port == "" {
		return nil, fmt.Errorf("broker URL %s: scheme %q is neither mqtt nor mqtts", u, u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	l := &link{address: net.JoinHostPort(u.Hostname(), port), dial: dial}
	if l.dial == nil {
		l.dial = (&net.Dialer{}).DialContext
	}
	if u.Scheme == "mqtts" {
		l.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if config != nil {
			l.tls = config.Clone()
		}
		if l.tls.ServerName == "" {
			l.tls.ServerName = u.Hostname()
		}
	} else if ip := net.ParseIP(u.Hostname()); !insecure && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("broker URL %s: without TLS, anybody on the way can read and forge events; use mqtts://, or --insecure if that is acceptable", u)
	}
	return l, nil
}

// open connects, with TLS where it is asked for.
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
