package store

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// identity is one piece of evidence: a value that no two devices share.
type identity struct{ kind, value string }

// Kinds of identity.
const (
	kindESN    = "esn"    // Netflix's, burnt in
	kindUDN    = "udn"    // of a UPnP root device: a UUID that should outlive a reboot
	kindSerial = "serial" // as the maker prints it
	kindClient = "client" // DHCP client identifier (RFC 4361) that is more than the MAC
	kindMAC    = "mac"    // globally administered
)

// strength orders kinds: the lower, the more an equal value says.
var strength = map[string]int{kindESN: 1, kindUDN: 2, kindSerial: 2, kindClient: 3, kindMAC: 4}

// evidence says which attributes hold an identity, and how it is read.
var evidence = map[string]func(string) (identity, bool){
	"netflix.esn":    esnIdentity,
	"identity.udns":  udnIdentity,
	"device.serial":  serialIdentity,
	"roku.serial":    serialIdentity,
	"dhcp.client_id": clientIdentity,
	attrMAC:          macIdentity,
}

const (
	minIdentity   = 4   // characters: "1", "TV" and "n/a" tell nothing apart
	minSerial     = 8   // characters after leading zeros: what is shorter is a maker's own count, and two makers have it
	maxIdentity   = 256 // bytes
	maxIdentities = 64  // of one attribute
)

// strong is evidence that names a device by itself; what is weak only places
// a session of which nothing strong is known.
func (i identity) strong() bool { return strength[i.kind] <= weakest }

// weakest strong kind.
const weakest = 2

func (i identity) compare(o identity) int {
	return cmp.Or(cmp.Compare(strength[i.kind], strength[o.kind]), cmp.Compare(i.kind, o.kind), cmp.Compare(i.value, o.value))
}

// identities are what an attribute says of who the device is, the strongest
// first, each once.
func identities(name string, a device.Attribute) []identity {
	if a.Removed() {
		return nil
	}
	var out []identity
	for _, v := range texts(a) {
		if id, ok := evidence[name](v); ok && len(id.value) <= maxIdentity {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, identity.compare)
	out = slices.Compact(out)
	return out[:min(len(out), maxIdentities)]
}

// bears reports whether u writes an attribute that holds evidence. It costs a
// lookup for each of a handful of names, so that an update without any pays
// next to nothing.
func bears(u Update) bool {
	for _, name := range evidenceNames {
		if _, ok := u.Write[name]; ok {
			return true
		}
	}
	return false
}

// evidenceNames are the attributes that hold evidence, sorted.
var evidenceNames = slices.Sorted(maps.Keys(evidence))

// texts are the strings of an attribute that is a string or a list of them.
func texts(a device.Attribute) []string {
	var one string
	if json.Unmarshal(a.Value, &one) == nil {
		return []string{one}
	}
	var many []string
	_ = json.Unmarshal(a.Value, &many) // of any other shape there is none
	return many
}

func esnIdentity(s string) (identity, bool) {
	s = strings.TrimSpace(s)
	return identity{kindESN, s}, telling(s)
}

// telling reports whether a value can tell devices apart: not what makers leave
// in a field they did not fill.
func telling(s string) bool {
	if len(s) < minIdentity || strings.Trim(s, s[:1]) == "" || strings.Trim(s, "0-:.") == "" {
		return false
	}
	switch strings.ToLower(s) {
	case "none", "null", "unknown", "default", "default string", "not specified", "to be filled by o.e.m.", "0123456789", "123456789", "12345678", "1234567890":
		return false
	}
	return true
}

// serialIdentity takes serial numbers that are long enough to be one maker's
// alone. A join that is missed can be made by hand, a wrong one not be undone.
func serialIdentity(s string) (identity, bool) {
	s = strings.TrimSpace(s)
	return identity{kindSerial, s}, telling(s) && len(strings.TrimLeft(s, "0")) >= minSerial
}

func udnIdentity(s string) (identity, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	s = strings.TrimPrefix(s, "uuid:")
	return identity{kindUDN, s}, telling(s)
}

// macIdentity takes the addresses that a maker assigned. A locally administered
// one (bit 0x02 of the first byte) is often made anew for each network.
func macIdentity(s string) (identity, bool) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return identity{}, false
	}
	return hardware(mac)
}

func hardware(mac net.HardwareAddr) (identity, bool) {
	zero := !slices.ContainsFunc(mac, func(b byte) bool { return b != 0 })
	if zero || mac[0]&0x03 != 0 { // group addresses name no device either
		return identity{}, false
	}
	return identity{kindMAC, mac.String()}, true
}

// clientIdentity reads a DHCP client identifier. The usual one is hardware type
// 1 and the MAC (RFC 2132 section 9.14), and so says what the MAC says.
func clientIdentity(s string) (identity, bool) {
	s = strings.TrimSpace(s)
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err == nil && len(b) == 7 && b[0] == 1 {
		return hardware(b[1:])
	}
	return identity{kindClient, s}, telling(s)
}

// ownDevice is the device of a session that evidence binds to no other. It is
// derived from the session, so that a replay makes the same one.
func ownDevice(session uuid.UUID) uuid.UUID {
	return uuid.NewSHA1(deviceNamespace, session[:])
}

// newDevice is the device of evidence that is nobody's, of a session that
// leaves the device where weak evidence had placed it.
func newDevice(i identity) uuid.UUID {
	return uuid.NewSHA1(deviceNamespace, []byte(i.kind+"\x00"+i.value))
}

// deviceNamespace is the namespace of device identifiers (RFC 9562 section 5.5).
var deviceNamespace = uuid.MustParse("6c7b2f0e-52c1-5d0e-9a57-3f1f0f8d2b61")
