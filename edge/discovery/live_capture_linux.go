package discovery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// checkInterval is how often a waiting LiveCapture looks whether its interface still exists, and how
// old the count of the kernel's drops may be.
const checkInterval = 2 * time.Second

// LiveCapture captures on a LAN interface through a packet socket. It also sees what this host sends,
// which is how the answers of a DHCP server on this host are read.
type LiveCapture struct {
	o      LiveOptions
	iface  *net.Interface
	lan    LAN
	file   *os.File // the packet socket
	conn   syscall.RawConn
	groups *memberships
	data   []byte
	oob    []byte
	index  int64
	check  time.Time // when drops and the interface were last looked at

	mu     sync.Mutex // guards the read deadline against a cancelled Next that is over
	closed bool
}

// OpenLive starts capturing. It needs CAP_NET_RAW. Errors wrap ErrNoInterface, ErrPermission or
// ErrLinkType where that is the cause.
func OpenLive(o LiveOptions) (*LiveCapture, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	iface, err := InterfaceByName(o.Interface)
	if err != nil {
		return nil, err
	}
	lan, err := LANOf(iface)
	if err != nil {
		return nil, err
	}
	fd, err := packetSocket(iface, &o)
	if err != nil {
		return nil, err
	}
	s := &LiveCapture{
		o: o, iface: iface, lan: lan,
		file: os.NewFile(uintptr(fd), "packet socket on "+iface.Name),
		data: make([]byte, captureLength),
		oob:  make([]byte, 128),
	}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("packet socket on %s: %w", iface.Name, err)
	}
	s.groups = joinGroups(iface, sources.groups(), o.Logger)
	return s, nil
}

// packetSocket opens a socket, attaches the filter and only then binds, so that no frame passes
// unfiltered.
func packetSocket(iface *net.Interface, o *LiveOptions) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return -1, fmt.Errorf("capture on interface %s: %w: run as root, or grant the program CAP_NET_RAW (setcap cap_net_raw+ep FILE)", iface.Name, ErrPermission)
	}
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	if err := setupSocket(fd, iface, o); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("capture on interface %s: %w", iface.Name, err)
	}
	return fd, nil
}

func setupSocket(fd int, iface *net.Interface, o *LiveOptions) error {
	program, err := captureFilter(sources, uint32(max(o.SampleTraffic, 0)))
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	if err := attach(fd, program); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("ask for time stamps: %w", err)
	}
	// The forced size needs CAP_NET_ADMIN; without it the kernel's limit has to do.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, o.ReceiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, o.ReceiveBuffer); err != nil {
			return fmt.Errorf("set receive buffer: %w", err)
		}
	}
	mreq := unix.PacketMreq{Ifindex: int32(iface.Index), Type: unix.PACKET_MR_PROMISC}
	if o.NoPromiscuous {
		mreq.Type = unix.PACKET_MR_ALLMULTI
	}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
		return fmt.Errorf("receive multicast: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: iface.Index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

func attach(fd int, program []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// LAN describes the LAN behind the interface, as it was when the capture was opened.
func (s *LiveCapture) LAN() LAN { return s.lan }

// Next implements Capture. It waits for an interface that is down. An interface that is removed ends the
// capture with ErrInterfaceGone.
func (s *LiveCapture) Next(ctx context.Context) (Frame, error) {
	stop := context.AfterFunc(ctx, s.interrupt)
	defer stop()
	for {
		if err := ctx.Err(); err != nil {
			return Frame{}, err
		}
		if time.Since(s.check) >= checkInterval {
			if err := s.watch(); err != nil {
				return Frame{}, err
			}
		}
		if err := s.setDeadline(ctx, time.Now().Add(checkInterval)); err != nil {
			return Frame{}, err
		}
		n, at, err := s.receive()
		switch {
		case err == nil:
			s.index++
			return Frame{Time: at, Recorded: at, Index: s.index, Data: s.data[:n], LinkType: LinkEthernet}, nil
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENETDOWN):
			s.o.Logger.Warn("LAN interface is down; waiting for it", "interface", s.iface.Name)
			s.check = time.Time{}
		default:
			return Frame{}, fmt.Errorf("capture on interface %s: %w", s.iface.Name, err)
		}
	}
}

// interrupt ends the wait of the Next whose ctx ended.
func (s *LiveCapture) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A later Next sets its own deadline; that this one comes too late for its Next does no harm.
	_ = s.file.SetReadDeadline(time.Unix(1, 0))
}

// setDeadline arms the wait, unless ctx ended: then interrupt may already have run.
func (s *LiveCapture) setDeadline(ctx context.Context, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.file.SetReadDeadline(t); err != nil {
		return fmt.Errorf("capture on interface %s: %w", s.iface.Name, err)
	}
	return nil
}

func (s *LiveCapture) receive() (n int, at time.Time, err error) {
	var oobn int
	readErr := s.conn.Read(func(fd uintptr) bool {
		n, oobn, _, _, err = unix.Recvmsg(int(fd), s.data, s.oob, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	if readErr != nil {
		return 0, time.Time{}, readErr
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	return n, stamp(s.oob[:oobn]), nil
}

// stamp returns the kernel's receive time, or now.
func stamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_TIMESTAMPNS {
			continue
		}
		var ts unix.Timespec
		if _, err := binary.Decode(m.Data, binary.NativeEndian, &ts); err == nil {
			return time.Unix(ts.Unix())
		}
	}
	return time.Now()
}

// watch adds up the kernel's drops and looks for the interface.
func (s *LiveCapture) watch() error {
	s.check = time.Now()
	s.countDrops()
	iface, err := net.InterfaceByIndex(s.iface.Index)
	if err != nil || iface.HardwareAddr.String() != s.iface.HardwareAddr.String() {
		return fmt.Errorf("%w: %s", ErrInterfaceGone, s.iface.Name)
	}
	return nil
}

// countDrops reads the kernel's statistics, which it sets to zero when they are read.
func (s *LiveCapture) countDrops() {
	_ = s.conn.Control(func(fd uintptr) {
		if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			s.o.Stats.kernelDrops.Add(int64(st.Drops))
		}
	})
}

// Close implements Capture.
func (s *LiveCapture) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.countDrops()
	s.groups.close()
	return s.file.Close()
}

// SendARP implements Prober. It may be called while Next waits.
func (s *LiveCapture) SendARP(ip netip.Addr) error {
	sender, err := s.senderFor(ip)
	if err != nil {
		return err
	}
	if _, err := s.file.Write(whoHas(hwAddr(s.iface.HardwareAddr), sender, ip)); err != nil {
		return fmt.Errorf("send ARP request for %s on %s: %w", ip, s.iface.Name, err)
	}
	return nil
}

// senderFor picks this host's address in the prefix of ip.
func (s *LiveCapture) senderFor(ip netip.Addr) (netip.Addr, error) {
	for _, p := range s.lan.Prefixes {
		if !ip.Is4() || !p.Contains(ip) {
			continue
		}
		for own := range s.lan.RouterIPs {
			if p.Contains(own) {
				return own, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("probe %s: not on the LAN of interface %s", ip, s.iface.Name)
}
