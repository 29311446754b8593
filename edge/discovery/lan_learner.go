package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// LearnScanBytes is how much of a capture LearnLAN reads by default.
const LearnScanBytes = 16 << 20

// maxNeighbours bounds the addresses a lanLearner remembers while it does not know the router yet.
const maxNeighbours = 1024

// LearnLAN reads the first maxBytes of frame data of a capture (LearnScanBytes if 0) and returns what
// it tells about the LAN, so that a replay knows the router before the first frame. What base already
// says is kept. A capture that breaks off is used as far as it goes: the replay will report it.
func LearnLAN(ctx context.Context, path string, base LAN, maxBytes int64) (LAN, error) {
	if maxBytes <= 0 {
		maxBytes = LearnScanBytes
	}
	src, err := OpenFile(FileOptions{Path: path})
	if err != nil {
		return LAN{}, err
	}
	defer src.Close()
	stats, err := NewStats(nil)
	if err != nil {
		return LAN{}, err
	}
	parser := NewParser(Options{LAN: base, Learn: true, Stats: stats})
	for read := int64(0); read < maxBytes; {
		frame, err := src.Next(ctx)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, ErrTruncated), errors.Is(err, ErrCorrupt):
			return parser.LAN(), nil
		case err != nil:
			return LAN{}, fmt.Errorf("learn the LAN from a capture: %w", err)
		}
		read += int64(len(frame.Data))
		parser.Parse(frame)
	}
	return parser.LAN(), nil
}

// Where a lanLearner has the IPv4 prefix from, the weakest first.
const (
	prefixUnknown = iota
	prefixGuessed // the /24 around a DHCP server, which clients named
	prefixOffered // a DHCP server told a client its mask
	prefixGiven   // configured
)

// lanLearner finds the LAN's prefix and router in the frames themselves, for captures, where no interface
// can be asked. The router is what is named as DHCP server or default gateway, what answers for such an
// address, and what forwards packets of public IPv4 sources onto the LAN.
type lanLearner struct {
	lan        *LAN
	prefix     int
	routers    bool // routers may be learned
	neighbours map[netip.Addr]string
	onRouter   func(mac string)
}

func newLANLearner(lan *LAN, onRouter func(string)) *lanLearner {
	l := &lanLearner{lan: lan, routers: len(lan.RouterMACs) == 0, neighbours: map[netip.Addr]string{}, onRouter: onRouter}
	for _, p := range lan.Prefixes {
		if p.Addr().Is4() {
			l.prefix = prefixGiven
		}
	}
	return l
}

// noteNeighbour notes that mac speaks for addr on the link.
func (l *lanLearner) noteNeighbour(addr netip.Addr, mac string) {
	if _, router := l.lan.RouterIPs[addr]; router {
		l.addRouter(mac)
		return
	}
	if len(l.neighbours) < maxNeighbours {
		l.neighbours[addr] = mac
	}
}

// noteSender notes the IPv4 source of a frame from mac.
func (l *lanLearner) noteSender(addr netip.Addr, mac string) {
	if addr.Is4() && publicIPv4(addr) {
		l.addRouter(mac)
	}
}

// noteGateway notes that addr was named as a DHCP server or default gateway.
func (l *lanLearner) noteGateway(addr netip.Addr) {
	if !l.routers || !addr.IsPrivate() {
		return
	}
	if _, known := l.lan.RouterIPs[addr]; known {
		return
	}
	l.replaceLAN(func(lan *LAN) { lan.RouterIPs[addr] = struct{}{} })
	if l.prefix < prefixGuessed {
		if p, err := addr.Prefix(24); err == nil {
			l.setPrefix(p, prefixGuessed)
		}
	}
	if mac, ok := l.neighbours[addr]; ok {
		l.addRouter(mac)
	}
}

// notePrefix notes the prefix a DHCP server told a client.
func (l *lanLearner) notePrefix(p netip.Prefix) {
	if l.prefix < prefixOffered && p.IsValid() && p.Bits() >= 8 && p.Addr().IsPrivate() {
		l.setPrefix(p, prefixOffered)
	}
}

func (l *lanLearner) addRouter(mac string) {
	if !l.routers || l.lan.Router(mac) {
		return
	}
	l.replaceLAN(func(lan *LAN) { lan.RouterMACs[mac] = struct{}{} })
	if l.onRouter != nil {
		l.onRouter(mac)
	}
}

func (l *lanLearner) setPrefix(p netip.Prefix, sure int) {
	l.prefix = sure
	l.replaceLAN(func(lan *LAN) {
		kept := []netip.Prefix{p.Masked()}
		for _, old := range lan.Prefixes {
			if old.Addr().Is6() {
				kept = append(kept, old)
			}
		}
		lan.Prefixes = kept
	})
}

// replaceLAN replaces the LAN by an edited copy, since values handed out before must not change.
func (l *lanLearner) replaceLAN(edit func(*LAN)) {
	next := l.lan.clone()
	edit(next)
	l.lan = next
}

var sharedIPv4 = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // RFC 6598
	netip.MustParsePrefix("240.0.0.0/4"),
}

func publicIPv4(addr netip.Addr) bool {
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, p := range sharedIPv4 {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}
