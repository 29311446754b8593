package probe_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/probe"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
)

type request struct {
	addr netip.Addr
	at   time.Time
}

type prober struct {
	sent []request
	fail netip.Addr
}

func (p *prober) SendARP(addr netip.Addr) error {
	if addr == p.fail {
		return errors.New("network is down")
	}
	p.sent = append(p.sent, request{addr, time.Now()})
	return nil
}

func TestAsksForEachAddressPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, bad := netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr("192.168.1.3"), netip.MustParseAddr("192.168.1.4")
		wire, reg := &prober{fail: bad}, prometheus.NewPedanticRegistry()
		p, err := probe.New(probe.Options{
			Prober: wire, Addresses: func() []netip.Addr { return []netip.Addr{a, bad, b} },
			Logger: slog.New(slog.DiscardHandler), Registerer: reg, Interval: 10 * time.Second, Rand: func() float64 { return 0.5 },
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- p.Run(ctx) }()
		time.Sleep(25 * time.Second)
		require.InDelta(t, 2, metrictest.Value(t, reg, "rollcall_edge_probes_total", "result", "failed"), 0)
		require.InDelta(t, 4, metrictest.Value(t, reg, "rollcall_edge_probes_total", "result", "sent"), 0)
		cancel()
		require.NoError(t, <-done)
		require.Len(t, wire.sent, 4)
		require.Equal(t, request{a, begin.Add(10 * time.Second)}, wire.sent[0])
		require.Equal(t, request{b, begin.Add(10*time.Second + 2*probe.DefaultPace)}, wire.sent[1])
	})
}

func TestOptionsAreRequired(t *testing.T) {
	_, err := probe.New(probe.Options{})
	require.Error(t, err)
}
