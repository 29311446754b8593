package discovery

import (
	"log/slog"
	"net"

	"golang.org/x/sys/unix"
)

// groups holds this host's membership in the SSDP and mDNS multicast groups. The packet socket would
// see their frames anyway if they arrive; the membership makes the kernel send the IGMP and MLD reports
// without which a snooping switch or access point does not forward them.
type groups struct {
	sockets []int
}

var (
	groups4 = [][4]byte{{239, 255, 255, 250}, {224, 0, 0, 251}}
	groups6 = [][16]byte{
		{0: 0xff, 1: 0x02, 15: 0x0c}, // SSDP
		{0: 0xff, 1: 0x02, 15: 0xfb}, // mDNS
	}
)

// joinGroups joins what it can; a LAN without one IP version is no fault.
func joinGroups(iface *net.Interface, log *slog.Logger) *groups {
	g := &groups{}
	const kind = unix.SOCK_DGRAM | unix.SOCK_CLOEXEC
	if fd, err := unix.Socket(unix.AF_INET, kind, 0); err == nil {
		g.sockets = append(g.sockets, fd)
		for _, addr := range groups4 {
			mreq := &unix.IPMreqn{Multiaddr: addr, Ifindex: int32(iface.Index)}
			if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, mreq); err != nil {
				log.Warn("cannot join multicast group", "group", net.IP(addr[:]).String(), "interface", iface.Name, "err", err)
			}
		}
	}
	if fd, err := unix.Socket(unix.AF_INET6, kind, 0); err == nil {
		g.sockets = append(g.sockets, fd)
		for _, addr := range groups6 {
			mreq := &unix.IPv6Mreq{Multiaddr: addr, Interface: uint32(iface.Index)}
			if err := unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, mreq); err != nil {
				log.Debug("cannot join multicast group", "group", net.IP(addr[:]).String(), "interface", iface.Name, "err", err)
			}
		}
	}
	return g
}

func (g *groups) close() {
	for _, fd := range g.sockets {
		unix.Close(fd)
	}
	g.sockets = nil
}
