package discovery

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/rollcall-platform/rollcall/internal/device"
)

const (
	portMDNS       = 5353
	dnsHeader      = 12
	maxMDNSRecords = 256
	maxMDNSBytes   = 9000 // RFC 6762 section 17
	serviceTypes   = "_services._dns-sd._udp.local."
)

// mdnsSource reads mDNS and DNS-SD (RFC 6762, 6763).
var mdnsSource = Source{
	Name: KindMDNS,
	Frames: []FrameMatch{
		{IPProtocol: ipUDP, FromPort: portMDNS},
		{IPProtocol: ipUDP, ToPort: portMDNS},
	},
	Groups: []netip.Addr{netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("ff02::fb")},
	Attributes: []string{
		device.AttrHostname, device.AttrMDNSHostname, device.AttrMDNSHostnames, device.AttrMDNSServices, device.AttrMDNSInstances,
		device.AttrMDNSName, device.AttrMDNSModel, device.AttrMDNSDeviceID,
	},
	read: (*Parser).readMDNS,
}

// TXT keys that name a device, its model and its identity, best first. Keys are lower case.
var (
	txtName     = []string{"fn", "name"}
	txtModel    = []string{"md", "model", "ty", "modelid", "am", "usb_mdl"}
	txtDeviceID = []string{"deviceid", "bridgeid", "id"}
)

// mdnsMessage is a response sorted by what its records say. Names are lower case, fully qualified, in
// presentation format; labels that people read keep their case.
type mdnsMessage struct {
	hosts    []string                // owners of address records, in order
	addrs    map[string][]netip.Addr // by owner, TTL > 0
	gone     map[string][]netip.Addr // by owner, TTL 0
	spelled  map[string]string       // host names as announced
	targets  map[string]string       // instance to the host of its SRV record
	ptrs     []mdnsPTR
	texts    []mdnsTXT
	target   string // the host of the first SRV record
	alive    bool   // any record with TTL > 0
	goodbyes bool   // any record with TTL 0
}

type mdnsPTR struct {
	owner, target string
	goodbye       bool
}

type mdnsTXT struct {
	owner string
	pairs []string
}

// parseMDNS reads the answers and additional records of a response. A record that is broken inside its
// own length is skipped, because devices exist that send one among good ones; how many is returned.
func parseMDNS(b []byte) (m mdnsMessage, broken int, err error) {
	if len(b) < dnsHeader || len(b) > maxMDNSBytes {
		return m, 0, fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	count := func(i int) int { return int(binary.BigEndian.Uint16(b[i:])) }
	questions, answers, authority, extra := count(4), count(6), count(8), count(10)
	if questions+answers+authority+extra > maxMDNSRecords {
		return m, 0, fmt.Errorf("%w: more than %d records", errMalformed, maxMDNSRecords)
	}
	off := dnsHeader
	for range questions {
		if _, off, err = dns.UnpackDomainName(b, off); err != nil || off+4 > len(b) {
			return m, 0, fmt.Errorf("%w: question", errMalformed)
		}
		off += 4
	}
	m.addrs, m.gone = map[string][]netip.Addr{}, map[string][]netip.Addr{}
	m.targets, m.spelled = map[string]string{}, map[string]string{}
	for i := range answers + authority + extra {
		var h dns.RR_Header
		if h, off, err = recordHeader(b, off); err != nil {
			return m, broken, err
		}
		start := off
		off += int(h.Rdlength)
		if i >= answers && i < answers+authority {
			continue
		}
		switch h.Rrtype {
		case dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeSRV, dns.TypeTXT:
			rr, end, err := dns.UnpackRRWithHeader(h, b[:off], start)
			if err != nil || end != off {
				broken++
				continue
			}
			m.take(rr)
		}
	}
	return m, broken, nil
}

// recordHeader reads a record's header and returns the offset of its data, which lies within b.
func recordHeader(b []byte, off int) (dns.RR_Header, int, error) {
	name, off, err := dns.UnpackDomainName(b, off)
	if err != nil || off+10 > len(b) {
		return dns.RR_Header{}, 0, fmt.Errorf("%w: record header", errMalformed)
	}
	h := dns.RR_Header{
		Name:     name,
		Rrtype:   binary.BigEndian.Uint16(b[off:]),
		Class:    binary.BigEndian.Uint16(b[off+2:]),
		Ttl:      binary.BigEndian.Uint32(b[off+4:]),
		Rdlength: binary.BigEndian.Uint16(b[off+8:]),
	}
	if off += 10; off+int(h.Rdlength) > len(b) {
		return h, 0, fmt.Errorf("%w: record runs past the message", errMalformed)
	}
	return h, off, nil
}

func (m *mdnsMessage) take(rr dns.RR) {
	h := rr.Header()
	owner, goodbye := dns.CanonicalName(h.Name), h.Ttl == 0
	m.alive, m.goodbyes = m.alive || !goodbye, m.goodbyes || goodbye
	switch rr := rr.(type) {
	case *dns.A:
		if addr, ok := netip.AddrFromSlice(rr.A.To4()); ok {
			m.host(h.Name, addr, goodbye)
		}
	case *dns.AAAA:
		if addr, ok := netip.AddrFromSlice(rr.AAAA.To16()); ok {
			m.host(h.Name, addr, goodbye)
		}
	case *dns.PTR:
		m.ptrs = append(m.ptrs, mdnsPTR{h.Name, rr.Ptr, goodbye})
	case *dns.SRV:
		if !goodbye {
			m.targets[owner] = rr.Target
			if m.target == "" {
				m.target = rr.Target
			}
		}
	case *dns.TXT:
		if !goodbye {
			m.texts = append(m.texts, mdnsTXT{h.Name, rr.Txt})
		}
	}
}

func (m *mdnsMessage) host(name string, addr netip.Addr, goodbye bool) {
	owner := dns.CanonicalName(name)
	if _, known := m.spelled[owner]; !known {
		m.spelled[owner] = name
		m.hosts = append(m.hosts, owner)
	}
	if goodbye {
		m.gone[owner] = append(m.gone[owner], addr)
	} else {
		m.addrs[owner] = append(m.addrs[owner], addr)
	}
}

// readMDNS reads a response. A query only shows that its sender is there (the records in it are what
// the sender has heard from others), and so does a response that is not from port 5353 (RFC 6762
// section 6).
func (p *Parser) readMDNS(pkt *packet, o *Observation) error {
	if len(pkt.payload) < dnsHeader {
		return fmt.Errorf("%w: %d bytes", errMalformed, len(pkt.payload))
	}
	const response = 0x80
	if pkt.payload[2]&response == 0 || pkt.sport != portMDNS {
		p.setAddressInUse(pkt.src, o)
		return nil
	}
	m, broken, err := parseMDNS(pkt.payload)
	if broken > 0 {
		p.stats.of(KindMDNS).malformed.Add(int64(broken))
	}
	if err != nil {
		return err
	}
	p.setAddressInUse(pkt.src, o)
	who := attribution{message: &m, pkt: pkt, mac: o.MAC, holders: p.holders}
	if !who.maySpeakForSender() {
		p.stats.of(KindMDNS).foreign.Add(1)
		return nil
	}
	p.mdnsHosts(&m, who, pkt, o)
	p.mdnsServices(&m, who, o)
	if m.goodbyes && !m.alive && who.withdrawsSender() {
		o.Presence = Left
	}
	return nil
}

// mdnsHosts takes the host name and the addresses of hosts that are the sender.
func (p *Parser) mdnsHosts(m *mdnsMessage, who attribution, pkt *packet, o *Observation) {
	for _, host := range m.hosts {
		whom := who.ofHost(host)
		if whom == subjectOther {
			continue
		}
		p.mdnsHostname(m.spelled[host], len(m.addrs[host]) == 0, o)
		if whom != subjectSender {
			continue
		}
		for _, addr := range m.gone[host] {
			if addr.Is6() && addr != pkt.src {
				o.drop(device.AttrIPv6, addr.String())
			}
		}
		for _, addr := range m.addrs[host] {
			// Its IPv4 source address says better which of several is on this LAN.
			if addr.Is6() || !pkt.src.Is4() {
				p.setAddress(addr, o)
			}
		}
	}
	if len(m.hosts) == 0 {
		p.mdnsHostname(m.target, false, o)
	}
}

// mdnsHostname takes one of the sender's names, or its withdrawal.
func (p *Parser) mdnsHostname(name string, goodbye bool, o *Observation) {
	hostname := p.clean(hostLabel(name))
	if hostname == "" {
		return
	}
	if goodbye {
		o.drop(device.AttrMDNSHostnames, hostname)
		p.claims.release(o, device.AttrMDNSHostname, hostname)
		return
	}
	o.add(device.AttrMDNSHostnames, hostname)
	if !p.claims.acquire(o, device.AttrMDNSHostname, hostname, 0) {
		return
	}
	o.set(device.AttrMDNSHostname, hostname)
	if !p.hasDHCPName(o.MAC) && p.claims.acquire(o, device.AttrHostname, KindMDNS, rankMDNS) {
		o.set(device.AttrHostname, hostname)
	}
}

// mdnsServices takes service types, instances, and what their TXT records say about the device.
func (p *Parser) mdnsServices(m *mdnsMessage, who attribution, o *Observation) {
	for _, ptr := range m.ptrs {
		if dns.CanonicalName(ptr.owner) == serviceTypes {
			if _, service := splitInstance(ptr.target); service != "" && !ptr.goodbye && who.maySpeakForSender() {
				o.add(device.AttrMDNSServices, p.clean(service))
			}
			continue
		}
		instance, service := splitInstance(ptr.target)
		if instance == "" || who.ofInstance(ptr.target) == subjectOther {
			continue
		}
		service, full := p.clean(service), p.clean(instance+"."+service)
		if ptr.goodbye {
			o.drop(device.AttrMDNSServices, service)
			o.drop(device.AttrMDNSInstances, full)
			for _, attr := range []string{device.AttrMDNSName, device.AttrMDNSModel, device.AttrMDNSDeviceID} {
				p.claims.release(o, attr, service)
			}
			continue
		}
		o.add(device.AttrMDNSServices, service)
		o.add(device.AttrMDNSInstances, full)
	}
	for _, txt := range m.texts {
		_, service := splitInstance(txt.owner)
		if service == "" || who.ofInstance(txt.owner) == subjectOther {
			continue
		}
		p.mdnsText(txt.pairs, p.clean(service), o)
	}
}

func (p *Parser) mdnsText(pairs []string, service string, o *Observation) {
	values := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(unescape(pair), "=")
		key = strings.ToLower(key)
		if _, dup := values[key]; ok && !dup {
			values[key] = value
		}
	}
	for attr, keys := range map[string][]string{device.AttrMDNSName: txtName, device.AttrMDNSModel: txtModel, device.AttrMDNSDeviceID: txtDeviceID} {
		for _, key := range keys {
			if v := p.clean(values[key]); v != "" {
				if p.claims.acquire(o, attr, service, 0) {
					o.set(attr, v)
				}
				break
			}
		}
	}
}

// splitInstance splits "Kitchen._googlecast._tcp.local." into instance and service; the instance is ""
// for a service type alone, both are "" for anything else.
func splitInstance(name string) (instance, service string) {
	labels := dns.SplitDomainName(name)
	if len(labels) < 3 || !strings.EqualFold(labels[len(labels)-1], "local") {
		return "", ""
	}
	for i := 0; i+1 < len(labels)-1; i++ {
		proto := strings.ToLower(labels[i+1])
		if strings.HasPrefix(labels[i], "_") && (proto == "_tcp" || proto == "_udp") {
			return unescape(strings.Join(labels[:i], ".")), strings.ToLower(unescape(labels[i])) + "." + proto
		}
	}
	return "", ""
}

// hostLabel returns "tv" for "tv.local.", and "" for a name of another domain.
func hostLabel(name string) string {
	const suffix = ".local."
	if len(name) <= len(suffix) || !strings.EqualFold(name[len(name)-len(suffix):], suffix) {
		return ""
	}
	return unescape(name[:len(name)-len(suffix)])
}

// unescape undoes DNS presentation format: \. and \DDD.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	digit := func(i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			out = append(out, s[i])
		case digit(i+1) && digit(i+2) && digit(i+3):
			out = append(out, byte(int(s[i+1]-'0')*100+int(s[i+2]-'0')*10+int(s[i+3]-'0')))
			i += 3
		default:
			out = append(out, s[i+1])
			i++
		}
	}
	return string(out)
}
