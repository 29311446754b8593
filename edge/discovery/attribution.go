package discovery

import (
	"net/netip"

	"github.com/miekg/dns"
)

// subject is whom an mDNS record is about.
type subject int

const (
	subjectUnknown subject = iota // nothing to compare with the sender
	subjectSender
	subjectOther
)

// attribution decides which records of an mDNS response are about the host that sent it. Reflectors,
// sleep proxies and bridges answer for others: a host whose address records name other addresses than
// the sender's is another host, and so are the services that point to it. Where addresses cannot be
// compared (most answers carry no address records; an IPv6 host has many addresses) the sender is
// believed.
type attribution struct {
	message *mdnsMessage
	pkt     *packet
	mac     string                // of the sender
	holders map[netip.Addr]string // MAC that was seen to use an address
}

// ofHost judges a host name (canonical) by its addresses, those of a goodbye included.
func (a attribution) ofHost(name string) subject {
	comparable := false
	for _, addrs := range [][]netip.Addr{a.message.addrs[name], a.message.gone[name]} {
		for _, addr := range addrs {
			holder, held := a.holders[addr]
			if addr == a.pkt.src || holder == a.mac || addr.Is6() && isEUI64(addr, a.pkt.srcMAC) {
				return subjectSender
			}
			comparable = comparable || held || addr.Is4() && a.pkt.src.Is4()
		}
	}
	if comparable {
		return subjectOther
	}
	return subjectUnknown
}

// ofInstance judges a service instance by the host it runs on. Without an SRV record it is judged by the
// addresses that the message brings.
func (a attribution) ofInstance(name string) subject {
	if target, ok := a.message.targets[dns.CanonicalName(name)]; ok {
		return a.ofHost(dns.CanonicalName(target))
	}
	if a.maySpeakForSender() {
		return subjectUnknown
	}
	return subjectOther
}

// maySpeakForSender reports whether records that name no host can be the sender's. A message that has
// addresses, but none of the sender's, is about another host.
func (a attribution) maySpeakForSender() bool {
	others := false
	for _, h := range a.message.hosts {
		switch a.ofHost(h) {
		case subjectSender:
			return true
		case subjectOther:
			others = true
		}
	}
	return !others
}

// withdrawsSender reports whether the message withdraws the sender's own address.
func (a attribution) withdrawsSender() bool {
	for _, h := range a.message.hosts {
		if len(a.message.gone[h]) > 0 && a.ofHost(h) == subjectSender {
			return true
		}
	}
	return false
}

// isEUI64 reports whether an IPv6 address holds the MAC as its interface identifier (modified EUI-64,
// RFC 4291).
func isEUI64(addr netip.Addr, mac hwAddr) bool {
	b := addr.As16()
	return [8]byte(b[8:]) == [8]byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
}
