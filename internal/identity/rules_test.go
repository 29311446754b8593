package identity_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/identity"
)

// The evidence of the tests below.
const (
	esn1, esn2 = `"NF-0001"`, `"NF-0002"`
	serial     = `"SN-000002"`
	clientID2  = `"01:9c:b6:d0:00:00:02"` // names mac2
	mac1, mac2 = `"9c:b6:d0:00:00:01"`, `"9c:b6:d0:00:00:02"`
)

// write is one update of the n-th session.
type write struct {
	session    int
	attributes map[string]string
}

func esn(v string) map[string]string { return map[string]string{device.AttrESN: v} }
func mac(v string) map[string]string { return map[string]string{device.AttrMAC: v} }
func clientMAC(mac, client string) map[string]string {
	return map[string]string{device.AttrMAC: mac, device.AttrDHCPClientID: client}
}
func both(esn, mac string) map[string]string {
	return map[string]string{device.AttrESN: esn, device.AttrMAC: mac}
}

// Each rule of the package's documentation, as it shows in the sessions' devices.
func TestRules(t *testing.T) {
	for name, c := range map[string]struct {
		writes []write
		// devices has the same letter for sessions of the same device.
		devices string
		// identified has a y for each session that is, else an n.
		identified string
		conflicts  int
		left       int // devices
	}{
		"1: strong evidence decides, whatever weak evidence says": {
			writes:  []write{{0, both(esn1, mac1)}, {1, both(esn2, mac2)}, {2, both(esn1, mac2)}},
			devices: "aba", identified: "yyy", left: 2,
		},
		"1: the strongest piece decides, and the weaker strong one is a conflict": {
			writes:  []write{{0, esn(esn1)}, {1, map[string]string{device.AttrDeviceSerial: serial}}, {2, map[string]string{device.AttrESN: esn1, device.AttrDeviceSerial: serial}}},
			devices: "aba", identified: "yyy", conflicts: 1, left: 2,
		},
		"1: strong evidence that leads nowhere identifies the session's device": {
			writes:  []write{{0, mac(mac1)}, {0, esn(esn1)}, {1, esn(esn1)}},
			devices: "aa", identified: "yy", left: 1,
		},
		"1: a session leaves the identified device where weak evidence had placed it": {
			writes:  []write{{0, both(esn1, mac1)}, {1, mac(mac1)}, {1, esn(esn2)}, {2, mac(mac1)}},
			devices: "abb", identified: "yyn", left: 2,
		},
		"2: weak evidence places a session at the identified device": {
			writes:  []write{{0, both(esn1, mac1)}, {1, mac(mac1)}},
			devices: "aa", identified: "yn", left: 1,
		},
		"2: the strongest weak piece decides": {
			writes: []write{
				{0, map[string]string{device.AttrESN: esn1, device.AttrDHCPClientID: `"client-1"`}}, {1, both(esn2, mac1)},
				{2, map[string]string{device.AttrDHCPClientID: `"client-1"`, device.AttrMAC: mac1}},
			},
			devices: "aba", identified: "yyn", conflicts: 1, left: 2,
		},
		"2: without an identified device, the one that is not": {
			writes:  []write{{0, mac(mac1)}, {1, mac(mac1)}},
			devices: "aa", identified: "nn", left: 1,
		},
		"3: a known device that shares weak evidence with another is a conflict": {
			writes:  []write{{0, both(esn1, mac1)}, {1, mac(mac2)}, {2, both(esn1, mac2)}},
			devices: "aba", identified: "yny", conflicts: 1, left: 2,
		},
		"3: so are two of which nothing strong is known, for a third session": {
			writes:  []write{{0, mac(mac1)}, {1, mac(mac2)}, {2, clientMAC(mac1, clientID2)}},
			devices: "aba", identified: "nnn", conflicts: 1, left: 2,
		},
		"3: and for one of their own": {
			writes:  []write{{0, mac(mac1)}, {1, mac(mac2)}, {0, clientMAC(mac1, clientID2)}, {1, clientMAC(mac2, clientID2)}},
			devices: "ab", identified: "nn", conflicts: 1, left: 2,
		},
		"3: what came together first is one device": {
			writes:  []write{{0, clientMAC(mac1, clientID2)}, {1, mac(mac1)}, {2, mac(mac2)}},
			devices: "aaa", identified: "nnn", left: 1,
		},
		"2: who was placed stays, though what placed it leads elsewhere now": {
			writes:  []write{{0, both(esn1, mac1)}, {1, mac(mac1)}, {2, both(esn2, mac1)}, {1, map[string]string{device.AttrDHCPClientID: `"client-1"`}}},
			devices: "aab", identified: "yny", conflicts: 1, left: 2,
		},
		"3: a session that strong evidence leads away leaves the others at their device": {
			writes:  []write{{0, mac(mac1)}, {1, mac(mac1)}, {2, esn(esn1)}, {1, both(esn1, mac2)}},
			devices: "abb", identified: "nyy", left: 2,
		},
		"3: and the weak evidence that it holds is a conflict": {
			writes:  []write{{0, mac(mac1)}, {1, mac(mac1)}, {2, esn(esn1)}, {1, esn(esn1)}},
			devices: "abb", identified: "nyy", conflicts: 1, left: 2,
		},
		"3: weak evidence never merges two identified devices": {
			writes:  []write{{0, both(esn1, mac1)}, {1, both(esn2, mac1)}},
			devices: "ab", identified: "yy", left: 2,
		},
		"3: weak evidence leads to who changed to it last": {
			writes:  []write{{0, both(esn1, mac1)}, {1, both(esn2, mac1)}, {2, mac(mac1)}},
			devices: "abb", identified: "yyn", left: 2,
		},
		"4: an identified session stays where it is, and what it had leads there still": {
			writes:  []write{{0, esn(esn1)}, {0, esn(esn2)}, {1, esn(esn1)}, {2, esn(esn2)}},
			devices: "aaa", identified: "yyy", left: 1,
		},
		"4: without other support its device is merged into the one it goes to": {
			writes:  []write{{0, map[string]string{device.AttrDeviceSerial: serial}}, {1, esn(esn1)}, {1, map[string]string{device.AttrDeviceSerial: serial}}},
			devices: "aa", identified: "yy", left: 1,
		},
		"4: another session supports the device": {
			writes:  []write{{0, map[string]string{device.AttrDeviceSerial: serial}}, {1, esn(esn1)}, {2, esn(esn1)}, {1, map[string]string{device.AttrDeviceSerial: serial}}},
			devices: "abb", identified: "yyy", conflicts: 1, left: 2,
		},
		"4: strong evidence that the session no longer holds supports the device": {
			writes:  []write{{0, map[string]string{device.AttrDeviceSerial: serial}}, {1, esn(esn1)}, {1, esn(esn2)}, {1, map[string]string{device.AttrDeviceSerial: serial}}},
			devices: "ab", identified: "yy", conflicts: 1, left: 2,
		},
		"4: a conflict keeps the device where it is": {
			writes: []write{
				{0, map[string]string{device.AttrDeviceSerial: serial}}, {1, esn(esn1)}, {1, esn(esn2)}, {1, map[string]string{device.AttrDeviceSerial: serial}},
				{2, map[string]string{device.AttrUDNs: `["uuid:aaaa-1"]`}}, {1, map[string]string{device.AttrUDNs: `["uuid:aaaa-1"]`}},
			},
			devices: "abc", identified: "yyy", conflicts: 2, left: 3,
		},
		"5: strong evidence of another device is a conflict, once": {
			writes:  []write{{0, esn(esn1)}, {1, esn(esn2)}, {2, esn(esn2)}, {1, esn(esn1)}, {1, esn(esn2)}, {1, esn(esn1)}, {2, esn(esn1)}},
			devices: "abb", identified: "yyy", conflicts: 1, left: 2,
		},
		"no evidence: a device of its own": {
			writes:  []write{{0, nil}, {1, mac(`"02:00:00:00:00:01"`)}, {2, mac(`"02:00:00:00:00:01"`)}},
			devices: "abc", identified: "nnn", left: 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			for _, step := range c.writes {
				w.write(t, step.session, step.attributes)
			}
			letters, devices, identified := map[uuid.UUID]string{}, "", ""
			for n := range len(w.sessions) {
				id := w.device(n)
				if letters[id] == "" {
					letters[id] = string(rune('a' + len(letters)))
				}
				devices += letters[id]
				if w.sessions[sessionID(n)].identified {
					identified += "y"
				} else {
					identified += "n"
				}
			}
			require.Equal(t, c.devices, devices)
			require.Equal(t, c.identified, identified)
			require.Len(t, w.conflicts, c.conflicts)
			require.Len(t, w.devices, c.left)
		})
	}
}

// Where two devices are merged by evidence, it is fixed which identifier stays.
func TestWhichDeviceStays(t *testing.T) {
	w := newWorld()
	found := w.write(t, 1, both(esn1, mac1))
	require.Equal(t, identity.OwnDevice(sessionID(2)), w.write(t, 2, mac(mac2)))
	require.Equal(t, found, w.write(t, 2, esn(esn1)), "the one that strong evidence leads to")

	w = newWorld()
	own := w.write(t, 1, esn(esn1))
	require.Equal(t, identity.OwnDevice(sessionID(1)), own)
	require.Equal(t, own, w.write(t, 1, map[string]string{device.AttrDeviceSerial: serial}))
}

// A conflict names the session, its device with the strongest evidence of it, and
// the other device with the evidence that leads there.
func TestConflictNamesTheEvidence(t *testing.T) {
	w := newWorld()
	a := w.write(t, 1, esn(esn1))
	b := w.write(t, 2, map[string]string{device.AttrDeviceSerial: serial})
	s := w.update(3, map[string]string{device.AttrESN: esn1, device.AttrDeviceSerial: serial, device.AttrMAC: mac1})
	d := w.judge(t, s)
	require.Equal(t, []identity.Conflict{{
		Session: s.ID, Device: a, Evidence: identity.Evidence{Kind: identity.ESN, Value: "NF-0001"},
		Other: b, OtherEvidence: identity.Evidence{Kind: identity.Serial, Value: "SN-000002"},
	}}, d.Conflicts)
	require.Equal(t, identity.ConflictID(b, a), d.Conflicts[0].ID(), "of the pair, in either order")
	require.NotEqual(t, identity.ConflictID(a, a), d.Conflicts[0].ID())
}

// A pair that was kept apart is in the facts, and is no conflict again.
func TestKeptApartIsNoConflictAgain(t *testing.T) {
	w := newWorld()
	a, b := w.write(t, 1, esn(esn1)), w.write(t, 2, map[string]string{device.AttrDeviceSerial: serial})
	s := w.update(3, map[string]string{device.AttrESN: esn1, device.AttrDeviceSerial: serial})
	f := w.facts(s)
	f.Conflicts = []identity.Pair{{b, a}}
	d := identity.Judge(f, []identity.Session{s})
	require.Empty(t, d.Conflicts)
	require.Equal(t, a, d.Placements[0].Device)
}

// The timeline says which attribute of which session held what, from which event
// to which.
func TestTimeline(t *testing.T) {
	w := newWorld()
	udn := func(v string) identity.Holding {
		return identity.Holding{Attribute: device.AttrUDNs, Evidence: identity.Evidence{Kind: identity.UDN, Value: v}}
	}
	first := w.update(1, map[string]string{device.AttrUDNs: `["uuid:aaaa-1","uuid:aaaa-2"]`})
	d := w.judge(t, first)
	at := w.device(1)
	entry := func(v string, seq int64) identity.TimelineEntry {
		return identity.TimelineEntry{Session: first.ID, Device: at, Holding: udn(v), Seq: seq, At: time.Unix(seq, 0)}
	}
	require.Equal(t, []identity.TimelineEntry{entry("aaaa-1", 1), entry("aaaa-2", 1)}, d.Begun)
	require.Empty(t, d.Ended)
	d = w.judge(t, w.update(1, map[string]string{device.AttrUDNs: `["uuid:aaaa-2","uuid:aaaa-3"]`}))
	require.Equal(t, []identity.TimelineEntry{entry("aaaa-3", 2)}, d.Begun)
	require.Equal(t, []identity.TimelineEntry{entry("aaaa-1", 2)}, d.Ended)
	d = w.judge(t, w.update(1, map[string]string{device.AttrUDNs: `null`}))
	require.Empty(t, d.Begun)
	require.Equal(t, []identity.TimelineEntry{entry("aaaa-2", 3), entry("aaaa-3", 3)}, d.Ended)
	require.Equal(t, at, w.owner(identity.UDN, "aaaa-1"), "what it had leads there still")
}

// Within a group the first session's device is the one that the next finds, and a
// device that is made and merged in one group is made by nobody.
func TestGroupSharesWhatItBrings(t *testing.T) {
	w := newWorld()
	d := w.judge(t, w.update(1, mac(mac1)), w.update(2, both(esn1, mac1)), w.update(3, esn(esn1)))
	require.Len(t, d.Created, 1)
	require.Empty(t, d.Merges, "no stored device goes")
	for n := 1; n <= 3; n++ {
		require.Equal(t, d.Created[0], w.device(n))
	}
	require.Equal(t, []identity.Ownership{
		{Evidence: identity.Evidence{Kind: identity.ESN, Value: "NF-0001"}, Device: d.Created[0]},
		{Evidence: identity.Evidence{Kind: identity.MAC, Value: "9c:b6:d0:00:00:01"}, Device: d.Created[0]},
	}, d.Claimed)

	// A stored device that goes is found where it went.
	w = newWorld()
	weak := w.write(t, 1, mac(mac1))
	known := w.write(t, 2, esn(esn1))
	d = w.judge(t, w.update(1, esn(esn1)))
	require.Equal(t, []identity.Merge{{From: weak, Into: known}}, d.Merges)
	require.Equal(t, known, d.CurrentDevice(weak))
	require.Equal(t, known, d.CurrentDevice(known))
}

// What the sessions of a group have done counts for those that are judged after
// them: whether a device has other sessions, here (rule 4).
func TestGroupCountsItsSessions(t *testing.T) {
	first, second := 1, 2
	if a, b := sessionID(first), sessionID(second); slices.Compare(a[:], b[:]) > 0 {
		first, second = second, first
	}
	deviceSerial := map[string]string{device.AttrDeviceSerial: serial}
	for name, c := range map[string]struct {
		before    []write
		first     map[string]string
		conflicts int // of what the second writes, the ESN of another device
	}{
		"the first brought its device along": {
			before: []write{{first, mac(mac1)}, {second, deviceSerial}}, first: deviceSerial, conflicts: 1,
		},
		"the first left": {
			before: []write{{second, map[string]string{device.AttrDeviceSerial: serial, device.AttrMAC: mac1}}, {first, mac(mac1)}},
			first:  esn(esn1), conflicts: 0,
		},
		"the first came from elsewhere": {
			before: []write{{4, both(esn1, mac1)}, {first, mac(mac1)}, {second, deviceSerial}}, first: deviceSerial, conflicts: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			other := w.write(t, 3, esn(esn2))
			for _, step := range c.before {
				w.write(t, step.session, step.attributes)
			}
			w.judge(t, w.update(second, esn(esn2)), w.update(first, c.first))
			require.Len(t, w.conflicts, c.conflicts)
			require.Equal(t, c.conflicts == 0, w.device(second) == other)
		})
	}
}

// A session that leaves others at its device takes its timeline along, and the
// weak evidence that it holds.
func TestMovedSession(t *testing.T) {
	w := newWorld()
	first := w.write(t, 1, both(esn1, mac1))
	require.Equal(t, first, w.write(t, 2, mac(mac1)))
	d := w.judge(t, w.update(2, esn(esn2)))
	second := w.device(2)
	require.NotEqual(t, first, second)
	require.Equal(t, []identity.Placement{{Session: sessionID(2), Device: second, Identified: true}}, d.Moved)
	require.Equal(t, []identity.Ownership{{Evidence: identity.Evidence{Kind: identity.MAC, Value: "9c:b6:d0:00:00:01"}, Device: second}}, d.Reassigned)
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		attribute, value string
		want             []identity.Evidence
	}{
		"esn":                              {device.AttrESN, `" NFCDCH-02-ABC "`, []identity.Evidence{{Kind: identity.ESN, Value: "NFCDCH-02-ABC"}}},
		"esn that is a number":             {device.AttrESN, `7`, nil},
		"removed":                          {device.AttrESN, `null`, nil},
		"udns, each once, sorted":          {device.AttrUDNs, `["uuid:B234","b234","uuid:a123"]`, []identity.Evidence{{Kind: identity.UDN, Value: "a123"}, {Kind: identity.UDN, Value: "b234"}}},
		"udns in one string":               {device.AttrUDNs, `"uuid:A123"`, []identity.Evidence{{Kind: identity.UDN, Value: "a123"}}},
		"nil udn":                          {device.AttrUDNs, `["uuid:00000000-0000-0000-0000-000000000000"]`, nil},
		"no udns":                          {device.AttrUDNs, `[]`, nil},
		"serial":                           {device.AttrDeviceSerial, `"X00400ABCDEF"`, []identity.Evidence{{Kind: identity.Serial, Value: "X00400ABCDEF"}}},
		"roku's serial":                    {device.AttrRokuSerial, `"X00400ABCDEF"`, []identity.Evidence{{Kind: identity.Serial, Value: "X00400ABCDEF"}}},
		"serial of a maker's own":          {device.AttrDeviceSerial, `"1000001"`, nil},
		"zeros before a serial":            {device.AttrRokuSerial, `"00000100001"`, nil},
		"serial of zeros":                  {device.AttrDeviceSerial, `"0000000000"`, nil},
		"field that nobody filled":         {device.AttrDeviceSerial, `"To Be Filled By O.E.M."`, nil},
		"client identifier":                {device.AttrDHCPClientID, `"ff:b5:5e:67:ff:00:02:00:00:ab:11"`, []identity.Evidence{{Kind: identity.ClientID, Value: "ff:b5:5e:67:ff:00:02:00:00:ab:11"}}},
		"client identifier is the MAC":     {device.AttrDHCPClientID, `"01:9c:b6:d0:12:34:56"`, []identity.Evidence{{Kind: identity.MAC, Value: "9c:b6:d0:12:34:56"}}},
		"client identifier is a local MAC": {device.AttrDHCPClientID, `"01:02:42:ac:11:00:02"`, nil},
		"mac in any form":                  {device.AttrMAC, `"9C-B6-D0-12-34-56"`, []identity.Evidence{{Kind: identity.MAC, Value: "9c:b6:d0:12:34:56"}}},
		"mac that is local":                {device.AttrMAC, `"02:42:ac:11:00:02"`, nil},
		"mac of a group":                   {device.AttrMAC, `"ff:ff:ff:ff:ff:ff"`, nil},
		"mac of zeros":                     {device.AttrMAC, `"00:00:00:00:00:00"`, nil},
		"mac of eight bytes":               {device.AttrMAC, `"9c:b6:d0:ff:fe:12:34:56"`, nil},
		"no mac":                           {device.AttrMAC, `"what"`, nil},
		"no evidence by its name":          {device.AttrHostname, `"9c:b6:d0:12:34:56"`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, identity.Read(c.attribute, device.Attribute{Value: []byte(c.value), Seq: 1}))
		})
	}
}

func TestStrength(t *testing.T) {
	order := []identity.Evidence{
		{Kind: identity.ESN, Value: "b"}, {Kind: identity.Serial, Value: "a"}, {Kind: identity.UDN, Value: "a"}, {Kind: identity.UDN, Value: "b"},
		{Kind: identity.ClientID, Value: "a"}, {Kind: identity.MAC, Value: "a"},
	}
	for i, e := range order {
		require.Equal(t, i < 4, e.Strong(), e)
		if i > 0 {
			require.Negative(t, order[i-1].Compare(e), e)
		}
	}
	require.ElementsMatch(t, []string{"device.serial", "dhcp.client_id", "identity.udns", "netflix.esn", "network.mac", "roku.serial"}, identity.Attributes)
	require.False(t, identity.InAny(map[string]device.Attribute{device.AttrHostname: {}}))
	require.True(t, identity.InAny(map[string]device.Attribute{device.AttrHostname: {}, device.AttrRokuSerial: {}}))
}
