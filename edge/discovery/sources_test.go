package discovery_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
)

// samples are frames of each source, by its name. A new source gets its own here: one for each of its
// FrameMatches at least.
func samples(t testing.TB) map[string][][]byte {
	return map[string][][]byte{
		"arp": {arpFrame(t, tvMAC, tvIP)},
		"ndp": {neighbourAdvertisement(t)},
		"dhcp": {
			dhcpClient(t, tvMAC, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptHostName("tv"))),
			dhcpServer(t, tvMAC, dhcpv4.MessageTypeAck),
		},
		"ssdp": {
			ssdpFrame(t, "NOTIFY * HTTP/1.1", "NT: upnp:rootdevice", "NTS: ssdp:alive", "USN: uuid:u1::upnp:rootdevice", "LOCATION: http://10.0.0.20/", "SERVER: x"),
			udpFrame(t, tvMAC, tvIP, routerIP, 1900, 40002, ssdpText("HTTP/1.1 200 OK", "ST: roku:ecp", "USN: uuid:roku:ecp:1")),
			udpFrame(t, tvMAC, tvIP, routerIP, 40001, 40002, ssdpText("HTTP/1.1 200 OK", "ST: roku:ecp", "USN: uuid:roku:ecp:1")),
			udpFrame(t, tvMAC, "fe80::9", "ff02::c", 50000, 1900, ssdpText("M-SEARCH * HTTP/1.1", "ST: ssdp:all")),
		},
		"mdns": {
			mdnsFrame(t, "_x._tcp.local. 120 IN PTR A._x._tcp.local.", "A._x._tcp.local. 120 IN SRV 0 0 1 tv.local.", "tv.local. 120 IN A "+tvIP),
			udpFrame(t, tvMAC, tvIP, routerIP, 5353, 40002, mdnsBytes(t, "tv.local. 120 IN A "+tvIP)),
			udpFrame(t, tvMAC, tvIP, "224.0.0.251", 40001, 5353, make([]byte, 12)),
			udpFrame(t, tvMAC, "fe80::1", "ff02::fb", 5353, 5353, mdnsBytes(t, "tv.local. 120 IN AAAA fe80::1")),
		},
	}
}

func neighbourAdvertisement(t testing.TB) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: []byte("\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09"), DstIP: []byte("\xff\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
	require.NoError(t, icmp.SetNetworkLayerForChecksum(ip))
	eth := &layers.Ethernet{SrcMAC: hw(t, tvMAC), DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv6}
	return serialize(t, eth, ip, icmp, &layers.ICMPv6NeighborAdvertisement{TargetAddress: ip.SrcIP})
}

// The filter in the kernel passes the frames of every source whole, plain and in a VLAN, and the parser
// gives them to that source.
func TestEverySourceGetsItsFrames(t *testing.T) {
	bySource := samples(t)
	filter, err := discovery.NewFilter()
	require.NoError(t, err)
	for _, source := range discovery.RegisteredSources() {
		t.Run(source.Name, func(t *testing.T) {
			frames := bySource[source.Name]
			delete(bySource, source.Name)
			require.GreaterOrEqual(t, len(frames), len(source.Frames), "add a sample for each FrameMatch of source %q to samples", source.Name)
			for i, data := range frames {
				tagged := slices.Concat(data[:12], []byte{0x81, 0x00, 0, 7}, data[12:])
				for _, data := range [][]byte{data, tagged} {
					n, err := filter(data)
					require.NoError(t, err)
					require.Equal(t, discovery.CaptureLength, n, "the kernel drops sample %d", i)
					parser, stats := newParser(t, discovery.Options{LAN: lan()})
					observed := parser.Parse(frame(data))
					require.Equal(t, map[string]int64{source.Name: 1}, stats.Snapshot().Frames, "sample %d", i)
					require.Len(t, observed, 1)
					require.Equal(t, source.Name, observed[0].Kind)
				}
			}
		})
	}
	require.Empty(t, slices.Collect(maps.Keys(bySource)), "samples of sources that are not registered")
}

// On the recorded LAN, the filter in the kernel and the parser agree about every frame.
func TestFilterAndParserAgree(t *testing.T) {
	filter, err := discovery.NewFilter()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, source := range discovery.RegisteredSources() {
		names[source.Name] = true
	}
	require.NotEmpty(t, names)
	capture := open(t, discovery.FileOptions{Path: "../../testdata/lan/lan.pcap"})
	read := map[string]int{}
	for {
		f, err := capture.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		n, err := filter(bytes.Clone(f.Data))
		require.NoError(t, err)
		parser, stats := newParser(t, discovery.Options{})
		parser.Parse(f)
		for kind := range stats.Snapshot().Frames {
			read[kind]++
			require.Equal(t, names[kind], n == discovery.CaptureLength, "frame %d is taken for %s", f.Index, kind)
		}
	}
	// A source that is newer than the recording has its sample frames (TestSampleFrames…) alone.
	require.GreaterOrEqual(t, len(read), 5, "the recording has frames of %v only", read)
}
