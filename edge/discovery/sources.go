package discovery

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Source is one protocol by which devices show themselves on a LAN: which frames it wants, which
// attributes it may set, and how a frame is read.
//
// To add a source, write one file that declares it (arp.go is the shortest example) and add it to
// [sources]. The rest is derived from the declaration: the filter in the kernel, the multicast groups
// that are joined, the choice of the source for a frame, and the labels of the metrics. The tests ask for
// a sample frame of each source.
//
// Life cycle: a Source is declared as a package variable, checked when the program starts, and never
// changes. A wrong declaration panics. read is called by [Parser.Parse] for each frame that matches, in
// the goroutine of that Parser. Parsers run side by side, so read must keep no state of its own: what has
// to be remembered from one frame to the next belongs to the Parser, and has a bound there.
type Source struct {
	// Name is the [Observation.Kind] and the label "protocol" of the metrics. It is unique, in lower case.
	Name string
	// Frames are the frames that the source wants; a frame must match one of them. Of several sources that
	// want a frame, the one that comes first in [sources] gets it. Required.
	Frames []FrameMatch
	// Groups are the multicast groups whose frames the source needs. A live capture joins them.
	Groups []netip.Addr
	// Attributes are the names, from device.Vocabulary, that read sets, beside those of addressAttributes.
	Attributes []string
	// read puts what pkt says into o. o.MAC is the sender of the frame; read changes it where the frame
	// speaks about another device. It must end in bounded time whatever pkt holds, and must not keep a
	// slice of pkt. Text from the frame goes through [Parser.clean].
	//
	// An error wraps errMalformed or errForeign. It is counted, and of o nothing is used: the frame then
	// only shows that its sender is there. Required.
	read func(p *Parser, pkt *packet, o *Observation) error
}

// sources are all sources, in the order in which they are asked. Add a new one here.
var sources = mustRegister(
	arpSource,
	ndpSource,
	dhcpSource,
	ssdpSource,
	mdnsSource,
)

// addressAttributes are set for every source, by the Parser: the MAC itself, and the address that a
// device was seen to use or laid down.
var addressAttributes = []string{device.AttrMAC, device.AttrMACLocal, device.AttrIPv4, device.AttrLastIPv4, device.AttrIPv6}

// FrameMatch is a condition on a frame's headers. All fields that are set must hold. It says no more than
// a classic BPF program can test, because the filter in the kernel is made from it.
type FrameMatch struct {
	// EtherType is that of the frame, behind its VLAN tags. 0 is IPv4 and IPv6.
	EtherType uint16
	// IPProtocol is UDP's, for example. Required for IPv4 and IPv6, and only for them.
	IPProtocol uint8
	// FromPort and ToPort are UDP ports. 0 is any.
	FromPort, ToPort uint16
	// FirstType and LastType bound the ICMP or ICMPv6 type. Both 0 is any.
	FirstType, LastType uint8
	// Prefix begins the UDP payload. The filter in the kernel compares its first 4 bytes, the Parser all.
	Prefix string
}

// filterPrefix is how many bytes of a Prefix the filter in the kernel compares.
const filterPrefix = 4

// matches reports whether a packet, known to be of the EtherType class and IP protocol, meets m.
func (m *FrameMatch) matches(pkt *packet) bool {
	if m.EtherType != 0 && m.EtherType != pkt.etherType ||
		m.ToPort != 0 && m.ToPort != pkt.dport || m.FromPort != 0 && m.FromPort != pkt.sport {
		return false
	}
	if m.LastType != 0 && (len(pkt.payload) == 0 || pkt.payload[0] < m.FirstType || pkt.payload[0] > m.LastType) {
		return false
	}
	return m.Prefix == "" || len(pkt.payload) >= len(m.Prefix) && string(pkt.payload[:len(m.Prefix)]) == m.Prefix
}

// check reports what the filter in the kernel could not test, or would pass by the thousand.
func (m *FrameMatch) check() error {
	ip := m.EtherType == 0 || m.EtherType == etherIPv4 || m.EtherType == etherIPv6
	ports := m.FromPort != 0 || m.ToPort != 0
	switch {
	case m.EtherType == etherVLAN || m.EtherType == etherQinQ:
		return errors.New("a VLAN tag is no EtherType to match: tags are skipped")
	case ip != (m.IPProtocol != 0):
		return errors.New("IPProtocol is required for IPv4 and IPv6, and only for them")
	case m.IPProtocol == ipUDP && !ports && m.Prefix == "":
		return errors.New("it wants all UDP: name a port or a prefix of the payload")
	case m.IPProtocol != ipUDP && (ports || m.Prefix != ""):
		return errors.New("ports and Prefix are of UDP")
	case m.IPProtocol != ipICMPv4 && m.IPProtocol != ipICMPv6 && (m.FirstType != 0 || m.LastType != 0):
		return errors.New("FirstType and LastType are of ICMP")
	case m.FirstType > m.LastType:
		return errors.New("FirstType is above LastType")
	case m.Prefix != "" && len(m.Prefix) < filterPrefix:
		return fmt.Errorf("prefix %q is shorter than the %d bytes that the filter compares", m.Prefix, filterPrefix)
	}
	return nil
}

// rule is a FrameMatch with the source that wants it.
type rule struct {
	FrameMatch
	protocol protocol
}

// sourceTable is a checked list of sources, arranged for the choice of a frame's source. Not changed
// after register has returned it.
type sourceTable struct {
	list []Source
	// names are the labels of the metrics, by protocol.
	names []string
	// byIPProtocol and byEtherType are the rules of all sources, in order.
	byIPProtocol [256][]rule
	byEtherType  []rule // neither IPv4 nor IPv6
}

// register checks the declarations of sources. A source without frames is refused, because the kernel
// would drop what it waits for.
func register(list ...Source) (*sourceTable, error) {
	t := &sourceTable{list: list, names: append([]string(nil), baseProtocols[:]...)}
	seen := map[string]bool{}
	for _, name := range t.names {
		seen[name] = true
	}
	for i := range list {
		s := &list[i]
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("discovery source %q: %w", s.Name, err)
		}
		if seen[s.Name] {
			return nil, fmt.Errorf("discovery source %q: the name is taken", s.Name)
		}
		seen[s.Name] = true
		t.names = append(t.names, s.Name)
		for _, m := range s.Frames {
			r := rule{m, firstSource + protocol(i)}
			if m.IPProtocol == 0 {
				t.byEtherType = append(t.byEtherType, r)
			} else {
				t.byIPProtocol[m.IPProtocol] = append(t.byIPProtocol[m.IPProtocol], r)
			}
		}
	}
	return t, nil
}

func mustRegister(list ...Source) *sourceTable {
	t, err := register(list...)
	if err != nil {
		panic(err)
	}
	return t
}

func (s *Source) check() error {
	switch {
	case s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789") != "":
		return errors.New("the name must be lower-case letters and digits")
	case s.read == nil:
		return errors.New("it has no function that reads a frame")
	case len(s.Frames) == 0:
		return errors.New("it declares no frames: the kernel would drop all that it waits for")
	}
	for i, m := range s.Frames {
		if err := m.check(); err != nil {
			return fmt.Errorf("frames %d: %w", i, err)
		}
	}
	for _, name := range s.Attributes {
		if spec, ok := device.SpecOf(name); !ok || spec.SetBy == device.Reserved {
			return fmt.Errorf("attribute %q is reserved, or not in device.Vocabulary", name)
		}
	}
	for _, g := range s.Groups {
		if !g.IsMulticast() {
			return fmt.Errorf("group %s is no multicast address", g)
		}
	}
	return nil
}

// classify says what a packet is taken for: a source's protocol, traffic that only shows its sender, or
// something else than IP.
func (t *sourceTable) classify(pkt *packet) protocol {
	if pkt.etherType != etherIPv4 && pkt.etherType != etherIPv6 {
		return firstMatch(t.byEtherType, pkt, protoOther)
	}
	return firstMatch(t.byIPProtocol[pkt.proto], pkt, protoTraffic)
}

func firstMatch(rules []rule, pkt *packet, none protocol) protocol {
	for i := range rules {
		if rules[i].matches(pkt) {
			return rules[i].protocol
		}
	}
	return none
}

// source returns the source of a protocol, or nil where no source reads it.
func (t *sourceTable) source(p protocol) *Source {
	if p < firstSource {
		return nil
	}
	return &t.list[p-firstSource]
}

// groups are the multicast groups of all sources, each once.
func (t *sourceTable) groups() []netip.Addr {
	var all []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, s := range t.list {
		for _, g := range s.Groups {
			if !seen[g] {
				seen[g] = true
				all = append(all, g)
			}
		}
	}
	return all
}
