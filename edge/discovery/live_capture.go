package discovery

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
)

// captureLength is the most bytes of a frame a live capture delivers: more than an IPv4 packet can have.
const captureLength = 65536 + 256

// LiveOptions configures a LiveCapture.
type LiveOptions struct {
	// Interface is the LAN interface's name. Required.
	Interface string
	// NoPromiscuous leaves the interface's receive filter alone but for all multicast. The default is
	// promiscuous mode, which on a bridge port also sees what devices say to each other.
	NoPromiscuous bool
	// SampleTraffic is N: of the frames that only show their sender's presence, one in N is delivered,
	// chosen by chance, and only its first bytes. So a fast link does not load the parser. 1 delivers
	// all, a negative N none. Default 64.
	SampleTraffic int
	// ReceiveBuffer is the size of the kernel's queue in bytes: what does not fit is dropped and
	// counted. Default 4 MiB (bounded by net.core.rmem_max without CAP_NET_ADMIN).
	ReceiveBuffer int
	// Stats counts the kernel's drops. Required.
	Stats *Stats
	// Logger gets a warning when the interface goes down. Default: discard.
	Logger *slog.Logger
}

const (
	defaultSample        = 64
	defaultReceiveBuffer = 4 << 20
)

func (o *LiveOptions) defaults() error {
	if o.Stats == nil {
		return fmt.Errorf("capture on interface %s: LiveOptions.Stats is required", o.Interface)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SampleTraffic == 0 {
		o.SampleTraffic = defaultSample
	}
	if o.ReceiveBuffer <= 0 {
		o.ReceiveBuffer = defaultReceiveBuffer
	}
	return nil
}

// InterfaceByName finds an Ethernet interface; the error of a wrong name lists those that exist.
func InterfaceByName(name string) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var names []string
	for i := range all {
		if all[i].Name == name {
			if len(all[i].HardwareAddr) != 6 {
				return nil, fmt.Errorf("interface %s has no Ethernet address: %w", name, ErrLinkType)
			}
			return &all[i], nil
		}
		names = append(names, all[i].Name)
	}
	return nil, fmt.Errorf("%w: %q; there are: %s", ErrNoInterface, name, strings.Join(names, ", "))
}
