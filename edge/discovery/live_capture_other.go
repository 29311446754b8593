//go:build !linux

package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// LiveCapture captures on a LAN interface. It exists on Linux only.
type LiveCapture struct{}

// OpenLive fails: packet sockets are Linux's.
func OpenLive(LiveOptions) (*LiveCapture, error) {
	return nil, fmt.Errorf("live capture on %s: %w; replay a capture file instead", runtime.GOOS, errors.ErrUnsupported)
}

// Next implements Capture.
func (*LiveCapture) Next(context.Context) (Frame, error) { return Frame{}, errors.ErrUnsupported }

// Close implements Capture.
func (*LiveCapture) Close() error { return nil }

// LAN describes the LAN behind the interface.
func (*LiveCapture) LAN() LAN { return LAN{} }

// SendARP implements Prober.
func (*LiveCapture) SendARP(netip.Addr) error { return errors.ErrUnsupported }
