package discovery

import (
	"fmt"
	"net/netip"
)

const (
	ndRouterSolicitation    = 133
	ndRouterAdvert          = 134
	ndNeighbourSolicitation = 135
	ndNeighbourAdvert       = 136
)

// ndpSource reads IPv6 neighbour discovery (RFC 4861).
var ndpSource = Source{
	Name:   KindNDP,
	Frames: []FrameMatch{{EtherType: etherIPv6, IPProtocol: ipICMPv6, FirstType: ndRouterSolicitation, LastType: ndNeighbourAdvert}},
	read:   (*Parser).readNDP,
}

// readNDP: a neighbour advertisement names its sender's address; the other messages of RFC 4861 come
// from it. A solicitation from :: tests an address that is not taken yet, so it only shows presence.
func (p *Parser) readNDP(pkt *packet, o *Observation) error {
	b := pkt.payload
	size := map[byte]int{ndRouterSolicitation: 8, ndRouterAdvert: 16, ndNeighbourSolicitation: 24, ndNeighbourAdvert: 24}[b[0]]
	if len(b) < size {
		return fmt.Errorf("%w: neighbour discovery type %d of %d bytes", errMalformed, b[0], len(b))
	}
	p.setAddressInUse(pkt.src, o)
	if b[0] == ndNeighbourAdvert {
		p.setAddressInUse(netip.AddrFrom16([16]byte(b[8:24])), o)
	}
	return nil
}
