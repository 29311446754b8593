package discovery

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

const (
	arpPacket  = 28
	arpRequest = 1
	arpReply   = 2
)

// arpSource reads ARP (RFC 826, 5227).
var arpSource = Source{
	Name:   KindARP,
	Frames: []FrameMatch{{EtherType: etherARP}},
	read:   (*Parser).readARP,
}

// readARP: the sender of a request or reply holds the address it names as its own. A probe (sender
// 0.0.0.0, RFC 5227) only shows that it is there.
func (p *Parser) readARP(pkt *packet, o *Observation) error {
	b := pkt.payload
	if len(b) < arpPacket {
		return fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	const ethernetIPv4 = 0x0001_0800_06_04
	if head := binary.BigEndian.Uint64(b) >> 16; head != ethernetIPv4 {
		return fmt.Errorf("%w: not Ethernet and IPv4", errMalformed)
	}
	if op := binary.BigEndian.Uint16(b[6:]); op != arpRequest && op != arpReply {
		return fmt.Errorf("%w: operation %d", errMalformed, op)
	}
	if hwAddr(b[8:14]) != pkt.srcMAC {
		return fmt.Errorf("%w: sender %x", errForeign, b[8:14])
	}
	addr := netip.AddrFrom4([4]byte(b[14:18]))
	if p.learner != nil {
		p.learner.noteNeighbour(addr, o.MAC)
	}
	p.setAddressInUse(addr, o)
	return nil
}

// whoHas builds an ARP request of sender for target, in a broadcast Ethernet frame.
func whoHas(mac hwAddr, sender, target netip.Addr) []byte {
	const ethernetIPv4Request = 0x0001_0800_0604_0001
	b := make([]byte, 0, ethHeader+arpPacket)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = append(b, mac[:]...)
	b = binary.BigEndian.AppendUint16(b, etherARP)
	b = binary.BigEndian.AppendUint64(b, ethernetIPv4Request)
	b = append(b, mac[:]...)
	b = append(b, sender.AsSlice()...)
	b = append(b, make([]byte, 6)...)
	return append(b, target.AsSlice()...)
}
