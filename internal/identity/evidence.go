package identity

import (
	"cmp"
	"encoding/hex"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Kind is a kind of evidence.
type Kind = device.IdentityKind

// The kinds, the strongest first. UDN and Serial are equally strong.
const (
	ESN      = device.IdentityESN
	UDN      = device.IdentityUDN
	Serial   = device.IdentitySerial
	ClientID = device.IdentityClientID
	MAC      = device.IdentityMAC
)

// StrongKinds are the kinds of strong evidence.
var StrongKinds = []Kind{ESN, UDN, Serial}

// rank orders kinds: the lower, the more an equal value says.
var rank = map[Kind]int{ESN: 1, UDN: 2, Serial: 2, ClientID: 3, MAC: 4}

// readers read a value of a kind. They report false where the value identifies
// nothing.
var readers = map[Kind]func(string) (Evidence, bool){
	ESN: readESN, UDN: readUDN, Serial: readSerial, ClientID: readClientID, MAC: readMAC,
}

// kinds are the attributes that hold evidence, and the kind of it.
var kinds = func() map[string]Kind {
	m := make(map[string]Kind)
	for _, spec := range device.Vocabulary {
		if spec.Identity != "" {
			m[spec.Name] = spec.Identity
		}
	}
	return m
}()

// Attributes are the names of the attributes that hold evidence, sorted. Not to
// be changed.
var Attributes = slices.Sorted(maps.Keys(kinds))

const (
	minValue   = 4   // characters: "1", "TV" and "n/a" tell no devices apart
	minSerial  = 8   // characters after leading zeros: a shorter serial is a maker's own count, and two makers have it
	maxValue   = 256 // bytes
	maxPerRead = 64  // pieces of evidence of one attribute
)

// Evidence is a value that only one device of a lab should have.
type Evidence struct {
	Lab   string // the label of the RAE that says so; Read leaves it empty
	Kind  Kind
	Value string
}

// In returns the evidence as a RAE of the lab brings it.
func (e Evidence) In(lab string) Evidence {
	e.Lab = lab
	return e
}

// Strong reports whether the evidence identifies a device by itself. Weak
// evidence only places a session of which no strong evidence is known.
func (e Evidence) Strong() bool { return slices.Contains(StrongKinds, e.Kind) }

// Compare orders evidence: the strongest first, then by kind, value and lab.
func (e Evidence) Compare(o Evidence) int {
	return cmp.Or(cmp.Compare(rank[e.Kind], rank[o.Kind]), cmp.Compare(e.Kind, o.Kind), cmp.Compare(e.Value, o.Value), cmp.Compare(e.Lab, o.Lab))
}

// InAny reports whether one of the attributes may hold evidence. It costs a
// lookup for each of a handful of names, so that an update without evidence
// pays next to nothing.
func InAny(attributes map[string]device.Attribute) bool {
	for _, name := range Attributes {
		if _, ok := attributes[name]; ok {
			return true
		}
	}
	return false
}

// Read returns the evidence that a value of an attribute holds, the strongest
// first, each piece once, at most 64 pieces. An attribute that was removed, that
// holds no evidence by its name, or whose value is neither a string nor a list
// of strings, has none.
func Read(attribute string, value device.Attribute) []Evidence {
	read, ok := readers[kinds[attribute]]
	if !ok || value.Removed() {
		return nil
	}
	var out []Evidence
	for _, text := range value.Texts() {
		if e, ok := read(text); ok && len(e.Value) <= maxValue {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, Evidence.Compare)
	out = slices.Compact(out)
	return out[:min(len(out), maxPerRead)]
}

func readESN(s string) (Evidence, bool) {
	s = strings.TrimSpace(s)
	return Evidence{Kind: ESN, Value: s}, distinctive(s)
}

func readUDN(s string) (Evidence, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	s = strings.TrimPrefix(s, "uuid:")
	return Evidence{Kind: UDN, Value: s}, distinctive(s)
}

// readSerial takes serial numbers that are long enough to be one maker's alone.
// Devices that were not recognised as one can be merged by a person; a wrong
// merge cannot be undone.
func readSerial(s string) (Evidence, bool) {
	s = strings.TrimSpace(s)
	return Evidence{Kind: Serial, Value: s}, distinctive(s) && len(strings.TrimLeft(s, "0")) >= minSerial
}

// readClientID reads a DHCP client identifier. The usual one is hardware type 1
// and the MAC (RFC 2132 section 9.14), and so says what the MAC says.
func readClientID(s string) (Evidence, bool) {
	s = strings.TrimSpace(s)
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err == nil && len(b) == 7 && b[0] == 1 {
		return hardwareAddress(b[1:])
	}
	return Evidence{Kind: ClientID, Value: s}, distinctive(s)
}

func readMAC(s string) (Evidence, bool) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return Evidence{}, false
	}
	return hardwareAddress(mac)
}

// hardwareAddress takes the addresses that a maker assigned. A locally
// administered one (bit 0x02 of the first byte) is often made anew for each
// network; a group address (bit 0x01) is no device's.
func hardwareAddress(mac net.HardwareAddr) (Evidence, bool) {
	zero := !slices.ContainsFunc(mac, func(b byte) bool { return b != 0 })
	if zero || mac[0]&0x03 != 0 {
		return Evidence{}, false
	}
	return Evidence{Kind: MAC, Value: mac.String()}, true
}

// distinctive reports whether a value can tell devices apart: not what makers
// leave in a field that they did not fill.
func distinctive(s string) bool {
	if len(s) < minValue || strings.Trim(s, s[:1]) == "" || strings.Trim(s, "0-:.") == "" {
		return false
	}
	switch strings.ToLower(s) {
	case "none", "null", "unknown", "default", "default string", "not specified", "to be filled by o.e.m.", "0123456789", "123456789", "12345678", "1234567890":
		return false
	}
	return true
}
