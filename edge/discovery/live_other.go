//go:build !linux

package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// LiveSource captures on a LAN interface. It exists on Linux only.
type LiveSource struct{}

// OpenLive fails: packet sockets are Linux's.
func OpenLive(LiveOptions) (*LiveSource, error) {
	return nil, fmt.Errorf("live capture on %s: %w; replay a capture file instead", runtime.GOOS, errors.ErrUnsupported)
}

// Next implements Source.
func (*LiveSource) Next(context.Context) (Frame, error) { return Frame{}, errors.ErrUnsupported }

// Close implements Source.
func (*LiveSource) Close() error { return nil }

// LAN describes the LAN behind the interface.
func (*LiveSource) LAN() LAN { return LAN{} }

// SendARP implements Prober.
func (*LiveSource) SendARP(netip.Addr) error { return errors.ErrUnsupported }
