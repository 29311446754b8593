// Package identity decides which device a session belongs to.
//
// It is pure: facts come in, decisions go out as data. Whoever stores them
// (internal/store) reads the facts under locks and writes the decisions in the
// same transaction.
//
// Evidence is strong (ESN; then UDN and serial) or weak (DHCP client identifier;
// then MAC), and is a lab's: RAEs of two labs never lead to one device. A session
// is identified once it has brought strong evidence, a device once one of its
// sessions has. Each piece of evidence has one owner, the device that it leads to.
// A device is known once evidence leads to it. An update that changes a session's
// evidence is judged by all evidence that the session holds then:
//
//  1. Strong evidence decides. A session that is not identified goes to the
//     device that its strongest piece leads to. If its strong evidence leads
//     nowhere, its device becomes identified; but where weak evidence had placed
//     it at an identified device, it gets a device of its own.
//  2. Weak evidence places a session whose device is not known: at the identified
//     device that the strongest piece leads to, else at the device that is not.
//  3. Weak evidence never merges two known devices. It is a conflict of the two,
//     unless strong evidence has told them apart: then the piece leads to the one
//     whose session changed to it last.
//  4. An identified session stays where it is. What it changes to is its
//     device's, and what it no longer has still leads there. But if nothing else
//     supports its device (it has no other session, no strong evidence that this
//     session does not hold now, and no conflict), it is judged as a new session,
//     and its device is merged into the one that strong evidence leads to: strong
//     evidence that comes bit by bit leads to where it would have led at once.
//  5. Strong evidence that leads to another device than the session's is a
//     conflict of the two. Nothing moves; a person decides, once.
//  6. A device is held by its present session, if that is open, was online lately,
//     and its RAE is heard of. Evidence of another RAE's session that leads to a
//     held device is a contested claim: the session keeps a device of its own, and
//     the claim is noted. Judging the session again when the holder has let go
//     honours it, as if the evidence had come only then.
//  7. Devices that a person keeps apart, be it by splitting one, are never merged,
//     and no session goes from one to the other.
//
// So, whatever the order in which sessions come, those of a lab that share strong
// evidence are one device, once the conflicts and claims that were found on the
// way are decided by merging, and sessions that no evidence connects are never at
// one device. Which conflicts are found, and which identifier a device has,
// depends on the order. So does the place of a session that is not identified
// where weak evidence connects it, be it by way of other sessions, with several
// devices.
package identity

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Facts are what is stored about the devices that a group of sessions may belong
// to.
//
// Requires: Devices has the device of each session that is judged and has one,
// and every owner.
type Facts struct {
	// Owners has the owner of each piece of evidence that one of the sessions
	// holds or brings. What leads nowhere is left out.
	Owners map[Evidence]uuid.UUID
	// Devices by identifier.
	Devices map[uuid.UUID]Device
	// Conflicts are the pairs of devices, with one of Devices at least, that are
	// in conflict by strong evidence or were kept apart. Contested claims are not
	// among them.
	Conflicts []Pair
	// WeakConflicts are those in conflict by weak evidence alone: strong evidence
	// may still merge them.
	WeakConflicts []Pair
	// KeptApart are those of Conflicts that a person has decided so.
	KeptApart []Pair
	// Claims are the contested claims of the sessions that are open.
	Claims []Claim

	// Now is the time by which a present session is offline for Hold.Offline.
	Now  time.Time
	Hold Hold
}

// Device is what is stored about one device.
type Device struct {
	Sessions int        // how many it has
	Strong   []Evidence // strong evidence that it owns
	Known    bool       // evidence leads to it
	// Present is the session that a device of its own, or of evidence that leads
	// there, shows. It is needed where a session of another RAE leads there; zero:
	// there is none, or it is closed.
	Present Present
}

// Present is an open session that a device shows. Every time is the cloud's: when
// Kafka received a record.
type Present struct {
	Session      uuid.UUID
	RAE          string
	Heard        time.Time // the newest record of its RAE
	OfflineSince time.Time // zero: it is online
}

// Hold is for how long a present session keeps its device from sessions of other
// RAEs. The zero Hold keeps nothing.
type Hold struct {
	// Offline is for how long after the session went offline.
	Offline time.Duration
	// Silent is for how long after the newest record of its RAE, as measured by
	// the newest record of the RAE that claims the device: where nothing comes
	// from either, nothing is decided.
	Silent time.Duration
}

// keeps reports whether p keeps its device from the session.
func (h Hold) keeps(p Present, s *Session, now time.Time) bool {
	return p.Session != uuid.Nil && p.RAE != s.RAE && s.Heard.Sub(p.Heard) < h.Silent &&
		(p.OfflineSince.IsZero() || now.Sub(p.OfflineSince) < h.Offline)
}

// Claim is a contested claim that is stored.
type Claim struct {
	ID      uuid.UUID // of the conflict
	Session uuid.UUID
	Pair    Pair // the session's own device, and the one that it claims
}

// Pair is two devices, in either order.
type Pair [2]uuid.UUID

// sorted returns the pair in key order, so that it can be compared.
func (p Pair) sorted() Pair {
	if compareUUID(p[0], p[1]) > 0 {
		p[0], p[1] = p[1], p[0]
	}
	return p
}

// with returns the sorted pair with into in the place of from; false: from is not
// of the pair, or into is too.
func (p Pair) with(from, into uuid.UUID) (Pair, bool) {
	other := p[0]
	switch from {
	case p[0]:
		other = p[1]
	case p[1]:
	default:
		return p, false
	}
	return Pair{other, into}.sorted(), other != into
}

// Session is a session to judge.
type Session struct {
	ID         uuid.UUID
	Device     uuid.UUID // zero: the session is new
	Identified bool      // it has brought strong evidence
	RAE, Lab   string
	Heard      time.Time // when Kafka received the newest record of its RAE
	// Again has it judged though its evidence is the same: a claim may be honoured.
	Again bool
	// Held is the evidence that it holds before the update.
	Held []Holding
	// Written are the attributes that hold evidence and that the update writes,
	// tombstones among them. What would lose against what is stored is left out.
	Written map[string]device.Attribute
}

// Holding is a piece of evidence that an attribute holds.
type Holding struct {
	Attribute string
	Evidence
}

// Decisions are what judging a group decided. Every list is in key order. A
// device that is merged away in the same group is named in no list but Merges.
type Decisions struct {
	// Placements has every session of the group.
	Placements []Placement
	// Created devices.
	Created []uuid.UUID
	// Merges of stored devices into others.
	Merges []Merge
	// Claimed is evidence that had no owner.
	Claimed []Ownership
	// Reassigned is evidence that had another owner, not counting merges.
	Reassigned []Ownership
	// Moved are the sessions that left a device which keeps others. Their
	// timeline goes with them.
	Moved []Placement
	// Begun and Ended are the changes of the timeline.
	Begun, Ended []TimelineEntry
	// Conflicts that were found, each pair of devices once. Those of contested
	// claims may be stored already.
	Conflicts []Conflict
	// Withdrawn are contested claims that are neither made again nor honoured: the
	// evidence leads there no more.
	Withdrawn []uuid.UUID
}

// Placement is the device of a session.
type Placement struct {
	Session, Device uuid.UUID
	Identified      bool
}

// Merge is a device that goes, and the one that gets all it has.
type Merge struct{ From, Into uuid.UUID }

// Ownership is the device that a piece of evidence leads to.
type Ownership struct {
	Evidence
	Device uuid.UUID
}

// TimelineEntry is where a session's attribute begins, or ends, to hold a piece
// of evidence.
type TimelineEntry struct {
	Session, Device uuid.UUID
	Holding
	Seq int64     // of the event that says so
	At  time.Time // observed
}

// Conflict is two devices that the evidence of one session leads to.
type Conflict struct {
	Session       uuid.UUID
	Device        uuid.UUID // that the session belongs to
	Evidence      Evidence  // the session's strongest of Device; zero: it has none
	Other         uuid.UUID
	OtherEvidence Evidence
	Contested     bool // Other is held by a session of another RAE
}

// ID identifies the conflict: that of its pair of devices.
func (c Conflict) ID() uuid.UUID { return ConflictID(c.Device, c.Other) }

// CurrentDevice returns the device that a stored one is after the merges.
func (d Decisions) CurrentDevice(id uuid.UUID) uuid.UUID {
	for _, m := range d.Merges {
		if m.From == id {
			return m.Into
		}
	}
	return id
}

// namespace of device and conflict identifiers (RFC 9562 section 5.5).
var namespace = uuid.MustParse("6c7b2f0e-52c1-5d0e-9a57-3f1f0f8d2b61")

// OwnDevice is the device of a session that evidence leads to no other. It is
// derived from the session, so that a replay creates the same one.
func OwnDevice(session uuid.UUID) uuid.UUID { return uuid.NewSHA1(namespace, session[:]) }

// deviceOf is the device of evidence that leads nowhere, for a session that
// leaves the device where weak evidence had placed it.
func deviceOf(e Evidence) uuid.UUID {
	return uuid.NewSHA1(namespace, []byte(e.Lab+"\x00"+string(e.Kind)+"\x00"+e.Value))
}

// claimantsDevice is the device of a session that leaves the one where weak
// evidence had placed it, with evidence that leads to a device that is held.
func claimantsDevice(session uuid.UUID, e Evidence) uuid.UUID {
	return uuid.NewSHA1(session, []byte(e.Lab+"\x00"+string(e.Kind)+"\x00"+e.Value))
}

// ConflictID identifies the conflict of two devices, in either order.
func ConflictID(a, b uuid.UUID) uuid.UUID {
	p := Pair{a, b}.sorted()
	return uuid.NewSHA1(namespace, slices.Concat(p[0][:], p[1][:]))
}

func compareUUID(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

func (e TimelineEntry) compare(o TimelineEntry) int {
	return cmp.Or(compareUUID(e.Session, o.Session), cmp.Compare(e.Attribute, o.Attribute), e.Evidence.Compare(o.Evidence))
}
