// Package edge is the Local Registry of a Reference Automation Environment: it
// wires packet source, parser, registry and uplink into one process.
//
// An edge reads either a LAN interface or a capture file. In the replay of a
// file each frame is a step of its own and is written with its position, so
// that a replay that was killed goes on behind the last frame that is on disk,
// and the events are the same, at every speed, as without the kill. Live, what
// comes while the last step is being written becomes one step.
package edge

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/edge/probe"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
)

// Files in the data directory.
const (
	DatabaseFile = "registry.db"
	ControlFile  = "edge.sock"
)

// Options of an Edge.
type Options struct {
	// RAE is the serial of this RAE. Required.
	RAE string
	// DataDir holds the registry and the control socket. It is created,
	// readable by its owner only, if it does not exist. Required.
	DataDir string
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer

	// Interface is the LAN interface to read. One of Interface and Capture
	// is required.
	Interface string
	// Capture is the pcap or pcapng file to replay.
	Capture string
	// Speed of the replay: 1 as recorded, 0 as fast as it goes. Default 0.
	Speed float64
	// MaxGap cuts pauses in the recording. Default 0: they are kept.
	MaxGap time.Duration
	// Rewind replays the capture from its first frame, whatever was
	// replayed before.
	Rewind bool
	// ExitAtEnd lets Run return when the replay has ended and all events
	// are published. Default: it goes on with snapshots.
	ExitAtEnd bool

	// LAN are the LAN's prefixes. Default: the interface's, or what the
	// capture tells.
	LAN []netip.Prefix
	// RouterMACs are the router's own addresses. Default: the interface's,
	// or what the capture tells.
	RouterMACs []string

	// Broker says how the MQTT broker is reached. Required.
	Broker mqtt.Broker
	// Window is how many events may be in flight; see uplink.Options.
	Window int
	// Drain is how long a stop may take to publish what waits. Default
	// uplink.DefaultDrain.
	Drain time.Duration

	// The registry's; see registry.Options.
	SnapshotInterval time.Duration
	ForgetAfter      time.Duration
	MaxDevices       int
	MaxOutboxBytes   int64
	// OfflineAfter is how long a device on an interface may be silent
	// before it is offline; a replay does not judge silence. Default
	// registry.DefaultOfflineAfter.
	OfflineAfter time.Duration
	// ProbeInterval is the time between two ARP requests for a device on an
	// interface. Negative: none are sent, and only what devices say by
	// themselves keeps them online. Default probe.DefaultInterval.
	ProbeInterval time.Duration
}

// Validate sets defaults and reports what is wrong, without touching anything.
func (o *Options) Validate() error {
	if o.DataDir == "" || o.Logger == nil {
		return errors.New("edge: DataDir and Logger are required")
	}
	if err := device.CheckRAE(o.RAE); err != nil {
		return err
	}
	if (o.Interface == "") == (o.Capture == "") {
		return errors.New("one of interface and capture is required, and not both")
	}
	if o.Capture == "" && o.ExitAtEnd {
		return errors.New("an interface has no end to exit at: that is for captures")
	}
	if o.Speed < 0 {
		return fmt.Errorf("speed %v is negative", o.Speed)
	}
	for i, m := range o.RouterMACs {
		mac, err := net.ParseMAC(m)
		if err != nil || len(mac) != 6 {
			return fmt.Errorf("router MAC %q is not of the form 02:00:00:00:00:01", m)
		}
		o.RouterMACs[i] = mac.String()
	}
	if err := o.Broker.Check(); err != nil {
		return err
	}
	if o.OfflineAfter == 0 {
		o.OfflineAfter = registry.DefaultOfflineAfter
	}
	if o.ProbeInterval == 0 {
		o.ProbeInterval = probe.DefaultInterval
	}
	if o.Interface != "" && o.ProbeInterval > 0 && o.OfflineAfter < 2*o.ProbeInterval {
		return fmt.Errorf("offline after %s, but probed every %s: a single lost answer would take a device offline; allow for two probes at least", o.OfflineAfter, o.ProbeInterval)
	}
	return nil
}
