// Package probe sends an ARP request (RFC 826) to each known IPv4 address from time
// to time, so that a device that is there does not count as silent.
//
// It only sends. The answers arrive as frames of the live capture, as all frames of
// devices do, and keep the device online.
package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// Defaults of Options.
const (
	DefaultInterval = 30 * time.Second
	DefaultPace     = 5 * time.Millisecond
)

// Options of a Probe.
type Options struct {
	// Prober sends the requests. Required.
	Prober discovery.Prober
	// Addresses returns the addresses to probe. Required.
	Addresses func() []netip.Addr
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer

	// Interval is the time between two rounds, give or take a tenth. A
	// device counts as offline after a few rounds without an answer, so a
	// shorter one notices sooner and wakes sleeping devices more often.
	// Default DefaultInterval.
	Interval time.Duration
	// Pace is the time between two requests of a round, so that a round is
	// no burst of broadcasts. Default DefaultPace.
	Pace time.Duration
	// Rand returns numbers in [0, 1) for jitter. Default math/rand/v2.
	Rand func() float64
}

// Probe sends rounds of requests.
type Probe struct {
	o    Options
	sent *prometheus.CounterVec
}

// New validates the options.
func New(o Options) (*Probe, error) {
	if o.Prober == nil || o.Addresses == nil || o.Logger == nil {
		return nil, errors.New("probe: Prober, Addresses and Logger are required")
	}
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Pace <= 0 {
		o.Pace = DefaultPace
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	p := &Probe{o: o, sent: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rollcall_edge_probes_total", Help: "ARP requests for known devices, by result: sent, failed."}, []string{"result"})}
	p.sent.WithLabelValues("sent")
	p.sent.WithLabelValues("failed")
	if o.Registerer != nil {
		if err := o.Registerer.Register(p.sent); err != nil {
			return nil, fmt.Errorf("register probe metrics: %w", err)
		}
	}
	return p, nil
}

// Run probes until ctx is cancelled. A request that cannot be sent is counted
// and logged, and tried again in the next round.
func (p *Probe) Run(ctx context.Context) error {
	if p.o.Registerer != nil {
		defer p.o.Registerer.Unregister(p.sent)
	}
	for retry.Sleep(ctx, time.Duration(float64(p.o.Interval)*(0.9+0.2*p.o.Rand()))) == nil {
		p.sendRound(ctx)
	}
	return nil
}

func (p *Probe) sendRound(ctx context.Context) {
	failed, last := 0, error(nil)
	for _, addr := range p.o.Addresses() {
		if err := p.o.Prober.SendARP(addr); err != nil {
			failed, last = failed+1, err
			p.sent.WithLabelValues("failed").Inc()
		} else {
			p.sent.WithLabelValues("sent").Inc()
		}
		if retry.Sleep(ctx, p.o.Pace) != nil {
			return
		}
	}
	if failed > 0 {
		p.o.Logger.Warn("some probes could not be sent", "failed", failed, "err", last)
	}
}
