package discovery

import (
	"net/netip"

	"github.com/miekg/dns"
)

// belonging says whether an mDNS record is about its sender.
type belonging int

const (
	undecided belonging = iota
	ours
	notOurs
)

// ownership decides which records of an mDNS response are about the host that sent it. Reflectors,
// sleep proxies and bridges answer for others: a host whose address records name other addresses than
// the sender's is somebody else, and so are the services that point to it. Where there is nothing to
// compare (most answers carry no address records; an IPv6 host has many addresses) the sender is
// believed.
type ownership struct {
	m       *mdnsMessage
	pkt     *packet
	mac     string
	holders map[netip.Addr]string
}

// host judges a host name (canonical) by its addresses, those of a goodbye included.
func (w ownership) host(name string) belonging {
	comparable := false
	for _, addrs := range [][]netip.Addr{w.m.addrs[name], w.m.gone[name]} {
		for _, addr := range addrs {
			holder, held := w.holders[addr]
			if addr == w.pkt.src || holder == w.mac || addr.Is6() && fromMAC(addr, w.pkt.srcMAC) {
				return ours
			}
			comparable = comparable || held || addr.Is4() && w.pkt.src.Is4()
		}
	}
	if comparable {
		return notOurs
	}
	return undecided
}

// instance judges a service instance by the host it runs on, or else by the company it is in.
func (w ownership) instance(name string) belonging {
	if target, ok := w.m.targets[dns.CanonicalName(name)]; ok {
		return w.host(dns.CanonicalName(target))
	}
	if w.unnamed() {
		return undecided
	}
	return notOurs
}

// unnamed reports whether records that name no host can be the sender's: a message that brings
// addresses, but none of the sender, speaks for somebody else.
func (w ownership) unnamed() bool {
	others := false
	for _, h := range w.m.hosts {
		switch w.host(h) {
		case ours:
			return true
		case notOurs:
			others = true
		}
	}
	return !others
}

// nothing reports whether the whole message is about others.
func (w ownership) nothing() bool { return !w.unnamed() }

// leaves reports whether the message withdraws the sender's own address.
func (w ownership) leaves() bool {
	for _, h := range w.m.hosts {
		if len(w.m.gone[h]) > 0 && w.host(h) == ours {
			return true
		}
	}
	return false
}

// fromMAC reports whether an IPv6 address holds the MAC as its interface identifier (modified EUI-64,
// RFC 4291).
func fromMAC(addr netip.Addr, mac hwAddr) bool {
	b := addr.As16()
	return [8]byte(b[8:]) == [8]byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
}
