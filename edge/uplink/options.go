package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// Defaults of Options.
const (
	DefaultWindow        = 32
	DefaultSessionExpiry = time.Hour
	DefaultDrain         = 5 * time.Second
	DefaultMaxBackoff    = 30 * time.Second
)

// Outbox is where the events come from; a registry.Registry is one.
type Outbox interface {
	// Read returns the oldest events with a key greater than after.
	Read(after uint64, most int) ([]registry.Entry, error)
	// Ack removes the events with keys up to through.
	Ack(ctx context.Context, through uint64) error
	// Appended has a token when events were appended since one was taken.
	Appended() <-chan struct{}
}

// Options of an Uplink.
type Options struct {
	// URL of the broker: mqtt://host:1883 or mqtts://host:8883. Without TLS
	// anybody on the way can read and write everything, so mqtt:// to
	// another host than this one needs Insecure. Required.
	URL string
	// RAE is the serial of this RAE, and the MQTT client identifier. Required.
	RAE string
	// Outbox is required.
	Outbox Outbox
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer

	// Commands is called with each message on this RAE's command topics, one
	// at a time. When it returns nil the message is dealt with, durably, and
	// acknowledged; after an error it is called again with it. The same
	// message may come more than once. Default: none is subscribed to.
	Commands func(ctx context.Context, topic string, payload []byte) error

	// TLS for mqtts:// (see LoadTLS). Default: the system's roots, TLS 1.2
	// or later, no client certificate.
	TLS *tls.Config
	// Username and Password for brokers that do not take the identity from
	// the client certificate.
	Username string
	Password string
	// Insecure allows mqtt:// to other hosts.
	Insecure bool

	// Window is how many events may be in flight; the broker's Receive
	// Maximum bounds it too. More hides more latency, and repeats more after
	// a reconnect. Default DefaultWindow.
	Window int
	// SessionExpiry is how long the broker keeps the MQTT session while the
	// RAE is away. Default DefaultSessionExpiry.
	SessionExpiry time.Duration
	// Drain is how long Run, when its context is cancelled, goes on
	// publishing to empty the outbox. Default DefaultDrain; negative: not at all.
	Drain time.Duration
	// MaxBackoff bounds the time between attempts to connect, and to publish
	// what was refused. Attempts begin 100 ms apart, double, and are spread
	// by jitter over the interval's second half. Default DefaultMaxBackoff.
	MaxBackoff time.Duration

	// Now is the clock of presence messages. Default time.Now.
	Now func() time.Time
	// Rand returns numbers in [0, 1) for jitter. Default math/rand/v2.
	Rand func() float64
}

// check sets defaults and returns the broker's URL with its port.
func (o *Options) check() (*url.URL, error) {
	if o.Outbox == nil || o.Logger == nil {
		return nil, errors.New("uplink: Outbox and Logger are required")
	}
	if err := device.CheckRAE(o.RAE); err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	o.Window = min(o.Window, 1024)
	if o.SessionExpiry == 0 {
		o.SessionExpiry = DefaultSessionExpiry
	}
	if o.Drain == 0 {
		o.Drain = DefaultDrain
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = DefaultMaxBackoff
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if (o.Username == "") != (o.Password == "") {
		return nil, errors.New("uplink: a username needs a password, and a password a username")
	}
	return CheckURL(o.URL, o.Insecure)
}

// CheckURL returns the broker's URL with its port, or why it cannot be used.
func CheckURL(raw string, insecure bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("broker URL is not of the form mqtt://host:1883 or mqtts://host:8883")
	}
	if u.User != nil {
		return nil, errors.New("broker URL holds a user: give the user name and a password file instead, command lines and logs are read by others")
	}
	if (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("broker URL %s: nothing may follow host and port", u)
	}
	port := map[string]string{"mqtt": "1883", "mqtts": "8883"}[u.Scheme]
	switch {
	case port == "":
		return nil, fmt.Errorf("broker URL %s: scheme %q is neither mqtt nor mqtts", u, u.Scheme)
	case u.Scheme == "mqtt" && !loopback(u.Hostname()) && !insecure:
		return nil, fmt.Errorf("broker URL %s: without TLS, anybody on the way can read and forge events; use mqtts://, or --insecure if that is acceptable", u)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	return &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), port)}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// TLSFiles name PEM files. All may be empty.
type TLSFiles struct {
	CA   string // certificates that may sign the broker's; default: the system's
	Cert string // this RAE's certificate; its common name must be the RAE's serial
	Key  string // its private key
}

// LoadTLS makes a client configuration from PEM files: TLS 1.2 or later, and
// with Cert and Key a client certificate, whose common name must be rae: it is
// what the broker's access rules see.
func LoadTLS(f TLSFiles, rae string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no PEM certificate", f.CA)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a client certificate needs its key, and a key its certificate")
	}
	if f.Cert == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	if cn := pair.Leaf.Subject.CommonName; cn != rae {
		return nil, fmt.Errorf("client certificate %s is of %q, not of RAE %q: the broker would refuse what this RAE publishes", f.Cert, cn, rae)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
