package discovery

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

const (
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherVLAN  = 0x8100
	etherIPv6  = 0x86dd
	etherQinQ  = 0x88a8
	ipICMPv4   = 1
	ipUDP      = 17
	ipICMPv6   = 58
	maxVLANs   = 2
	ethHeader  = 14
	udpHeader  = 8
	ipv6Header = 40
)

var (
	errEthernet = errors.New("malformed Ethernet header")
	errIP       = errors.New("malformed IP or UDP header")
)

type hwAddr [6]byte

// station reports whether the address can belong to one interface: not zero, not a group address.
func (h hwAddr) station() bool { return h != hwAddr{} && h[0]&1 == 0 }

// packet is the part of a frame's headers that the protocols need. Its slices point into the frame.
type packet struct {
	srcMAC    hwAddr
	etherType uint16
	src, dst  netip.Addr
	proto     uint8 // IP protocol of the first fragment; 0 if not IP, or not its first fragment
	sport     uint16
	dport     uint16
	payload   []byte // of ARP, UDP or ICMPv6
}

// decode reads a frame's headers. Padding after the IP packet is cut off; a packet that was captured
// shorter than it says keeps what is there.
func decode(data []byte) (packet, error) {
	var p packet
	if len(data) < ethHeader {
		return p, errEthernet
	}
	copy(p.srcMAC[:], data[6:12])
	if !p.srcMAC.station() {
		return p, errEthernet
	}
	p.etherType = binary.BigEndian.Uint16(data[12:])
	rest := data[ethHeader:]
	for range maxVLANs {
		if p.etherType != etherVLAN && p.etherType != etherQinQ {
			break
		}
		if len(rest) < 4 {
			return p, errEthernet
		}
		p.etherType = binary.BigEndian.Uint16(rest[2:])
		rest = rest[4:]
	}
	switch p.etherType {
	case etherARP:
		p.payload = rest
		return p, nil
	case etherIPv4:
		return p, p.decodeIPv4(rest)
	case etherIPv6:
		return p, p.decodeIPv6(rest)
	}
	return p, nil
}

func (p *packet) decodeIPv4(b []byte) error {
	if len(b) < 20 || b[0]>>4 != 4 {
		return errIP
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || header > len(b) {
		return errIP
	}
	// A total of zero is how segmentation offload shows a merged packet.
	if total != 0 && total < header {
		return errIP
	}
	if total != 0 && total < len(b) {
		b = b[:total]
	}
	p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	const offsetAndMoreFragments = 0x3fff
	if binary.BigEndian.Uint16(b[6:])&offsetAndMoreFragments != 0 {
		return nil
	}
	p.proto, p.payload = b[9], b[header:]
	return p.decodeUDP()
}

func (p *packet) decodeIPv6(b []byte) error {
	if len(b) < ipv6Header || b[0]>>4 != 6 {
		return errIP
	}
	next, length := b[6], int(binary.BigEndian.Uint16(b[4:]))
	p.src, p.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	b = b[ipv6Header:]
	if length > 0 && length < len(b) {
		b = b[:length]
	}
	// Hop-by-hop (0), routing (43) and destination options (60) may precede the payload.
	for range 4 {
		if next != 0 && next != 43 && next != 60 {
			break
		}
		if len(b) < 8 {
			return errIP
		}
		size := (int(b[1]) + 1) * 8
		if size > len(b) {
			return errIP
		}
		next, b = b[0], b[size:]
	}
	p.proto, p.payload = next, b
	return p.decodeUDP()
}

func (p *packet) decodeUDP() error {
	if p.proto != ipUDP {
		return nil
	}
	if len(p.payload) < udpHeader {
		return errIP
	}
	p.sport, p.dport = binary.BigEndian.Uint16(p.payload), binary.BigEndian.Uint16(p.payload[2:])
	length := int(binary.BigEndian.Uint16(p.payload[4:]))
	switch {
	case length >= udpHeader && length < len(p.payload):
		p.payload = p.payload[udpHeader:length]
	case length != 0 && length < udpHeader:
		return errIP
	default:
		p.payload = p.payload[udpHeader:]
	}
	return nil
}
