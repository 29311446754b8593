package discovery

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/rollcall-platform/rollcall/internal/device"
)

const (
	portDHCPServer = 67
	portDHCPClient = 68
	optionMUD      = 161 // RFC 8520
)

// dhcpSource reads DHCP (RFC 2131, 2132, 4702, 8520).
var dhcpSource = Source{
	Name: KindDHCP,
	Frames: []FrameMatch{
		{EtherType: etherIPv4, IPProtocol: ipUDP, ToPort: portDHCPServer},
		{EtherType: etherIPv4, IPProtocol: ipUDP, ToPort: portDHCPClient},
	},
	Attributes: []string{device.AttrHostname, device.AttrDHCPHostname, device.AttrDHCPFQDN, device.AttrDHCPVendor, device.AttrDHCPClientID, device.AttrDHCPFingerprint, device.AttrDHCPMUD},
	read:       (*Parser).readDHCP,
}

// Ranks of the sources of network.hostname.
const (
	rankMDNS = iota
	rankDHCP
)

// readDHCP reads a client's message, or a server's about its client. Only an acknowledgement makes an
// address the client's.
func (p *Parser) readDHCP(pkt *packet, o *Observation) error {
	m, err := dhcpv4.FromBytes(pkt.payload)
	if err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	if m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6 || !hwAddr(m.ClientHWAddr).station() {
		return fmt.Errorf("%w: client hardware address %s", errMalformed, m.ClientHWAddr)
	}
	sender := o.MAC
	o.MAC = p.macName(hwAddr(m.ClientHWAddr))
	if p.learner != nil {
		p.learnDHCP(m, sender)
	}
	if m.OpCode == dhcpv4.OpcodeBootReply {
		return p.readDHCPServer(m, o)
	}
	// A client that has an address says so in the message, or, where it forgets to, by its source.
	p.setAddressInUse(addr4(m.ClientIPAddr), o)
	if _, said := o.Set[device.AttrIPv4]; !said && o.MAC == sender {
		p.setAddressInUse(pkt.src, o)
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform:
	case dhcpv4.MessageTypeDecline:
		delete(o.Set, device.AttrIPv4)
		o.Unset = append(o.Unset, device.AttrIPv4) // somebody else has it
	case dhcpv4.MessageTypeRelease:
		o.Presence = Left
	default:
		return fmt.Errorf("%w: message type %d from a client", errMalformed, m.MessageType())
	}
	p.dhcpIdentity(m, o)
	return nil
}

func (p *Parser) readDHCPServer(m *dhcpv4.DHCPv4, o *Observation) error {
	switch m.MessageType() {
	case dhcpv4.MessageTypeAck:
		p.setAddressInUse(addr4(m.YourIPAddr), o)
		p.setAddressInUse(addr4(m.ClientIPAddr), o)
	case dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeNak:
	default:
		return fmt.Errorf("%w: message type %d from a server", errMalformed, m.MessageType())
	}
	return nil
}

// dhcpIdentity takes what a client says about itself.
func (p *Parser) dhcpIdentity(m *dhcpv4.DHCPv4, o *Observation) {
	hostname := p.clean(string(m.Options.Get(dhcpv4.OptionHostName)))
	fqdn := p.clean(clientFQDN(m.Options.Get(dhcpv4.OptionFQDN)))
	o.set(device.AttrDHCPHostname, hostname)
	o.set(device.AttrDHCPFQDN, fqdn)
	if hostname == "" {
		hostname, _, _ = strings.Cut(fqdn, ".")
	}
	if hostname != "" && p.claims.acquire(o, device.AttrHostname, KindDHCP, rankDHCP) {
		o.set(device.AttrHostname, hostname)
	}
	o.set(device.AttrDHCPVendor, p.clean(string(m.Options.Get(dhcpv4.OptionClassIdentifier))))
	o.set(device.AttrDHCPClientID, p.clean(octets(m.Options.Get(dhcpv4.OptionClientIdentifier))))
	o.set(device.AttrDHCPMUD, p.clean(string(m.Options.Get(dhcpv4.GenericOptionCode(optionMUD)))))
	if params := m.Options.Get(dhcpv4.OptionParameterRequestList); len(params) > 0 && m.MessageType() != dhcpv4.MessageTypeInform {
		o.set(device.AttrDHCPFingerprint, p.clean(fingerprint(params)))
	}
}

// learnDHCP takes from a message who serves the LAN, and its prefix.
func (p *Parser) learnDHCP(m *dhcpv4.DHCPv4, sender string) {
	if server := m.ServerIdentifier(); server != nil {
		p.learner.noteGateway(addr4(server))
	}
	if m.OpCode != dhcpv4.OpcodeBootReply {
		return
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeAck, dhcpv4.MessageTypeOffer:
	default:
		return
	}
	p.learner.addRouter(sender)
	for _, r := range m.Router() {
		p.learner.noteGateway(addr4(r))
	}
	if ones, bits := net.IPMask(m.SubnetMask()).Size(); bits == 32 && ones > 0 {
		if prefix, err := addr4(m.YourIPAddr).Prefix(ones); err == nil {
			p.learner.notePrefix(prefix)
		}
	}
}

func addr4(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip.To4())
	return addr
}

// clientFQDN reads option 81 (RFC 4702): three bytes of flags, then a name in ASCII or DNS encoding.
func clientFQDN(option []byte) string {
	if len(option) < 4 {
		return ""
	}
	const encoded = 0x04
	name := option[3:]
	if option[0]&encoded == 0 {
		return string(name)
	}
	var labels []string
	for len(name) > 0 && name[0] != 0 && int(name[0]) < len(name) {
		labels = append(labels, string(name[1:1+name[0]]))
		name = name[1+name[0]:]
	}
	return strings.Join(labels, ".")
}

// octets spells bytes as hex with colons: a client identifier may be text, but need not be, and one form
// for all can be compared.
func octets(b []byte) string {
	return net.HardwareAddr(b).String()
}

func fingerprint(params []byte) string {
	var b []byte
	for i, code := range params {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(code), 10)
	}
	return string(b)
}
