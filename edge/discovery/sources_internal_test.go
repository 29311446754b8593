package discovery

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// ethernet puts a network header behind an Ethernet header with VLAN tags.
func ethernet(kind uint16, tags int, rest ...byte) []byte {
	b := make([]byte, 12)
	for range tags {
		b = binary.BigEndian.AppendUint16(b, etherVLAN)
		b = append(b, 0, 7)
	}
	b = binary.BigEndian.AppendUint16(b, kind)
	return append(b, rest...)
}

func ipv4UDP(options int, fragment, sport, dport uint16, payload string) []byte {
	b := make([]byte, 20+4*options)
	b[0] = byte(0x45 + options)
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[9] = ipUDP
	return append(b, udp(sport, dport, payload)...)
}

func ipv6(next byte, payload []byte) []byte {
	b := make([]byte, ipv6Header)
	b[0], b[6] = 0x60, next
	return append(b, payload...)
}

func udp(sport, dport uint16, payload string) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	return append(append(b, 0, 0, 0, 0), payload...)
}

func TestCaptureFilter(t *testing.T) {
	filter, err := newFilter(sources)
	require.NoError(t, err)

	cases := []struct {
		name string
		kind uint16
		rest []byte
		pass bool
	}{
		{"arp", etherARP, make([]byte, 28), true},
		{"dhcp", etherIPv4, ipv4UDP(0, 0, 68, 67, "xxxx"), true},
		{"dhcp reply behind IP options", etherIPv4, ipv4UDP(3, 0x4000, 67, 68, "xxxx"), true},
		{"ssdp", etherIPv4, ipv4UDP(0, 0, 40000, 1900, "xxxx"), true},
		{"ssdp response from 1900", etherIPv4, ipv4UDP(0, 0, 1900, 40000, "xxxx"), true},
		{"ssdp response from any port", etherIPv4, ipv4UDP(0, 0, 40001, 40000, "HTTP/1.1 200 OK"), true},
		{"mdns", etherIPv4, ipv4UDP(0, 0, 5353, 5353, "xxxx"), true},
		{"mdns over IPv6", etherIPv6, ipv6(ipUDP, udp(5353, 5353, "xxxx")), true},
		{"ssdp over IPv6", etherIPv6, ipv6(ipUDP, udp(40000, 1900, "xxxx")), true},
		{"neighbour advertisement", etherIPv6, ipv6(ipICMPv6, []byte{136, 0, 0, 0}), true},
		{"router solicitation", etherIPv6, ipv6(ipICMPv6, []byte{133, 0, 0, 0}), true},
		{"ping over IPv6", etherIPv6, ipv6(ipICMPv6, []byte{128, 0, 0, 0}), false},
		{"multicast listener report", etherIPv6, ipv6(ipICMPv6, []byte{143, 0, 0, 0}), false},
		{"second fragment", etherIPv4, ipv4UDP(0, 100, 68, 67, "xxxx"), false},
		{"dns", etherIPv4, ipv4UDP(0, 0, 40000, 53, "xxxx"), false},
		{"tcp", etherIPv4, func() []byte { b := ipv4UDP(0, 0, 68, 67, "xxxx"); b[9] = 6; return b }(), false},
		{"dns over IPv6", etherIPv6, ipv6(ipUDP, udp(40000, 53, "xxxx")), false},
		{"eapol", 0x888e, make([]byte, 60), false},
	}
	for _, c := range cases {
		for tags := range 2 {
			n, err := filter(ethernet(c.kind, tags, c.rest...))
			require.NoError(t, err)
			require.Equal(t, c.pass, n > 0, "%s with %d tags", c.name, tags)
			if c.pass {
				require.Equal(t, captureLength, n)
			}
		}
	}
	sampled, err := captureFilter(sources, 64)
	require.NoError(t, err)
	require.Less(t, len(sampled), maxFilter, "the kernel's limit")
}

func TestRegisterRefusesWrongDeclarations(t *testing.T) {
	read := func(*Parser, *packet, *Observation) error { return nil }
	frames := func(m ...FrameMatch) Source { return Source{Name: "new", Frames: m, read: read} }
	good := frames(FrameMatch{IPProtocol: ipUDP, ToPort: 137})
	_, err := register(good)
	require.NoError(t, err)
	for want, list := range map[string][]Source{
		"declares no frames":        {frames()},
		"wants all UDP":             {frames(FrameMatch{IPProtocol: ipUDP})},
		"IPProtocol is required":    {frames(FrameMatch{ToPort: 137})},
		"only for them":             {frames(FrameMatch{EtherType: etherARP, IPProtocol: ipUDP, ToPort: 137})},
		"VLAN":                      {frames(FrameMatch{EtherType: etherVLAN})},
		"ports and Prefix":          {frames(FrameMatch{IPProtocol: 6, ToPort: 80})},
		"are of ICMP":               {frames(FrameMatch{IPProtocol: ipUDP, ToPort: 137, LastType: 3})},
		"FirstType is above":        {frames(FrameMatch{IPProtocol: ipICMPv6, FirstType: 5, LastType: 3})},
		"shorter than the 4 bytes":  {frames(FrameMatch{IPProtocol: ipUDP, Prefix: "PUT"})},
		"no function that reads":    {{Name: "new", Frames: good.Frames}},
		"lower-case letters":        {{Name: "New source", Frames: good.Frames, read: read}},
		"the name is taken":         {good, good},
		`"traffic": the name is`:    {{Name: "traffic", Frames: good.Frames, read: read}},
		`"tv.colour" is reserved`:   {{Name: "new", Frames: good.Frames, read: read, Attributes: []string{"tv.colour"}}},
		`"netflix.esn" is reserved`: {{Name: "new", Frames: good.Frames, read: read, Attributes: []string{device.AttrESN}}},
		"is no multicast address":   {{Name: "new", Frames: good.Frames, read: read, Groups: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
	} {
		_, err := register(list...)
		require.ErrorContains(t, err, want)
	}
}

// Blocks of more than 255 instructions need other jumps.
func TestFilterOfManySources(t *testing.T) {
	many := Source{Name: "many", read: func(*Parser, *packet, *Observation) error { return nil }}
	for port := range uint16(200) {
		many.Frames = append(many.Frames, FrameMatch{IPProtocol: ipUDP, ToPort: 1000 + port, FromPort: 7})
	}
	table, err := register(many, arpSource)
	require.NoError(t, err)
	filter, err := newFilter(table)
	require.NoError(t, err)
	passes := func(data []byte) bool {
		n, err := filter(data)
		require.NoError(t, err)
		return n == captureLength
	}
	for tags := range 2 {
		require.True(t, passes(ethernet(etherARP, tags, make([]byte, 28)...)))
		for _, port := range []uint16{1000, 1100, 1199} {
			require.True(t, passes(ethernet(etherIPv4, tags, ipv4UDP(0, 0, 7, port, "xxxx")...)))
			require.True(t, passes(ethernet(etherIPv6, tags, ipv6(ipUDP, udp(7, port, "xxxx"))...)))
			require.False(t, passes(ethernet(etherIPv4, tags, ipv4UDP(0, 0, 8, port, "xxxx")...)), "both conditions must hold")
		}
		require.False(t, passes(ethernet(etherIPv4, tags, ipv4UDP(0, 0, 7, 1200, "xxxx")...)))
		require.False(t, passes(ethernet(etherIPv6, tags, ipv6(ipUDP, udp(7, 999, "xxxx"))...)))
	}
}

// Every attribute that the vocabulary says discovery sets is declared by a source.
func TestSourcesDeclareTheVocabulary(t *testing.T) {
	declared := map[string]bool{}
	for _, name := range addressAttributes {
		declared[name] = true
	}
	for _, s := range sources.list {
		for _, name := range s.Attributes {
			declared[name] = true
		}
	}
	for _, spec := range device.Vocabulary {
		if spec.SetBy == device.SetByDiscovery {
			require.True(t, declared[spec.Name], "no source declares %q", spec.Name)
		}
	}
}
