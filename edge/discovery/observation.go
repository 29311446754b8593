package discovery

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Presence is what an observation says about whether the device is there.
type Presence int

const (
	// Seen means that the device showed itself. A device that is not known yet is created.
	Seen Presence = iota
	// Left means that the device said that it leaves: DHCPRELEASE, ssdp:byebye, or an mDNS goodbye with its
	// address. Its IPv4 address becomes the last one. The device may only have stopped the program that
	// spoke; then any later frame shows it again, and its address.
	Left
	// Refresh means that a frame of the MAC was seen, which does not say what the device is. A known device
	// is there, and may have an address that was not known. An unknown device is not created.
	Refresh
)

// String returns the presence in lower case.
func (p Presence) String() string {
	switch p {
	case Seen:
		return "seen"
	case Left:
		return "left"
	default:
		return "refresh"
	}
}

// Kinds of observations: what showed the device.
const (
	KindDHCP    = "dhcp"
	KindARP     = "arp"
	KindNDP     = "ndp"
	KindSSDP    = "ssdp"
	KindMDNS    = "mdns"
	KindTraffic = "traffic"
)

// MaxValueBytes is the longest text value an observation carries; the rest is cut off and counted.
const MaxValueBytes = 1024

// MaxSetMembers is the most members one observation adds to a set. A record that is folded from many
// observations should keep to the same limit.
const MaxSetMembers = 32

// Observation is what one frame said about one device.
type Observation struct {
	// MAC identifies the device on the LAN: lower case with colons, never zero, a group address or the router's.
	MAC string
	// Time is the frame's.
	Time time.Time
	// Kind is the protocol that showed it, one of the Kind constants.
	Kind     string
	Presence Presence
	// Set replaces attributes; values are string or bool.
	Set map[string]any
	// Add puts members into set-valued attributes.
	Add map[string][]string
	// Drop takes withdrawn members out of set-valued attributes.
	Drop map[string][]string
	// Unset withdraws attributes.
	Unset []string
}

func (o *Observation) set(name string, value any) {
	if value == "" {
		return
	}
	if o.Set == nil {
		o.Set = make(map[string]any, 6)
	}
	o.Set[name] = value
}

func (o *Observation) add(name, member string)  { putMember(&o.Add, name, member) }
func (o *Observation) drop(name, member string) { putMember(&o.Drop, name, member) }

func putMember(sets *map[string][]string, name, member string) {
	if member == "" {
		return
	}
	if *sets == nil {
		*sets = make(map[string][]string, 2)
	}
	members := (*sets)[name]
	if len(members) >= MaxSetMembers || slices.Contains(members, member) {
		return
	}
	(*sets)[name] = append(members, member)
}

// clean makes announced text fit for a record: valid UTF-8, no control characters, no surrounding
// space, at most MaxValueBytes. Bytes lost are counted, but for the NULs some clients pad with.
func (p *Parser) clean(s string) string {
	s = strings.TrimRight(s, "\x00")
	if plain(s) {
		return strings.TrimSpace(s)
	}
	out := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(out) > MaxValueBytes {
		n := MaxValueBytes
		for n > 0 && !utf8.RuneStart(out[n]) {
			n--
		}
		out = out[:n]
	}
	if out != s {
		p.stats.cut.Add(1)
	}
	return strings.TrimSpace(out)
}

// plain reports whether s is short printable ASCII: nothing to clean.
func plain(s string) bool {
	if len(s) > MaxValueBytes {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
