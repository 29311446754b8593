// Package identitytest draws sessions with evidence, and says by a model of its
// own which of them are one device.
package identitytest

import (
	"fmt"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Session is what a session's updates write, one after the other: a short name
// of the value for each attribute. Value makes a value of it.
type Session []map[string]string

// names are short names of values, by attribute: few, so that sessions share
// them.
var names = map[string][]string{
	device.AttrESN: {"1", "2", "3"}, device.AttrDeviceSerial: {"1", "2"}, device.AttrUDNs: {"1", "2", "3"},
	device.AttrDHCPClientID: {"1", "2"}, device.AttrMAC: {"1", "2", "3"},
}

var attributes = []string{device.AttrESN, device.AttrDeviceSerial, device.AttrUDNs, device.AttrDHCPClientID, device.AttrMAC}

// weak are the attributes with weak evidence.
var weak = map[string]bool{device.AttrDHCPClientID: true, device.AttrMAC: true}

// Sessions draws up to most sessions, two at least, of up to three updates each.
func Sessions(most int) *rapid.Generator[[]Session] {
	return rapid.SliceOfN(rapid.Custom(drawSession), 2, most)
}

func drawSession(t *rapid.T) Session {
	var s Session
	for range rapid.IntRange(1, 3).Draw(t, "updates") {
		update := map[string]string{}
		for _, attribute := range attributes {
			if rapid.IntRange(0, 3).Draw(t, "has") == 0 {
				update[attribute] = rapid.SampledFrom(names[attribute]).Draw(t, attribute)
			}
		}
		s = append(s, update)
	}
	return s
}

// Value is the JSON value of an attribute that has the short name in a run.
// Runs share no values.
func Value(run, attribute, name string) string {
	switch attribute {
	case device.AttrMAC:
		h := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Append(nil, run, name))
		return fmt.Sprintf(`"9c:b6:%02x:%02x:%02x:%02x"`, h[0], h[1], h[2], h[3])
	case device.AttrUDNs:
		return fmt.Sprintf(`["uuid:%s-udn-%s"]`, run, name)
	}
	return fmt.Sprintf(`"%s-%s-%s"`, run, attribute, name)
}

// Groups names the device of each session that has strong evidence: those with one
// name are one device once every conflict by strong evidence is decided by merging.
// The name of the others is empty: weak evidence places them, and their device
// depends on the order.
func Groups(sessions []Session) []string {
	shared, identified := sets{}, make([]bool, len(sessions))
	for n, s := range sessions {
		s.each(func(attribute, value string) {
			if !weak[attribute] {
				identified[n] = true
				shared.join(session(n), value)
			}
		})
	}
	out := make([]string, len(sessions))
	for n := range sessions {
		if identified[n] {
			out[n] = shared.of(session(n))
		}
	}
	return out
}

// Connected names what evidence of any kind connects, directly or by way of other
// sessions: those with different names are never one device.
func Connected(sessions []Session) []string {
	shared := sets{}
	for n, s := range sessions {
		s.each(func(_, value string) { shared.join(session(n), value) })
	}
	out := make([]string, len(sessions))
	for n := range sessions {
		out[n] = shared.of(session(n))
	}
	return out
}

// WeakOnly returns the sessions without their strong evidence.
func WeakOnly(sessions []Session) []Session {
	out := make([]Session, len(sessions))
	for n, s := range sessions {
		for _, update := range s {
			kept := map[string]string{}
			for attribute, name := range update {
				if weak[attribute] {
					kept[attribute] = name
				}
			}
			out[n] = append(out[n], kept)
		}
	}
	return out
}

func (s Session) each(do func(attribute, value string)) {
	for _, update := range s {
		for attribute, name := range update {
			do(attribute, attribute+" "+name)
		}
	}
}

func session(n int) string { return fmt.Sprint("session ", n) }

// sets is a union-find over names.
type sets map[string]string

func (s sets) of(x string) string {
	for s[x] != "" {
		x = s[x]
	}
	return x
}

func (s sets) join(x, y string) {
	if x, y = s.of(x), s.of(y); x != y {
		s[x] = y
	}
}
