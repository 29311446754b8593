package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Which device a session belongs to
//
// Evidence is strong (ESN; then UDN and serial) or weak (DHCP client
// identifier; then MAC). A session is firm once it has brought strong evidence,
// a device once one of its sessions has. identity_owner leads from each piece of
// evidence to one device. Each update that changes evidence is judged by all
// that its session holds then:
//
//  1. Strong evidence decides. A session that is not firm goes to the device
//     that its strongest piece leads to. If its strong evidence leads nowhere,
//     its device becomes firm; but where weak evidence had placed it at a firm
//     device, it gets one of its own.
//  2. Weak evidence places a session that is not firm, at the firm device that
//     the strongest piece leads to, else at the one that is not.
//  3. A device that is not firm and shares weak evidence with a session is
//     absorbed by the session's device, with all it has. Weak evidence never
//     joins two firm devices; a piece that both have had leads to the one whose
//     session changed to it last.
//  4. A firm session stays where it is. What it changes to is its device's, and
//     what it no longer has still leads there. But if nobody else vouches for
//     its device (it has no other session, no strong evidence that this session
//     does not hold now, and no conflict), it is judged as a new session, and
//     the device that it goes to absorbs its own: evidence that comes by and by
//     leads to where it would have led at once.
//  5. Strong evidence that leads to another device than the session's is a
//     conflict of the two. Nothing moves; a person decides, once.
//
// So, whatever the order in which sessions come, those that share strong
// evidence are one device, once the conflicts that were found on the way are
// settled by merging; which conflicts are found, and which identifier a device
// has, does depend on the order. So does the place of a session that is not firm
// where weak evidence connects it, be it by way of other sessions, with several
// firm devices.

// assignment judges a group's sessions.
type assignment struct {
	owners map[identity]uuid.UUID // stored, and given in this group
	facts  map[uuid.UUID]*facts   // of the devices that are stored and those that are made
	into   map[uuid.UUID]uuid.UUID
	apart  map[pair]bool // pairs of devices that have been in conflict

	stored   map[identity]uuid.UUID // owners, as they were read
	made     []uuid.UUID            // devices, in the order of the sessions
	moved    []uuid.UUID            // sessions that left those who stay at their device
	homes    map[uuid.UUID]uuid.UUID
	begun    []span
	ended    []span
	disputes []dispute
}

// dispute is a conflict that was found: a session of device a brought evidence
// of device b.
type dispute struct {
	session, a, b uuid.UUID
	mine, theirs  identity
}

// facts are what judging needs to know of a device.
type facts struct {
	sessions int
	strong   map[identity]bool
	disputed bool // by a conflict, open or settled
	made     bool // in this transaction
}

func (f *facts) firm() bool { return len(f.strong) > 0 }

// span is a row of the timeline: an attribute held an identity.
type span struct {
	session   uuid.UUID
	attribute string
	identity
	seq int64 // from which, or at which it ended
	at  time.Time
}

// holder is a session that writes evidence, as far as that is stored.
type holder struct {
	seqs  map[string]int64 // of its attributes that hold evidence
	spans []span           // that have not ended
}

// news is what u writes of the attribute, if it is not stale: the upsert would
// not write that either. A correction counts from the snapshot on.
func (h holder) news(u Update, name string) (device.Attribute, bool) {
	w, ok := u.Write[name]
	if !ok || w.Seq > h.seqs[name] {
		return w, ok
	}
	w.Seq, w.At = u.Snapshot, u.SnapshotAt
	return w, u.corrects(name, h.seqs[name])
}

type pair [2]uuid.UUID

func pairOf(a, b uuid.UUID) pair {
	if compareUUID(a, b) > 0 {
		a, b = b, a
	}
	return pair{a, b}
}

// keep gives a new session without evidence a device of its own.
func (a *assignment) keep(r *row) {
	r.device = ownDevice(r.id)
	a.create(r.device).sessions++
}

func (a *assignment) create(id uuid.UUID) *facts {
	f, ok := a.facts[id]
	if !ok {
		f = &facts{strong: make(map[identity]bool), made: true}
		a.facts[id] = f
		a.made = append(a.made, id)
	}
	return f
}

// assign judges one session, whose row it changes, by the evidence it holds
// after write. Sessions come sorted, so that a group gives the same whoever
// computes it.
func (a *assignment) assign(r *row, isNew bool, h holder, u Update) {
	if isNew {
		a.keep(r)
	}
	held, fresh, changed := a.hold(r.id, h, u)
	if !changed {
		return
	}
	was := a.at(r.device)
	alone := a.alone(was, held)
	home := a.home(r, held, was, alone)
	a.homes[r.id] = home
	if was != home {
		a.move(r, was, home, alone || !a.facts[was].firm())
	}
	for _, i := range held {
		owner, owned := a.owner(i)
		switch {
		case !owned:
			a.owners[i] = home
		case owner == home:
		case i.strong():
			a.dispute(r.id, home, owner, i, held)
		case !a.facts[owner].firm():
			a.absorb(owner, home)
		case fresh[i] || owner == was:
			a.owners[i] = home
		}
		if i.strong() {
			r.identified = true
			if !owned {
				a.facts[home].strong[i] = true
			}
		}
	}
}

// hold is what the session's attributes hold after u, the strongest first, what
// of it is new, and whether anything is new or gone. The timeline notes it.
func (a *assignment) hold(session uuid.UUID, h holder, u Update) (held []identity, fresh map[identity]bool, changed bool) {
	fresh = make(map[identity]bool)
	for _, s := range h.spans {
		if _, ok := h.news(u, s.attribute); !ok {
			held = append(held, s.identity)
		}
	}
	for _, name := range evidenceNames {
		w, ok := h.news(u, name)
		if !ok {
			continue
		}
		now := identities(name, w)
		held = append(held, now...)
		for _, s := range h.spans {
			if s.attribute == name && !slices.Contains(now, s.identity) {
				s.seq, s.at, changed = w.Seq, w.At, true
				a.ended = append(a.ended, s)
			}
		}
		for _, i := range now {
			if !slices.ContainsFunc(h.spans, func(s span) bool { return s.attribute == name && s.identity == i }) {
				a.begun, fresh[i], changed = append(a.begun, span{session, name, i, w.Seq, w.At}), true, true
			}
		}
	}
	slices.SortFunc(held, identity.compare)
	return slices.Compact(held), fresh, changed
}

// at is the device that id is now, after what was absorbed in this group.
func (a *assignment) at(id uuid.UUID) uuid.UUID {
	for {
		to, ok := a.into[id]
		if !ok {
			return id
		}
		id = to
	}
}

func (a *assignment) owner(i identity) (uuid.UUID, bool) {
	id, ok := a.owners[i]
	return a.at(id), ok
}

// alone reports whether nobody but a session that holds held vouches for its
// device (rule 4).
func (a *assignment) alone(id uuid.UUID, held []identity) bool {
	f := a.facts[id]
	if f.sessions > 1 || f.disputed {
		return false
	}
	for i := range f.strong {
		if !slices.Contains(held, i) {
			return false
		}
	}
	return true
}

// home is the device that a session at was belongs to by what it holds.
func (a *assignment) home(r *row, held []identity, was uuid.UUID, alone bool) uuid.UUID {
	if r.identified && !alone {
		return was
	}
	var firm, other []uuid.UUID // that weak evidence leads to
	strong, tied := false, false
	for _, i := range held {
		strong = strong || i.strong()
		owner, owned := a.owner(i)
		tied = tied || owned && owner == was
		switch {
		case !owned || alone && owner == was:
		case i.strong():
			return owner
		case a.facts[owner].firm():
			firm = append(firm, owner)
		default:
			other = append(other, owner)
		}
	}
	settled := a.facts[was].firm()
	switch {
	case strong && settled && !alone:
		return newDevice(held[0])
	case !strong && len(firm) > 0 && (tied || !settled):
		return firm[0]
	case alone && !settled && len(other) > 0:
		return other[0]
	}
	return was
}

// move takes the session to another device: with the device that it leaves if
// that is whole, else from those who stay there.
func (a *assignment) move(r *row, was, home uuid.UUID, whole bool) {
	h := a.create(home)
	if whole {
		a.absorb(was, home)
	} else {
		a.facts[was].sessions--
		h.sessions++
		a.moved = append(a.moved, r.id)
	}
	r.device = home
}

func (a *assignment) absorb(from, home uuid.UUID) {
	a.into[from] = home
	f, h := a.facts[from], a.facts[home]
	h.sessions += f.sessions
	h.disputed = h.disputed || f.disputed
	for i := range f.strong {
		h.strong[i] = true
	}
}

// dispute notes a conflict of two devices, once.
func (a *assignment) dispute(session, home, other uuid.UUID, theirs identity, held []identity) {
	p := pairOf(home, other)
	if a.apart[p] {
		return
	}
	a.apart[p] = true
	a.facts[home].disputed, a.facts[other].disputed = true, true
	d := dispute{session: session, a: home, b: other, theirs: theirs}
	for _, i := range held {
		if owner, owned := a.owner(i); owned && owner == home {
			d.mine = i
			break
		}
	}
	a.disputes = append(a.disputes, d)
}

// gifts are the identities to write, in key order: those that had no owner, and
// those that have another one, but for what goes with an absorbed device.
func (a *assignment) gifts() (given, taken []identity) {
	for i := range a.owners {
		owner, _ := a.owner(i)
		switch before, ok := a.stored[i]; {
		case !ok:
			given = append(given, i)
		case a.at(before) != owner:
			taken = append(taken, i)
		}
	}
	slices.SortFunc(given, identity.compare)
	slices.SortFunc(taken, identity.compare)
	return given, taken
}

// absorbed are the stored devices that go, in key order, and where they go.
func (a *assignment) absorbed() (from, to []uuid.UUID) {
	for id := range a.into {
		if !a.facts[id].made {
			from = append(from, id)
		}
	}
	slices.SortFunc(from, compareUUID)
	for _, id := range from {
		to = append(to, a.at(id))
	}
	return from, to
}

// created are the devices to make, in key order.
func (a *assignment) created() []uuid.UUID {
	out := slices.DeleteFunc(slices.Clone(a.made), func(id uuid.UUID) bool { return a.at(id) != id })
	slices.SortFunc(out, compareUUID)
	return out
}

func compareSpans(a, b span) int {
	return cmp.Or(compareUUID(a.session, b.session), cmp.Compare(a.attribute, b.attribute), a.compare(b.identity))
}

// kept drops what the update may not write.
func kept(r *row, u Update) map[string]device.Attribute {
	if u.Snapshot >= r.snapshot {
		return u.Write
	}
	out := make(map[string]device.Attribute, len(u.Write))
	for name, a := range u.Write {
		if r.writes(u, a) {
			out[name] = a
		}
	}
	return out
}
