package discovery_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

const (
	tvMAC     = "00:11:22:33:44:55"
	tvIP      = "10.0.0.20"
	routerMAC = "00:aa:aa:aa:aa:aa"
	routerIP  = "10.0.0.1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func hw(t testing.TB, s string) net.HardwareAddr {
	t.Helper()
	mac, err := net.ParseMAC(s)
	require.NoError(t, err)
	return mac
}

func serialize(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	require.NoError(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...))
	return buf.Bytes()
}

func arpFrame(t testing.TB, mac, ip string) []byte {
	t.Helper()
	return serialize(t,
		&layers.Ethernet{SrcMAC: hw(t, mac), DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: hw(t, mac), SourceProtAddress: net.ParseIP(ip).To4(),
			DstHwAddress: make([]byte, 6), DstProtAddress: net.ParseIP(routerIP).To4(),
		})
}

// udpFrame builds a datagram; addresses of either IP version, tags are VLAN IDs, outermost first.
func udpFrame(t testing.TB, mac, src, dst string, sport, dport int, payload []byte, tags ...uint16) []byte {
	t.Helper()
	kind := layers.EthernetTypeIPv4
	udp := &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}
	var ip gopacket.SerializableLayer
	if netip.MustParseAddr(src).Is4() {
		ip4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
		require.NoError(t, udp.SetNetworkLayerForChecksum(ip4))
		ip = ip4
	} else {
		kind = layers.EthernetTypeIPv6
		ip6 := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
		require.NoError(t, udp.SetNetworkLayerForChecksum(ip6))
		ip = ip6
	}
	eth := &layers.Ethernet{SrcMAC: hw(t, mac), DstMAC: layers.EthernetBroadcast, EthernetType: kind}
	stack := []gopacket.SerializableLayer{eth}
	for i, tag := range tags {
		if i == 0 {
			eth.EthernetType = layers.EthernetTypeDot1Q
		}
		q := &layers.Dot1Q{VLANIdentifier: tag, Type: kind}
		if i+1 < len(tags) {
			q.Type = layers.EthernetTypeDot1Q
		}
		stack = append(stack, q)
	}
	return serialize(t, append(stack, ip, udp, gopacket.Payload(payload))...)
}

func dhcpClient(t testing.TB, mac string, kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) []byte {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw(t, mac)), dhcpv4.WithMessageType(kind)}, mods...)...)
	require.NoError(t, err)
	return udpFrame(t, mac, "0.0.0.0", "255.255.255.255", 68, 67, m.ToBytes())
}

func dhcpServer(t testing.TB, client string, kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) []byte {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithHwAddr(hw(t, client)), dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(routerIP))), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
	}, mods...)...)
	require.NoError(t, err)
	m.OpCode = dhcpv4.OpcodeBootReply
	return udpFrame(t, routerMAC, routerIP, "255.255.255.255", 67, 68, m.ToBytes())
}

func ssdpText(start string, headers ...string) []byte {
	return []byte(start + "\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n")
}

func ssdpFrame(t testing.TB, start string, headers ...string) []byte {
	t.Helper()
	return udpFrame(t, tvMAC, tvIP, "239.255.255.250", 1900, 1900, ssdpText(start, headers...))
}

func records(t testing.TB, lines ...string) []dns.RR {
	t.Helper()
	var rrs []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		require.NoError(t, err, line)
		rrs = append(rrs, rr)
	}
	return rrs
}

func mdnsBytes(t testing.TB, lines ...string) []byte {
	t.Helper()
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Compress: true, Answer: records(t, lines...)}
	b, err := m.Pack()
	require.NoError(t, err)
	return b
}

func mdnsFrame(t testing.TB, lines ...string) []byte {
	t.Helper()
	return udpFrame(t, tvMAC, tvIP, "224.0.0.251", 5353, 5353, mdnsBytes(t, lines...))
}

// lan is a LAN that is known, as on a live interface.
func lan() discovery.LAN {
	return discovery.LAN{
		Prefixes:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
		RouterMACs: map[string]struct{}{routerMAC: {}},
		RouterIPs:  map[netip.Addr]struct{}{netip.MustParseAddr(routerIP): {}},
	}
}

func newParser(t testing.TB, o discovery.Options) (*discovery.Parser, *discovery.Stats) {
	t.Helper()
	stats, err := discovery.NewStats(nil)
	require.NoError(t, err)
	o.Stats = stats
	return discovery.NewParser(o), stats
}

func frame(data []byte) discovery.Frame {
	return discovery.Frame{Time: noon, Recorded: noon, Index: 1, Data: data, LinkType: discovery.LinkEthernet}
}

// say spells an observation for comparison: presence, then what it sets, adds, drops and unsets.
func say(o discovery.Observation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", o.MAC, o.Kind, o.Presence)
	if mac, ok := o.Set[device.AttrMAC]; ok && mac == o.MAC {
		delete(o.Set, device.AttrMAC)
	}
	part := func(name string, n int, what any) {
		if n > 0 {
			b.WriteString(" " + name + strings.TrimPrefix(fmt.Sprint(what), "map"))
		}
	}
	part("set", len(o.Set), o.Set)
	part("add", len(o.Add), o.Add)
	part("drop", len(o.Drop), o.Drop)
	part("unset", len(o.Unset), o.Unset)
	return b.String()
}
