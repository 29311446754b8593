package identity

import (
	"maps"
	"slices"

	"github.com/google/uuid"
)

// Judge decides the devices of a group of sessions. They are judged one after
// the other in the order of their identifiers, whatever their order in the
// argument, so that the same group gives the same decisions. Each session may be
// in it once.
func Judge(facts Facts, sessions []Session) Decisions {
	j := newJudge(facts)
	sessions = slices.Clone(sessions)
	slices.SortFunc(sessions, func(a, b Session) int { return compareUUID(a.ID, b.ID) })
	for i := range sessions {
		j.judge(&sessions[i])
	}
	return j.decisions(sessions)
}

// judge is the judging of one group.
type judge struct {
	stored     map[Evidence]uuid.UUID // owners, as they were given
	owners     map[Evidence]uuid.UUID // stored, and those of this group
	devices    map[uuid.UUID]*deviceState
	mergedInto map[uuid.UUID]uuid.UUID
	conflicts  map[Pair]bool // of sorted pairs; once found, never again

	found        []Conflict
	moved        []uuid.UUID // sessions
	begun, ended []TimelineEntry
}

// deviceState is a device as the group's sessions so far have left it.
type deviceState struct {
	sessions   int
	strong     []Evidence
	conflicted bool // by a conflict that is open, or that was decided by keeping apart
	created    bool // by this group
}

func (d *deviceState) identified() bool { return len(d.strong) > 0 }

func newJudge(facts Facts) *judge {
	j := &judge{
		stored: facts.Owners, owners: make(map[Evidence]uuid.UUID, len(facts.Owners)),
		devices: make(map[uuid.UUID]*deviceState, len(facts.Devices)), mergedInto: make(map[uuid.UUID]uuid.UUID),
		conflicts: make(map[Pair]bool, len(facts.Conflicts)),
	}
	maps.Copy(j.owners, facts.Owners)
	for id, d := range facts.Devices {
		j.devices[id] = &deviceState{sessions: d.Sessions, strong: slices.Clip(d.Strong)}
	}
	for _, p := range facts.Conflicts {
		j.conflicts[p.sorted()] = true
		for _, id := range p {
			if d := j.devices[id]; d != nil {
				d.conflicted = true
			}
		}
	}
	return j
}

// judge places one session, and says what its evidence leads to.
func (j *judge) judge(s *Session) {
	if s.Device == uuid.Nil {
		s.Device = OwnDevice(s.ID)
		j.createDevice(s.Device).sessions++
	}
	held, gained, changed := j.updateTimeline(s)
	if !changed {
		return
	}
	from := j.current(s.Device)
	sole := j.solelySupported(from, held)
	to := j.place(s, held, from, sole)
	switch {
	case from == to:
	case sole || !j.devices[from].identified():
		j.createDevice(to)
		j.mergeDevice(from, to)
	default:
		j.moveSession(s, from, to)
	}
	s.Device = to
	for _, e := range held {
		j.assignOwner(s, e, held, gained[e], from)
	}
}

// updateTimeline notes what the update changes, and returns what the session
// holds after it, the strongest first; what of it is new; and whether anything
// is new or gone.
func (j *judge) updateTimeline(s *Session) (held []Evidence, gained map[Evidence]bool, changed bool) {
	gained = make(map[Evidence]bool)
	for _, h := range s.Held {
		if _, written := s.Written[h.Attribute]; !written {
			held = append(held, h.Evidence)
		}
	}
	for _, name := range Attributes {
		written, ok := s.Written[name]
		if !ok {
			continue
		}
		now := Read(name, written)
		held = append(held, now...)
		for _, h := range s.Held {
			if h.Attribute == name && !slices.Contains(now, h.Evidence) {
				j.ended = append(j.ended, TimelineEntry{Session: s.ID, Holding: h, Seq: written.Seq, At: written.At})
				changed = true
			}
		}
		for _, e := range now {
			if h := (Holding{name, e}); !slices.Contains(s.Held, h) {
				j.begun = append(j.begun, TimelineEntry{Session: s.ID, Holding: h, Seq: written.Seq, At: written.At})
				gained[e], changed = true, true
			}
		}
	}
	slices.SortFunc(held, Evidence.Compare)
	return slices.Compact(held), gained, changed
}

// solelySupported reports whether nothing but the session that holds held
// supports its device (rule 4).
func (j *judge) solelySupported(id uuid.UUID, held []Evidence) bool {
	d := j.devices[id]
	if d.sessions > 1 || d.conflicted {
		return false
	}
	for _, e := range d.strong {
		if !slices.Contains(held, e) {
			return false
		}
	}
	return true
}

// place returns the device that a session at from belongs to by what it holds
// (rules 1, 2 and 4).
func (j *judge) place(s *Session, held []Evidence, from uuid.UUID, sole bool) uuid.UUID {
	if s.Identified && !sole {
		return from
	}
	var identified, unidentified []uuid.UUID // devices that weak evidence leads to
	hasStrong, leadsToFrom := false, false
	for _, e := range held {
		hasStrong = hasStrong || e.Strong()
		owner, owned := j.owner(e)
		leadsToFrom = leadsToFrom || owned && owner == from
		switch {
		case !owned || sole && owner == from:
		case e.Strong():
			return owner
		case j.devices[owner].identified():
			identified = append(identified, owner)
		default:
			unidentified = append(unidentified, owner)
		}
	}
	known := j.devices[from].identified()
	switch {
	case hasStrong && known && !sole:
		return deviceOf(held[0])
	case !hasStrong && len(identified) > 0 && (leadsToFrom || !known):
		return identified[0]
	case sole && !known && len(unidentified) > 0:
		return unidentified[0]
	}
	return from
}

// assignOwner says what a piece of evidence that the session holds leads to, and
// what follows (rules 3 and 5). The session came from a device; it is at its
// new one.
func (j *judge) assignOwner(s *Session, e Evidence, held []Evidence, gained bool, from uuid.UUID) {
	owner, owned := j.owner(e)
	switch {
	case !owned:
		j.owners[e] = s.Device
	case owner == s.Device:
	case e.Strong():
		j.noteConflict(s, owner, e, held)
	case !j.devices[owner].identified():
		j.mergeDevice(owner, s.Device)
	case gained || owner == from:
		j.owners[e] = s.Device
	}
	if e.Strong() {
		s.Identified = true
		if !owned {
			d := j.devices[s.Device]
			d.strong = append(d.strong, e)
		}
	}
}

func (j *judge) createDevice(id uuid.UUID) *deviceState {
	d, ok := j.devices[id]
	if !ok {
		d = &deviceState{created: true}
		j.devices[id] = d
	}
	return d
}

func (j *judge) mergeDevice(from, into uuid.UUID) {
	j.mergedInto[from] = into
	f, i := j.devices[from], j.devices[into]
	i.sessions += f.sessions
	i.conflicted = i.conflicted || f.conflicted
	i.strong = append(i.strong, f.strong...)
}

// moveSession takes the session from a device that stays to another.
func (j *judge) moveSession(s *Session, from, to uuid.UUID) {
	j.devices[from].sessions--
	j.createDevice(to).sessions++
	j.moved = append(j.moved, s.ID)
}

// noteConflict notes that the session's evidence e leads to another device than
// its own, unless the pair is known to be in conflict.
func (j *judge) noteConflict(s *Session, other uuid.UUID, e Evidence, held []Evidence) {
	pair := Pair{s.Device, other}.sorted()
	if j.conflicts[pair] {
		return
	}
	j.conflicts[pair] = true
	j.devices[s.Device].conflicted, j.devices[other].conflicted = true, true
	c := Conflict{Session: s.ID, Device: s.Device, Other: other, OtherEvidence: e}
	for _, mine := range held {
		if owner, owned := j.owner(mine); owned && owner == s.Device {
			c.Evidence = mine
			break
		}
	}
	j.found = append(j.found, c)
}

// current is the device that id is after the merges so far.
func (j *judge) current(id uuid.UUID) uuid.UUID {
	for {
		into, ok := j.mergedInto[id]
		if !ok {
			return id
		}
		id = into
	}
}

func (j *judge) owner(e Evidence) (uuid.UUID, bool) {
	id, ok := j.owners[e]
	return j.current(id), ok
}

// decisions are all that was decided, with the devices as they are in the end.
func (j *judge) decisions(sessions []Session) Decisions {
	var d Decisions
	d.Placements = make([]Placement, len(sessions))
	for i, s := range sessions {
		d.Placements[i] = Placement{s.ID, j.current(s.Device), s.Identified}
	}
	for id, state := range j.devices {
		switch now := j.current(id); {
		case now != id && !state.created:
			d.Merges = append(d.Merges, Merge{id, now})
		case now == id && state.created:
			d.Created = append(d.Created, id)
		}
	}
	for e := range j.owners {
		now, _ := j.owner(e)
		switch before, ok := j.stored[e]; {
		case !ok:
			d.Claimed = append(d.Claimed, Ownership{e, now})
		case j.current(before) != now:
			d.Reassigned = append(d.Reassigned, Ownership{e, now})
		}
	}
	for _, id := range j.moved {
		d.Moved = append(d.Moved, d.placement(id))
	}
	for _, e := range j.begun {
		e.Device = d.placement(e.Session).Device
		d.Begun = append(d.Begun, e)
	}
	for _, e := range j.ended {
		e.Device = d.placement(e.Session).Device
		d.Ended = append(d.Ended, e)
	}
	for _, c := range j.found {
		c.Device, c.Other = j.current(c.Device), j.current(c.Other)
		d.Conflicts = append(d.Conflicts, c)
	}
	slices.SortFunc(d.Created, compareUUID)
	slices.SortFunc(d.Merges, func(a, b Merge) int { return compareUUID(a.From, b.From) })
	compareOwnerships := func(a, b Ownership) int { return a.Evidence.Compare(b.Evidence) }
	slices.SortFunc(d.Claimed, compareOwnerships)
	slices.SortFunc(d.Reassigned, compareOwnerships)
	slices.SortFunc(d.Begun, TimelineEntry.compare)
	slices.SortFunc(d.Ended, TimelineEntry.compare)
	slices.SortFunc(d.Conflicts, func(a, b Conflict) int { return compareUUID(a.ID(), b.ID()) })
	return d
}

// placement is that of a session of the group.
func (d Decisions) placement(session uuid.UUID) Placement {
	i, _ := slices.BinarySearchFunc(d.Placements, session, func(p Placement, id uuid.UUID) int { return compareUUID(p.Session, id) })
	return d.Placements[i]
}
