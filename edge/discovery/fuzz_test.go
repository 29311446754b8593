package discovery_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
)

// checkObservations holds whatever the input is.
func checkObservations(t *testing.T, parser *discovery.Parser, got []discovery.Observation) {
	t.Helper()
	require.LessOrEqual(t, len(got), 1)
	lan := parser.LAN()
	for _, o := range got {
		mac := hw(t, o.MAC)
		require.Len(t, mac, 6)
		require.Equal(t, mac.String(), o.MAC)
		require.Zero(t, mac[0]&1, "group address")
		require.NotEqual(t, "00:00:00:00:00:00", o.MAC)
		require.False(t, lan.Router(o.MAC))
		for name, v := range o.Set {
			require.True(t, discovery.MaySet(o.Kind, name), "source %q sets %q, which it does not declare", o.Kind, name)
			if s, ok := v.(string); ok {
				checkText(t, s)
			} else {
				require.IsType(t, true, v)
			}
		}
		for _, name := range o.Unset {
			require.True(t, discovery.MaySet(o.Kind, name), "source %q withdraws %q, which it does not declare", o.Kind, name)
		}
		for _, sets := range []map[string][]string{o.Add, o.Drop} {
			for name, members := range sets {
				require.True(t, discovery.MaySet(o.Kind, name), "source %q sets %q, which it does not declare", o.Kind, name)
				require.LessOrEqual(t, len(members), discovery.MaxSetMembers)
				for _, m := range members {
					checkText(t, m)
				}
			}
		}
	}
}

func checkText(t *testing.T, s string) {
	t.Helper()
	require.NotEmpty(t, s)
	require.LessOrEqual(t, len(s), discovery.MaxValueBytes)
	require.True(t, utf8.ValidString(s))
	require.Equal(t, -1, strings.IndexFunc(s, unicode.IsControl))
}

// fuzzPayload feeds payloads as datagrams of a device, on a LAN that is known and one that is learned.
func fuzzPayload(f *testing.F, src, dst string, sport, dport int) {
	shell := udpFrame(f, tvMAC, src, dst, sport, dport, nil)
	f.Fuzz(func(t *testing.T, payload []byte) {
		data := append(shell[:len(shell):len(shell)], payload...)
		data[16], data[17] = 0, 0 // IP and UDP lengths of zero: to the end of the frame
		data[38], data[39] = 0, 0
		parseBothWays(t, data)
	})
}

func parseBothWays(t *testing.T, data []byte) {
	known, _ := newParser(t, discovery.Options{LAN: lan()})
	learning, _ := newParser(t, discovery.Options{Learn: true})
	for range 2 { // the second time with what the first left behind
		checkObservations(t, known, known.Parse(frame(data)))
		checkObservations(t, learning, learning.Parse(frame(data)))
	}
}

func FuzzParse(f *testing.F) {
	for _, data := range seedFrames(f) {
		f.Add(data)
	}
	f.Fuzz(parseBothWays)
}

func FuzzSSDP(f *testing.F) {
	f.Add(ssdpText("NOTIFY * HTTP/1.1", "NT: upnp:rootdevice", "NTS: ssdp:alive", "USN: uuid:u1::upnp:rootdevice", "LOCATION: http://10.0.0.20/"))
	f.Add(ssdpText("NOTIFY * HTTP/1.1", "NT: urn:x", "NTS: ssdp:byebye", "USN: uuid:u1::urn:x"))
	f.Add(ssdpText("HTTP/1.1 200 OK", "ST: roku:ecp", "USN: uuid:roku:ecp:1"))
	fuzzPayload(f, tvIP, "239.255.255.250", 1900, 1900)
}

func FuzzMDNS(f *testing.F) {
	f.Add(mdnsBytes(f, "_x._tcp.local. 120 IN PTR A\\.b\\195._x._tcp.local.", "A\\.b._x._tcp.local. 120 IN SRV 0 0 1 tv.local.",
		"A\\.b._x._tcp.local. 120 IN TXT \"fn=x\" \"md=y\"", "tv.local. 0 IN A "+tvIP, "tv.local. 120 IN AAAA fe80::1"))
	fuzzPayload(f, tvIP, "224.0.0.251", 5353, 5353)
}

func FuzzDHCP(f *testing.F) {
	for _, data := range [][]byte{
		dhcpClient(f, tvMAC, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptHostName("tv")),
			dhcpv4.WithGeneric(dhcpv4.OptionFQDN, append([]byte{4, 0, 0}, "\x02tv\x00"...))),
		dhcpServer(f, tvMAC, dhcpv4.MessageTypeAck),
	} {
		f.Add(data[42:])
	}
	fuzzPayload(f, "0.0.0.0", "255.255.255.255", 68, 67)
}

func seedFrames(t testing.TB) [][]byte {
	var frames [][]byte
	for _, ofSource := range samples(t) {
		frames = append(frames, ofSource...)
	}
	return append(frames, benchmarkFrames(t)...)
}

func benchmarkFrames(t testing.TB) [][]byte {
	return [][]byte{
		arpFrame(t, tvMAC, tvIP),
		dhcpClient(t, tvMAC, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptHostName("tv"))),
		dhcpServer(t, tvMAC, dhcpv4.MessageTypeAck),
		ssdpFrame(t, "NOTIFY * HTTP/1.1", "NT: upnp:rootdevice", "NTS: ssdp:alive", "USN: uuid:u1::upnp:rootdevice", "LOCATION: http://10.0.0.20/", "SERVER: x"),
		mdnsFrame(t, "_x._tcp.local. 120 IN PTR A._x._tcp.local.", "A._x._tcp.local. 120 IN SRV 0 0 1 tv.local.", "tv.local. 120 IN A "+tvIP),
		udpFrame(t, tvMAC, "fe80::1", "ff02::fb", 5353, 5353, mdnsBytes(t, "tv.local. 120 IN AAAA fe80::1"), 5, 6),
		udpFrame(t, tvMAC, tvIP, "8.8.8.8", 4000, 443, make([]byte, 1200)),
	}
}

func BenchmarkParse(b *testing.B) {
	frames := benchmarkFrames(b)
	for i, name := range []string{"arp", "dhcp", "dhcp-ack", "ssdp", "mdns", "mdns6", "traffic"} {
		b.Run(name, func(b *testing.B) {
			parser, _ := newParser(b, discovery.Options{LAN: lan()})
			b.ReportAllocs()
			for b.Loop() {
				parser.Parse(frame(frames[i]))
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
		})
	}
}
