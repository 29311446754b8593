package discovery

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// memberships holds this host's membership in the multicast groups of the sources. A packet socket sees
// the frames of a group that arrive anyway. The membership makes the kernel send the IGMP and MLD reports
// without which a snooping switch or access point does not forward them.
type memberships struct {
	sockets []int
}

// joinGroups joins what it can: a LAN without one of the IP versions is no fault.
func joinGroups(iface *net.Interface, groups []netip.Addr, log *slog.Logger) *memberships {
	m := &memberships{}
	fd4, fd6 := m.socket(unix.AF_INET), m.socket(unix.AF_INET6)
	for _, group := range groups {
		var err error
		level := slog.LevelWarn
		switch {
		case group.Is4() && fd4 >= 0:
			err = unix.SetsockoptIPMreqn(fd4, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(iface.Index)})
		case group.Is6() && fd6 >= 0:
			level = slog.LevelDebug // hosts without IPv6 are common
			err = unix.SetsockoptIPv6Mreq(fd6, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(iface.Index)})
		}
		if err != nil {
			log.Log(context.Background(), level, "cannot join multicast group", "group", group, "interface", iface.Name, "err", err)
		}
	}
	return m
}

// socket opens a socket that holds memberships, or returns -1: the host has not that IP version.
func (m *memberships) socket(family int) int {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	m.sockets = append(m.sockets, fd)
	return fd
}

func (m *memberships) close() {
	for _, fd := range m.sockets {
		_ = unix.Close(fd)
	}
	m.sockets = nil
}
