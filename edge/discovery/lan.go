package discovery

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
)

// LAN is what tells a device from the rest of the world: the prefixes device addresses lie in, and the
// router, which is not a device. A LAN value is not changed once it is handed out.
type LAN struct {
	// Prefixes holds the LAN's IPv4 and IPv6 prefixes. With none of a family, the private IPv4
	// addresses (RFC 1918) and any IPv6 unicast address pass for LAN addresses.
	Prefixes []netip.Prefix
	// RouterMACs holds the router's interface addresses on the LAN, lower case with colons.
	RouterMACs map[string]struct{}
	// RouterIPs holds the router's own addresses.
	RouterIPs map[netip.Addr]struct{}
}

// LANOf describes the LAN behind an interface of this host, which is its router.
func LANOf(iface *net.Interface) (LAN, error) {
	lan := LAN{RouterMACs: map[string]struct{}{}, RouterIPs: map[netip.Addr]struct{}{}}
	if len(iface.HardwareAddr) == 6 {
		lan.RouterMACs[iface.HardwareAddr.String()] = struct{}{}
	}
	addrs, err := iface.Addrs()
	if err != nil {
		return LAN{}, fmt.Errorf("read addresses of interface %s: %w", iface.Name, err)
	}
	for _, a := range addrs {
		ipNet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, ok := netip.AddrFromSlice(ipNet.IP)
		if !ok {
			continue
		}
		addr = addr.Unmap()
		lan.RouterIPs[addr] = struct{}{}
		ones, _ := ipNet.Mask.Size()
		if prefix, err := addr.Prefix(ones); err == nil && !addr.IsLinkLocalUnicast() {
			lan.Prefixes = append(lan.Prefixes, prefix)
		}
	}
	return lan, nil
}

// Router reports whether mac (lower case, colons) is the router's.
func (l *LAN) Router(mac string) bool {
	_, ok := l.RouterMACs[mac]
	return ok
}

// DeviceAddr reports whether addr can be the address of a device on this LAN: on the LAN, and not the
// router's, unspecified, multicast, or an IPv4 link-local, network or broadcast address.
func (l *LAN) DeviceAddr(addr netip.Addr) bool {
	if _, router := l.RouterIPs[addr]; router || !addr.IsValid() {
		return false
	}
	if addr.Is6() {
		return l.deviceIPv6(addr)
	}
	if !addr.IsGlobalUnicast() {
		return false
	}
	known := false
	for _, p := range l.Prefixes {
		if !p.Addr().Is4() {
			continue
		}
		known = true
		if p.Contains(addr) && (p.Bits() >= 31 || addr != p.Masked().Addr() && addr != lastAddr(p)) {
			return true
		}
	}
	return !known && addr.IsPrivate()
}

func (l *LAN) deviceIPv6(addr netip.Addr) bool {
	if addr.IsLinkLocalUnicast() {
		return true
	}
	if !addr.IsGlobalUnicast() {
		return false
	}
	known := false
	for _, p := range l.Prefixes {
		if p.Addr().Is4() {
			continue
		}
		known = true
		if p.Contains(addr) {
			return true
		}
	}
	return !known
}

func (l *LAN) clone() *LAN {
	c := &LAN{
		Prefixes:   slices.Clone(l.Prefixes),
		RouterMACs: maps.Clone(l.RouterMACs),
		RouterIPs:  maps.Clone(l.RouterIPs),
	}
	if c.RouterMACs == nil {
		c.RouterMACs = map[string]struct{}{}
	}
	if c.RouterIPs == nil {
		c.RouterIPs = map[netip.Addr]struct{}{}
	}
	return c
}

// lastAddr returns the broadcast address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
