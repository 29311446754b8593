package discovery_test

import (
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestParse(t *testing.T) {
	dnssd := []string{
		"_googlecast._tcp.local. 120 IN PTR Kitchen\\.TV._googlecast._tcp.local.",
		"Kitchen\\.TV._googlecast._tcp.local. 120 IN SRV 0 0 8009 tv.local.",
		"Kitchen\\.TV._googlecast._tcp.local. 120 IN TXT \"fn=Küche\" \"md=Cast TV\" \"id=abc\"",
	}
	hostRecord := "tv.local. 120 IN A "
	rawTXT, err := hex.DecodeString("0000840000000001000000000174056c6f63616c00001000010000007800020561")
	require.NoError(t, err)

	cases := []struct {
		name  string
		frame []byte
		want  string // "" for no observation
	}{
		{"arp announces an address", arpFrame(t, tvMAC, tvIP), "00:11:22:33:44:55 arp seen set[network.ipv4:10.0.0.20]"},
		{"arp probe is presence alone", arpFrame(t, tvMAC, "0.0.0.0"), "00:11:22:33:44:55 arp seen"},
		{"arp link-local is presence alone", arpFrame(t, tvMAC, "169.254.3.4"), "00:11:22:33:44:55 arp seen"},
		{"arp outside the LAN is presence alone", arpFrame(t, tvMAC, "192.168.0.20"), "00:11:22:33:44:55 arp seen"},
		{"arp claim of the router's address is no address", arpFrame(t, tvMAC, routerIP), "00:11:22:33:44:55 arp seen"},
		{"arp of the broadcast address is no address", arpFrame(t, tvMAC, "10.0.0.255"), "00:11:22:33:44:55 arp seen"},
		{"a random MAC is marked", arpFrame(t, "02:11:22:33:44:55", tvIP), "02:11:22:33:44:55 arp seen set[network.ipv4:10.0.0.20 network.mac_local:true]"},
		{"the router is not a device", arpFrame(t, routerMAC, routerIP), ""},
		{"the zero MAC is not a device", arpFrame(t, "00:00:00:00:00:00", tvIP), ""},
		{"a group MAC is not a device", arpFrame(t, "01:00:5e:00:00:fb", tvIP), ""},
		{"what the router forwards is nobody's", udpFrame(t, routerMAC, "8.8.8.8", tvIP, 53, 4000, []byte("x")), ""},
		{"other traffic refreshes", udpFrame(t, tvMAC, tvIP, "8.8.8.8", 4000, 53, []byte("x")), "00:11:22:33:44:55 traffic refresh set[network.ipv4:10.0.0.20]"},
		{
			"dhcp discover", dhcpClient(t, tvMAC, dhcpv4.MessageTypeDiscover,
				dhcpv4.WithOption(dhcpv4.OptHostName("tv-kitchen")), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("udhcp 1.36")),
				dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{1, 0, 0x11, 0x22, 0x33, 0x44, 0x55})),
				dhcpv4.WithOption(dhcpv4.OptParameterRequestList(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer))),
			"00:11:22:33:44:55 dhcp seen set[dhcp.client_id:01:00:11:22:33:44:55 dhcp.fingerprint:1,3,6 dhcp.hostname:tv-kitchen dhcp.vendor_class:udhcp 1.36 network.hostname:tv-kitchen]",
		},
		{
			"dhcp fqdn in DNS encoding", dhcpClient(t, tvMAC, dhcpv4.MessageTypeRequest,
				dhcpv4.WithGeneric(dhcpv4.OptionFQDN, append([]byte{4, 0, 0}, "\x02tv\x03lan\x00"...))),
			"00:11:22:33:44:55 dhcp seen set[dhcp.fqdn:tv.lan network.hostname:tv]",
		},
		{"dhcp renewal holds its address", dhcpClient(t, tvMAC, dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(net.ParseIP(tvIP))), "00:11:22:33:44:55 dhcp seen set[network.ipv4:10.0.0.20]"},
		{"dhcp offer gives no address yet", dhcpServer(t, tvMAC, dhcpv4.MessageTypeOffer, dhcpv4.WithYourIP(net.ParseIP(tvIP))), "00:11:22:33:44:55 dhcp seen"},
		{"dhcp ack is about the client", dhcpServer(t, tvMAC, dhcpv4.MessageTypeAck, dhcpv4.WithYourIP(net.ParseIP(tvIP))), "00:11:22:33:44:55 dhcp seen set[network.ipv4:10.0.0.20]"},
		{"dhcp release leaves", dhcpClient(t, tvMAC, dhcpv4.MessageTypeRelease, dhcpv4.WithClientIP(net.ParseIP(tvIP))), "00:11:22:33:44:55 dhcp left set[network.last_ipv4:10.0.0.20] unset[network.ipv4]"},
		{"dhcp decline withdraws", dhcpClient(t, tvMAC, dhcpv4.MessageTypeDecline), "00:11:22:33:44:55 dhcp seen unset[network.ipv4]"},
		{"dhcp garbage refreshes", udpFrame(t, tvMAC, "0.0.0.0", "255.255.255.255", 68, 67, []byte("garbage")), "00:11:22:33:44:55 traffic refresh"},
		{
			"ssdp alive in a VLAN", udpFrame(t, tvMAC, tvIP, "239.255.255.250", 50000, 1900, ssdpText("NOTIFY * HTTP/1.1", "NT: upnp:rootdevice",
				"NTS: ssdp:alive", "USN: uuid:u1::upnp:rootdevice", "Location: http://10.0.0.20:80/d.xml", "SERVER: L/1 UPnP/1.1 M/2", "CACHE-CONTROL: max-age=1800"), 7),
			"00:11:22:33:44:55 ssdp seen set[network.ipv4:10.0.0.20 ssdp.location:http://10.0.0.20:80/d.xml ssdp.server:L/1 UPnP/1.1 M/2] add[identity.udns:[uuid:u1] ssdp.types:[upnp:rootdevice]]",
		},
		{
			"dial search response from any port", udpFrame(t, tvMAC, tvIP, routerIP, 40001, 40002, ssdpText("HTTP/1.1 200 OK", "ST: urn:dial-multiscreen-org:service:dial:1",
				"USN: uuid:u2::urn:dial-multiscreen-org:service:dial:1", "LOCATION: http://10.0.0.20:8008/dd.xml")),
			"00:11:22:33:44:55 ssdp seen set[dial.location:http://10.0.0.20:8008/dd.xml network.ipv4:10.0.0.20 ssdp.location:http://10.0.0.20:8008/dd.xml] add[identity.udns:[uuid:u2] ssdp.types:[urn:dial-multiscreen-org:service:dial:1]]",
		},
		{
			"roku serial, LF alone, no blank line", ssdpFrame(t, "HTTP/1.1 200 OK\nST: roku:ecp\nUSN: uuid:roku:ecp:X00000SERIAL\n"),
			"00:11:22:33:44:55 ssdp seen set[network.ipv4:10.0.0.20 roku.serial:X00000SERIAL] add[identity.udns:[uuid:roku:ecp:X00000SERIAL] ssdp.types:[roku:ecp]]",
		},
		{"ssdp byebye drops the type", ssdpFrame(t, "NOTIFY * HTTP/1.1", "NT: urn:x:1", "NTS: ssdp:byebye", "USN: uuid:u1::urn:x:1"), "00:11:22:33:44:55 ssdp left set[network.last_ipv4:10.0.0.20] drop[ssdp.types:[urn:x:1]] unset[network.ipv4]"},
		{"ssdp search is presence", ssdpFrame(t, "M-SEARCH * HTTP/1.1", "ST: ssdp:all", "MAN: \"ssdp:discover\""), "00:11:22:33:44:55 ssdp seen set[network.ipv4:10.0.0.20]"},
		{"ssdp for somebody else", ssdpFrame(t, "NOTIFY * HTTP/1.1", "NT: upnp:rootdevice", "NTS: ssdp:alive", "USN: uuid:u9", "LOCATION: http://10.0.0.99/d.xml"), "00:11:22:33:44:55 traffic refresh"},
		{"ssdp garbage refreshes", ssdpFrame(t, "\x00\xff"), "00:11:22:33:44:55 traffic refresh set[network.ipv4:10.0.0.20]"},
		{
			"mdns service with its host", mdnsFrame(t, append(dnssd, hostRecord+tvIP)...),
			"00:11:22:33:44:55 mdns seen set[mdns.device_id:abc mdns.hostname:tv mdns.model:Cast TV mdns.name:Küche network.hostname:tv network.ipv4:10.0.0.20]" +
				" add[mdns.hostnames:[tv] mdns.instances:[Kitchen.TV._googlecast._tcp] mdns.services:[_googlecast._tcp]]",
		},
		{
			"mdns without addresses is believed", mdnsFrame(t, dnssd[:2]...),
			"00:11:22:33:44:55 mdns seen set[mdns.hostname:tv network.hostname:tv network.ipv4:10.0.0.20]" +
				" add[mdns.hostnames:[tv] mdns.instances:[Kitchen.TV._googlecast._tcp] mdns.services:[_googlecast._tcp]]",
		},
		{"mdns of a reflector is presence alone", mdnsFrame(t, append(dnssd, hostRecord+"10.0.0.99")...), "00:11:22:33:44:55 mdns seen set[network.ipv4:10.0.0.20]"},
		{
			"mdns over IPv6, own by EUI-64", udpFrame(t, tvMAC, "fe80::9", "ff02::fb", 5353, 5353,
				mdnsBytes(t, "tv.local. 120 IN AAAA fe80::211:22ff:fe33:4455", "tv.local. 120 IN AAAA 2001:db8::5", hostRecord+tvIP)),
			"00:11:22:33:44:55 mdns seen set[mdns.hostname:tv network.hostname:tv network.ipv4:10.0.0.20]" +
				" add[mdns.hostnames:[tv] network.ipv6:[fe80::9 fe80::211:22ff:fe33:4455 2001:db8::5]]",
		},
		{
			"mdns goodbye of a service", mdnsFrame(t, "_http._tcp.local. 0 IN PTR Web._http._tcp.local."),
			"00:11:22:33:44:55 mdns seen set[network.ipv4:10.0.0.20] drop[mdns.instances:[Web._http._tcp] mdns.services:[_http._tcp]]",
		},
		{
			"mdns goodbye of everything leaves", mdnsFrame(t, "_http._tcp.local. 0 IN PTR Web._http._tcp.local.", "tv.local. 0 IN A "+tvIP),
			"00:11:22:33:44:55 mdns left set[network.last_ipv4:10.0.0.20] drop[mdns.hostnames:[tv] mdns.instances:[Web._http._tcp] mdns.services:[_http._tcp]] unset[network.ipv4]",
		},
		{"mdns query is presence", udpFrame(t, tvMAC, tvIP, "224.0.0.251", 5353, 5353, make([]byte, 12)), "00:11:22:33:44:55 mdns seen set[network.ipv4:10.0.0.20]"},
		{"mdns record with a broken TXT keeps the rest", udpFrame(t, tvMAC, tvIP, "224.0.0.251", 5353, 5353, rawTXT), "00:11:22:33:44:55 mdns seen set[network.ipv4:10.0.0.20]"},
		{"short frame", []byte{1, 2, 3}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			parser, _ := newParser(t, discovery.Options{LAN: lan()})
			got := parser.Parse(frame(c.frame))
			checkObservations(t, parser, got)
			if c.want == "" {
				require.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			require.Equal(t, noon, got[0].Time)
			require.Equal(t, c.want, say(got[0]))
		})
	}
}

// A device that left has no address; if it only stopped a service, its next packet tells the address.
func TestParseTrafficAfterAGoodbye(t *testing.T) {
	parser, _ := newParser(t, discovery.Options{LAN: lan()})
	packet := func() string {
		return say(parser.Parse(frame(udpFrame(t, tvMAC, tvIP, "8.8.8.8", 4000, 53, nil)))[0])
	}
	parser.Parse(frame(arpFrame(t, tvMAC, tvIP)))
	require.Equal(t, "00:11:22:33:44:55 traffic refresh", packet())
	gone := parser.Parse(frame(ssdpFrame(t, "NOTIFY * HTTP/1.1", "NT: upnp:rootdevice", "NTS: ssdp:byebye", "USN: uuid:u1::upnp:rootdevice")))[0]
	require.Equal(t, discovery.Left, gone.Presence)
	require.Equal(t, "00:11:22:33:44:55 traffic refresh set[network.ipv4:10.0.0.20]", packet())
	require.Equal(t, "00:11:22:33:44:55 traffic refresh", packet())
}

// An attribute with several sources on one device stays with the first, so that the record is steady.
func TestParseKeepsToOneSource(t *testing.T) {
	parser, _ := newParser(t, discovery.Options{LAN: lan()})
	at := noon
	alive := func(udn, path, nts string) discovery.Observation {
		f := frame(ssdpFrame(t, "NOTIFY * HTTP/1.1", "NT: upnp:rootdevice", "NTS: ssdp:"+nts, "USN: uuid:"+udn+"::upnp:rootdevice", "LOCATION: http://10.0.0.20/"+path))
		f.Time, f.Recorded = at, at
		got := parser.Parse(f)
		require.Len(t, got, 1)
		return got[0]
	}
	require.Equal(t, "http://10.0.0.20/1", alive("u1", "1", "alive").Set[device.AttrSSDPLocation])
	require.NotContains(t, alive("u2", "2", "alive").Set, device.AttrSSDPLocation)
	require.Equal(t, "http://10.0.0.20/1b", alive("u1", "1b", "alive").Set[device.AttrSSDPLocation])
	require.Equal(t, []string{device.AttrSSDPLocation, device.AttrIPv4}, alive("u1", "1b", "byebye").Unset)
	require.Equal(t, "http://10.0.0.20/2", alive("u2", "2", "alive").Set[device.AttrSSDPLocation])
	at = at.Add(time.Hour)
	require.Equal(t, "http://10.0.0.20/3", alive("u3", "3", "alive").Set[device.AttrSSDPLocation], "u2 fell silent")
}

func TestParseDHCPNameGoesBeforeTheMDNSName(t *testing.T) {
	announce := mdnsFrame(t, "tv.local. 120 IN A "+tvIP)
	named := dhcpClient(t, tvMAC, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptHostName("tv-kitchen")))

	parser, _ := newParser(t, discovery.Options{LAN: lan()})
	require.Equal(t, "tv", parser.Parse(frame(announce))[0].Set[device.AttrHostname])
	require.Equal(t, "tv-kitchen", parser.Parse(frame(named))[0].Set[device.AttrHostname])
	require.NotContains(t, parser.Parse(frame(announce))[0].Set, device.AttrHostname)

	restarted, _ := newParser(t, discovery.Options{LAN: lan(), HasDHCPName: func(mac string) bool { return mac == tvMAC }})
	require.NotContains(t, restarted.Parse(frame(announce))[0].Set, device.AttrHostname)
}

// A host answering over IPv6 with the IPv4 address it is known to use speaks for itself; with one that
// another MAC uses it does not.
func TestParseKnowsWhoUsesAnAddress(t *testing.T) {
	parser, stats := newParser(t, discovery.Options{LAN: lan()})
	parser.Parse(frame(arpFrame(t, tvMAC, tvIP)))
	parser.Parse(frame(arpFrame(t, "00:11:22:33:44:66", "10.0.0.21")))
	over6 := func(ip string) []discovery.Observation {
		return parser.Parse(frame(udpFrame(t, tvMAC, "fe80::1", "ff02::fb", 5353, 5353, mdnsBytes(t, "x.local. 120 IN A "+ip))))
	}
	require.Equal(t, "x", over6(tvIP)[0].Set[device.AttrMDNSHostname])
	require.NotContains(t, over6("10.0.0.21")[0].Set, device.AttrMDNSHostname)
	require.Equal(t, map[string]int64{"mdns": 1}, stats.Snapshot().Foreign)
}

func TestParseCleansValues(t *testing.T) {
	parser, stats := newParser(t, discovery.Options{LAN: lan()})
	name := func(s string) any {
		return parser.Parse(frame(dhcpClient(t, tvMAC, dhcpv4.MessageTypeDiscover, dhcpv4.WithGeneric(dhcpv4.OptionHostName, []byte(s)))))[0].Set[device.AttrDHCPHostname]
	}
	require.Equal(t, "tv", name("tv\x00\x00"), "NUL padding is not content")
	require.Zero(t, stats.Snapshot().ValuesCut)
	require.Equal(t, "a[31mb", name("a\x1b[31m\x00b"))
	require.Equal(t, "a\uFFFDb", name("a\xffb"))
	require.Equal(t, strings.Repeat("ü", discovery.MaxValueBytes/2), name(strings.Repeat("ü", discovery.MaxValueBytes)))
	require.EqualValues(t, 3, stats.Snapshot().ValuesCut)
	require.Nil(t, name("\x00\x01"))
}

func TestParseBoundsSets(t *testing.T) {
	parser, _ := newParser(t, discovery.Options{LAN: lan()})
	var lines []string
	for i := range 3 * discovery.MaxSetMembers {
		lines = append(lines, "_http._tcp.local. 120 IN PTR i"+strings.Repeat("x", i%50+1)+string(rune('a'+i/50))+"._http._tcp.local.")
	}
	o := parser.Parse(frame(mdnsFrame(t, lines...)))[0]
	require.Len(t, o.Add[device.AttrMDNSInstances], discovery.MaxSetMembers)
}

func TestLearn(t *testing.T) {
	var routers []string
	parser, _ := newParser(t, discovery.Options{Learn: true, OnRouter: func(mac string) { routers = append(routers, mac) }})

	require.Len(t, parser.Parse(frame(arpFrame(t, routerMAC, routerIP))), 1, "nothing says yet that it is the router")
	parser.Parse(frame(dhcpClient(t, tvMAC, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(routerIP))))))
	require.Equal(t, []string{routerMAC}, routers)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, parser.LAN().Prefixes, "guessed around the server")
	require.Empty(t, parser.Parse(frame(arpFrame(t, routerMAC, routerIP))))

	ack := dhcpServer(t, tvMAC, dhcpv4.MessageTypeAck, dhcpv4.WithYourIP(net.ParseIP("10.0.3.20")), dhcpv4.WithNetmask(net.CIDRMask(22, 32)))
	o := parser.Parse(frame(ack))[0]
	require.Equal(t, "10.0.3.20", o.Set[device.AttrIPv4])
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/22")}, parser.LAN().Prefixes, "the server's mask is better")
}

func TestLearnRouterByForwarding(t *testing.T) {
	parser, _ := newParser(t, discovery.Options{Learn: true})
	require.Empty(t, parser.Parse(frame(udpFrame(t, routerMAC, "8.8.8.8", tvIP, 53, 4000, []byte("x")))))
	lan := parser.LAN()
	require.True(t, lan.Router(routerMAC))
}

func TestGivenLANIsNotLearnedOver(t *testing.T) {
	parser, _ := newParser(t, discovery.Options{LAN: lan(), Learn: true})
	other := "00:bb:bb:bb:bb:bb"
	parser.Parse(frame(udpFrame(t, other, "8.8.8.8", tvIP, 53, 4000, []byte("x"))))
	got := parser.LAN()
	require.False(t, got.Router(other))
	require.Equal(t, lan().Prefixes, got.Prefixes)
}

// The names are an interface: dashboards and alerts use them.
func TestMetricNames(t *testing.T) {
	registry := prometheus.NewRegistry()
	_, err := discovery.NewStats(registry)
	require.NoError(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Equal(t, []string{
		"rollcall_edge_announcements_foreign_total", "rollcall_edge_frames_malformed_total", "rollcall_edge_frames_total",
		"rollcall_edge_kernel_drops_total", "rollcall_edge_observations_total", "rollcall_edge_values_cut_total",
	}, names)
	_, err = discovery.NewStats(registry)
	require.ErrorContains(t, err, "register discovery metrics")
}
