package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
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
	// Broker says how the broker is reached. Required.
	Broker mqtt.Broker
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

// check sets defaults.
func (o *Options) check() error {
	if o.Outbox == nil || o.Logger == nil {
		return errors.New("Outbox and Logger are required")
	}
	if err := device.CheckRAE(o.RAE); err != nil {
		return err
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
	return nil
}

// LoadTLS loads f and checks that the client certificate, if there is one, is
// of rae: its common name is what the broker's access rules see.
func LoadTLS(f mqtt.TLSFiles, rae string) (*tls.Config, error) {
	c, err := f.Load()
	if err != nil {
		return nil, err
	}
	for _, pair := range c.Certificates {
		if cn := pair.Leaf.Subject.CommonName; cn != rae {
			return nil, fmt.Errorf("client certificate %s is of %q, not of RAE %q: the broker would refuse what this RAE publishes", f.Cert, cn, rae)
		}
	}
	return c, nil
}
