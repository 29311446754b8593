package discovery

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/rollcall-platform/rollcall/internal/device"
)

const (
	portSSDP       = 1900
	maxSSDPHeaders = 64
	dialType       = "urn:dial-multiscreen-org:"
	rokuPrefix     = "uuid:roku:ecp:"
)

// ssdpSource reads SSDP (UPnP Device Architecture 2.0 section 1, DIAL 2.2).
var ssdpSource = Source{
	Name: KindSSDP,
	Frames: []FrameMatch{
		{IPProtocol: ipUDP, ToPort: portSSDP},
		{IPProtocol: ipUDP, FromPort: portSSDP},
		{IPProtocol: ipUDP, Prefix: "HTTP/1.1 200"}, // the answer to a search, which may come from any port
	},
	Groups: []netip.Addr{netip.MustParseAddr("239.255.255.250"), netip.MustParseAddr("ff02::c")},
	Attributes: []string{
		device.AttrSSDPServer, device.AttrSSDPLocation, device.AttrSSDPTypes, device.AttrApplicationURL, device.AttrDIALLocation, device.AttrUDNs, device.AttrRokuSerial,
	},
	read: (*Parser).readSSDP,
}

// ssdpMessage is an SSDP datagram: a start line and headers with upper-case names.
type ssdpMessage struct {
	method string // NOTIFY, M-SEARCH, or "" for a response
	header map[string]string
}

// parseSSDP reads the HTTP-like text leniently: line ends may be LF alone, the blank line may be
// missing, lines without a colon are skipped. Of a repeated header the first counts.
func parseSSDP(b []byte) (ssdpMessage, error) {
	text := string(b)
	line, rest, _ := strings.Cut(text, "\n")
	start := strings.Fields(line)
	if len(start) < 2 {
		return ssdpMessage{}, fmt.Errorf("%w: start line", errMalformed)
	}
	m := ssdpMessage{header: make(map[string]string, 12)}
	switch {
	case start[0] == "NOTIFY" || start[0] == "M-SEARCH":
		m.method = start[0]
	case strings.HasPrefix(start[0], "HTTP/") && start[1] == "200":
	default:
		return ssdpMessage{}, fmt.Errorf("%w: start line", errMalformed)
	}
	for n := 0; rest != ""; n++ {
		if n == maxSSDPHeaders {
			return ssdpMessage{}, fmt.Errorf("%w: more than %d header lines", errMalformed, maxSSDPHeaders)
		}
		line, rest, _ = strings.Cut(rest, "\n")
		line = strings.TrimRight(line, "\r")
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		name = strings.ToUpper(strings.TrimSpace(name))
		if _, dup := m.header[name]; !dup {
			m.header[name] = strings.TrimSpace(value)
		}
	}
	return m, nil
}

// readSSDP reads announcements, answers to searches, and, as mere presence, searches.
func (p *Parser) readSSDP(pkt *packet, o *Observation) error {
	m, err := parseSSDP(pkt.payload)
	if err != nil {
		return err
	}
	p.setAddressInUse(pkt.src, o)
	if m.method == "M-SEARCH" {
		return nil
	}
	kind := p.clean(m.header["NT"])
	if m.method == "" {
		kind = p.clean(m.header["ST"])
	}
	udn, usnKind := splitUSN(p.clean(m.header["USN"]))
	if kind == "" {
		kind = usnKind
	}
	if kind == "" && udn == "" {
		return fmt.Errorf("%w: neither type nor unique name", errMalformed)
	}
	location := p.clean(m.header["LOCATION"])
	if !speaksFor(pkt.src, location) {
		return fmt.Errorf("%w: location %.80q", errForeign, location)
	}
	if m.method == "NOTIFY" && strings.EqualFold(m.header["NTS"], "ssdp:byebye") {
		p.ssdpByebye(o, kind, udn)
		return nil
	}
	p.ssdpAlive(o, m, kind, udn, location)
	return nil
}

func (p *Parser) ssdpAlive(o *Observation, m ssdpMessage, kind, udn, location string) {
	if serial, ok := strings.CutPrefix(udn, rokuPrefix); ok {
		o.set(device.AttrRokuSerial, serial)
	}
	o.add(device.AttrUDNs, udn)
	if isSSDPType(kind) {
		o.add(device.AttrSSDPTypes, kind)
	}
	setClaimed := func(attr, announcer, value string) {
		if value != "" && p.claims.acquire(o, attr, announcer, 0) {
			o.set(attr, value)
		}
	}
	setClaimed(device.AttrSSDPServer, udn, p.clean(m.header["SERVER"]))
	setClaimed(device.AttrSSDPLocation, udn, location)
	setClaimed(device.AttrApplicationURL, udn, p.clean(m.header["APPLICATION-URL"]))
	if strings.HasPrefix(kind, dialType) {
		setClaimed(device.AttrDIALLocation, udn, location)
	}
}

// ssdpByebye withdraws one announcement. A device says byebye for all it has announced, one by one, when
// it leaves; some also before they announce themselves anew, and then the next frame brings them back.
func (p *Parser) ssdpByebye(o *Observation, kind, udn string) {
	o.Presence = Left
	if isSSDPType(kind) {
		o.drop(device.AttrSSDPTypes, kind)
	}
	if strings.HasPrefix(kind, dialType) && p.claims.release(o, device.AttrDIALLocation, udn) {
		o.Unset = append(o.Unset, device.AttrDIALLocation)
	}
	if kind != "upnp:rootdevice" {
		return
	}
	for _, attr := range []string{device.AttrSSDPLocation, device.AttrApplicationURL} {
		if p.claims.release(o, attr, udn) {
			o.Unset = append(o.Unset, attr)
		}
	}
}

// isSSDPType tells a device or service type from the other things that NT and ST may hold: a UDN, or
// what a careless responder copies from the search.
func isSSDPType(kind string) bool {
	return kind != "" && kind != "ssdp:all" && !strings.HasPrefix(strings.ToLower(kind), "uuid:")
}

// splitUSN splits "uuid:ID::type" into the UDN, which is "uuid:ID", and the type; either may be missing.
func splitUSN(usn string) (udn, kind string) {
	const scheme = "uuid:"
	if len(usn) < len(scheme) || !strings.EqualFold(usn[:len(scheme)], scheme) {
		return "", usn
	}
	udn, kind, _ = strings.Cut(usn[len(scheme):], "::")
	return scheme + udn, kind
}

// speaksFor reports whether the sender of a datagram may announce location: its host is the sender's
// address, or cannot be compared with it (a name, or the other IP version).
func speaksFor(sender netip.Addr, location string) bool {
	if location == "" {
		return true
	}
	u, err := url.Parse(location)
	if err != nil {
		return false
	}
	host, err := netip.ParseAddr(u.Hostname())
	if err != nil || host.Is4() != sender.Is4() {
		return true
	}
	return host.WithZone("") == sender
}
