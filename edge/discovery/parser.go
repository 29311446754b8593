package discovery

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Bounds of the parser's memories; one that is full is emptied and fills again.
const (
	maxMACNames = 4096
	maxHolders  = 8192
)

// Errors of Source.read. What wraps them says the detail.
var (
	// errMalformed: the frame's content breaks the rules of its protocol.
	errMalformed = errors.New("malformed")
	// errForeign: the frame speaks about another device than its sender.
	errForeign = errors.New("not the sender's to announce")
)

// Options configures a Parser.
type Options struct {
	// LAN is what is known about the LAN. For a live capture take LANOf of its interface.
	LAN LAN
	// Learn lets the parser find the IPv4 prefix and the router in the frames where LAN does not name
	// them. It is for captures; on a live LAN it would let any device pass itself off as the router.
	Learn bool
	// OnRouter is called from Parse with the MAC of a router that was learned: a record made of that
	// MAC before is not a device. Default: nothing.
	OnRouter func(mac string)
	// HasDHCPName reports whether the device has a DHCP host name already, which an mDNS name does not
	// replace as network.hostname. Default: only what this parser has seen itself, so that after a
	// restart an mDNS name may take over until the device's next DHCP exchange.
	HasDHCPName func(mac string) bool
	// Stats counts. Required.
	Stats *Stats
	// Logger gets refused frames at debug level. Default: discard.
	Logger *slog.Logger
}

// Parser turns frames into observations. It keeps no state of devices, only what keeps observations
// steady: the LAN, which MAC uses which address, and which of several announcers of a single-valued
// attribute was believed (attributeClaims), all bounded.
//
// Parse is not safe for concurrent use; LAN is.
type Parser struct {
	stats       *Stats
	log         *slog.Logger
	learner     *lanLearner // nil unless Options.Learn
	lan         atomic.Pointer[LAN]
	hasDHCPName func(mac string) bool
	claims      attributeClaims
	macNames    map[hwAddr]string
	holders     map[netip.Addr]string // MAC that was seen to use an address
}

// NewParser returns a parser. It panics without Stats.
func NewParser(o Options) *Parser {
	if o.Stats == nil {
		panic("discovery.NewParser: Options.Stats is required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.HasDHCPName == nil {
		o.HasDHCPName = func(string) bool { return false }
	}
	p := &Parser{stats: o.Stats, log: o.Logger, hasDHCPName: o.HasDHCPName, claims: newAttributeClaims(), macNames: map[hwAddr]string{}, holders: map[netip.Addr]string{}}
	p.lan.Store(o.LAN.clone())
	if o.Learn {
		p.learner = newLANLearner(p.lan.Load(), o.OnRouter)
	}
	return p
}

// LAN returns what is known about the LAN, with what was learned so far.
func (p *Parser) LAN() LAN { return *p.lan.Load() }

// Parse reads one frame and returns what it says about devices: nothing, or one observation. It never
// fails; what is malformed is counted and at most refreshes the presence of its sender.
func (p *Parser) Parse(f Frame) []Observation {
	pkt, err := decode(f.Data)
	if err != nil {
		proto := protoIP
		if errors.Is(err, errEthernet) {
			proto = protoEthernet
		}
		p.stats.protocols[proto].frames.Add(1)
		p.countMalformed(f, proto, err)
		return nil
	}
	mac := p.macName(pkt.srcMAC)
	if p.learner != nil {
		p.learner.noteSender(pkt.src, mac)
		defer func() { p.lan.Store(p.learner.lan) }()
	}
	proto := sources.classify(&pkt)
	p.stats.protocols[proto].frames.Add(1)
	if proto == protoOther {
		return nil
	}
	source := sources.source(proto)
	if source == nil {
		return p.observeTraffic(f, mac, &pkt)
	}
	p.claims.now = f.Recorded
	if f.Recorded.IsZero() {
		p.claims.now = f.Time
	}
	o := Observation{MAC: mac, Time: f.Time, Kind: source.Name}
	err = source.read(p, &pkt, &o)
	switch {
	case errors.Is(err, errForeign):
		p.stats.protocols[proto].foreign.Add(1)
	case err != nil:
		p.countMalformed(f, proto, err)
	}
	if p.currentLAN().Router(o.MAC) {
		return nil
	}
	if err != nil {
		return p.observeTraffic(f, mac, &pkt)
	}
	o.set(device.AttrMAC, o.MAC)
	if locallyAdministered(o.MAC) {
		o.set(device.AttrMACLocal, true)
	}
	if o.Presence == Left {
		p.withdrawIPv4(&o)
	}
	p.stats.observations.Add(1)
	return []Observation{o}
}

// withdrawIPv4 withdraws the IPv4 address of a device that leaves: somebody else may have it next. People
// still find it as the last one.
func (p *Parser) withdrawIPv4(o *Observation) {
	if s, ok := o.Set[device.AttrIPv4].(string); ok {
		delete(o.Set, device.AttrIPv4)
		o.set(device.AttrLastIPv4, s)
		if addr, err := netip.ParseAddr(s); err == nil {
			delete(p.holders, addr)
		}
	}
	o.Unset = append(o.Unset, device.AttrIPv4)
}

// observeTraffic returns the presence of a frame's sender, if it is a device. It sets the IPv4 source
// address only where that is new, so that most frames change nothing.
func (p *Parser) observeTraffic(f Frame, mac string, pkt *packet) []Observation {
	if p.currentLAN().Router(mac) {
		return nil
	}
	o := Observation{MAC: mac, Time: f.Time, Kind: KindTraffic, Presence: Refresh}
	if pkt.src.Is4() && p.holders[pkt.src] != mac {
		p.setAddressInUse(pkt.src, &o)
	}
	p.stats.observations.Add(1)
	return []Observation{o}
}

// currentLAN is the LAN as known now, within a Parse.
func (p *Parser) currentLAN() *LAN {
	if p.learner != nil {
		return p.learner.lan
	}
	return p.lan.Load()
}

// setAddressInUse sets an address that the device was seen to use.
func (p *Parser) setAddressInUse(addr netip.Addr, o *Observation) {
	if !p.setAddress(addr, o) {
		return
	}
	if len(p.holders) >= maxHolders {
		clear(p.holders)
	}
	p.holders[addr] = o.MAC
}

// setAddress sets an address that the device has, if it is a device address of this LAN.
func (p *Parser) setAddress(addr netip.Addr, o *Observation) bool {
	if !p.currentLAN().DeviceAddr(addr) {
		return false
	}
	if addr.Is4() {
		o.set(device.AttrIPv4, addr.String())
	} else {
		o.add(device.AttrIPv6, addr.String())
	}
	return true
}

func (p *Parser) countMalformed(f Frame, proto protocol, err error) {
	p.stats.protocols[proto].malformed.Add(1)
	p.log.Debug("malformed frame", "frame", f.Index, "protocol", sources.names[proto], "err", err)
}

// locallyAdministered reads bit 0x02 of a MAC's first byte, which is in its second digit.
func locallyAdministered(mac string) bool { return strings.IndexByte("2367abef", mac[1]) >= 0 }

// macName spells an address, from memory where possible: it is done for every frame.
func (p *Parser) macName(h hwAddr) string {
	if s, ok := p.macNames[h]; ok {
		return s
	}
	s := net.HardwareAddr(h[:]).String()
	if len(p.macNames) >= maxMACNames {
		clear(p.macNames)
	}
	p.macNames[h] = s
	return s
}
