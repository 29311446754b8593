package discovery

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// LinkType is a link-layer header type as pcap files number them.
type LinkType uint16

// LinkEthernet is the only link type the parser reads; captures refuse others.
const LinkEthernet LinkType = 1

// Frame is one link-layer frame.
type Frame struct {
	// Time is when the frame counts as seen: the arrival of a live frame, the replay time of a recorded one.
	Time time.Time
	// Recorded is the time stamp in the capture file; for a live frame it equals Time.
	Recorded time.Time
	// Index counts the frames of this capture from 1; for a file it is the frame's number in the file,
	// also after a resume.
	Index int64
	// Data starts at the Ethernet header. It is the receiver's until the next call of Next.
	Data []byte
	// LinkType is LinkEthernet.
	LinkType LinkType
}

// Capture delivers the frames of a LAN one at a time, live or from a file. It holds one frame in memory,
// whatever the size of its input.
type Capture interface {
	// Next waits for the next frame. It returns io.EOF at the end of a file, ctx.Err() when ctx ends
	// first (the capture stays usable), and any other error once the capture can deliver no more.
	Next(ctx context.Context) (Frame, error)
	// Close releases the capture and ends a pending Next.
	Close() error
}

// Prober asks a LAN address whether it is there. The answer arrives as a frame of the live capture.
type Prober interface {
	// SendARP broadcasts an ARP who-has for ip. It fails if ip is not on the interface's LAN.
	SendARP(ip netip.Addr) error
}

// Errors of capture files. A FileCapture wraps them with the file's name, the frame and the byte offset.
var (
	// ErrTruncated: the file ends inside a record. Every whole frame before it was delivered.
	ErrTruncated = errors.New("capture is truncated")
	// ErrNotCapture: the file is neither pcap nor pcapng.
	ErrNotCapture = errors.New("not a pcap or pcapng capture")
	// ErrEmptyCapture: the file has no bytes at all.
	ErrEmptyCapture = errors.New("capture file is empty")
	// ErrCorrupt: a record contradicts the file format, so that nothing after it can be found.
	ErrCorrupt = errors.New("capture is corrupt")
	// ErrLinkType: the frames are not Ethernet.
	ErrLinkType = errors.New("capture is not of Ethernet frames")
)

// Errors of live capture.
var (
	// ErrNoInterface: no interface of that name. The message lists those that exist.
	ErrNoInterface = errors.New("no such interface")
	// ErrPermission: the process may not open packet sockets (it needs CAP_NET_RAW).
	ErrPermission = errors.New("not permitted to capture packets")
	// ErrInterfaceGone: the interface was removed while capturing.
	ErrInterfaceGone = errors.New("interface was removed")
)
