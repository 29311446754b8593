package identity

import (
	"maps"
	"slices"
	"time"

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
	conflicts  map[Pair]bool // by strong evidence, of sorted pairs; once found, never again
	weak       map[Pair]bool // conflicts by weak evidence, of sorted pairs
	keptApart  map[Pair]bool // of sorted pairs
	claims     []Claim
	facts      Facts
	now        time.Time
	hold       Hold

	found        []Conflict
	moved        []uuid.UUID // sessions
	begun, ended []TimelineEntry
	withdrawn    []uuid.UUID // claims
}

// deviceState is a device as the group's sessions so far have left it.
type deviceState struct {
	sessions   int
	strong     []Evidence
	known      bool // evidence leads to it
	present    Present
	conflicted bool // by strong evidence, in a conflict that is open, or that was decided by keeping apart
	created    bool // by this group
}

func (d *deviceState) identified() bool { return len(d.strong) > 0 }

func newJudge(facts Facts) *judge {
	j := &judge{
		stored: facts.Owners, owners: make(map[Evidence]uuid.UUID, len(facts.Owners)),
		devices: make(map[uuid.UUID]*deviceState, len(facts.Devices)), mergedInto: make(map[uuid.UUID]uuid.UUID),
		conflicts: make(map[Pair]bool, len(facts.Conflicts)), keptApart: make(map[Pair]bool, len(facts.KeptApart)),
		weak:   make(map[Pair]bool, len(facts.WeakConflicts)),
		claims: facts.Claims, facts: facts, now: facts.Now, hold: facts.Hold,
	}
	maps.Copy(j.owners, facts.Owners)
	for id, d := range facts.Devices {
		j.devices[id] = &deviceState{sessions: d.Sessions, strong: slices.Clip(d.Strong), known: d.Known || len(d.Strong) > 0, present: d.Present}
	}
	for _, p := range facts.Conflicts {
		j.conflicts[p.sorted()] = true
		for _, id := range p {
			if d := j.devices[id]; d != nil {
				d.conflicted = true
			}
		}
	}
	for _, p := range facts.WeakConflicts {
		j.weak[p.sorted()] = true
	}
	for _, p := range facts.KeptApart {
		j.keptApart[p.sorted()] = true
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
	if !changed && !s.Again {
		j.occupy(s)
		return
	}
	from := j.current(s.Device)
	free, contested := j.splitContested(s, held, from)
	sole := j.solelySupported(from, held)
	to := j.place(s, free, contested, from, sole)
	switch {
	case from == to:
	case sole, j.devices[from].sessions == 1 && !j.devices[from].identified():
		j.createDevice(to)
		j.mergeDevice(from, to)
	default:
		j.moveSession(s, from, to)
	}
	s.Device = to
	j.occupy(s)
	for _, e := range free {
		if _, owned := j.owner(e); len(contested) > 0 && !owned && !e.Strong() {
			continue // it is to lead where the claim does, once that is decided
		}
		j.assignOwner(s, e, held, gained[e], from)
	}
	for _, e := range contested {
		owner, _ := j.owner(e)
		j.noteConflict(s, owner, e, held, true)
		s.Identified = s.Identified || e.Strong()
	}
	j.endClaims(s)
}

// splitContested splits the session's evidence: contested is what leads to a
// device that a session of another RAE holds (rule 6).
func (j *judge) splitContested(s *Session, held []Evidence, from uuid.UUID) (free, contested []Evidence) {
	for _, e := range held {
		owner, owned := j.owner(e)
		if owned && owner != from && j.hold.keeps(j.devices[owner].present, s, j.now) && !j.conflicts[Pair{from, owner}.sorted()] {
			contested = append(contested, e)
			continue
		}
		free = append(free, e)
	}
	return free, contested
}

// occupy has the session hold its device from here on, unless another one does.
func (j *judge) occupy(s *Session) {
	d := j.devices[j.current(s.Device)]
	if p := d.present; p.RAE != s.RAE && !j.hold.keeps(p, s, j.now) {
		d.present = Present{Session: s.ID, RAE: s.RAE, Heard: s.Heard}
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
		for i := range now {
			now[i].Lab = s.Lab
		}
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

// place returns the device that a session at from belongs to by the evidence that
// is not contested (rules 1, 2, 4 and 7).
func (j *judge) place(s *Session, free, contested []Evidence, from uuid.UUID, sole bool) uuid.UUID {
	if s.Identified && !sole {
		return from
	}
	var identified, unidentified []uuid.UUID // devices that weak evidence leads to
	hasStrong := slices.ContainsFunc(contested, Evidence.Strong)
	for _, e := range free {
		hasStrong = hasStrong || e.Strong()
		owner, owned := j.owner(e)
		switch {
		case !owned || sole && owner == from || j.keptApart[Pair{from, owner}.sorted()]:
		case e.Strong():
			return owner
		case j.devices[owner].identified():
			identified = append(identified, owner)
		default:
			unidentified = append(unidentified, owner)
		}
	}
	switch d := j.devices[from]; {
	case !sole && hasStrong && d.identified():
		return deviceOfStrongest(s, free, contested)
	case !sole || d.known:
		return from
	case !hasStrong && len(identified) > 0:
		return identified[0]
	case len(unidentified) > 0:
		return unidentified[0]
	}
	return from
}

// deviceOfStrongest is the device of a session that leaves the identified one
// where weak evidence had placed it.
func deviceOfStrongest(s *Session, free, contested []Evidence) uuid.UUID {
	if len(free) > 0 && free[0].Strong() {
		return deviceOf(free[0])
	}
	return claimantsDevice(s.ID, contested[0])
}

// assignOwner says what a piece of evidence that the session holds leads to, and
// what follows (rules 3 and 5). The session came from a device; it is at its
// new one.
func (j *judge) assignOwner(s *Session, e Evidence, held []Evidence, gained bool, from uuid.UUID) {
	owner, owned := j.owner(e)
	mine := j.devices[s.Device]
	switch {
	case !owned:
		j.owners[e] = s.Device
		mine.known = true
	case owner == s.Device:
	case e.Strong() || !s.Identified || !mine.identified() || !j.devices[owner].identified():
		j.noteConflict(s, owner, e, held, false)
	case gained || owner == from:
		j.owners[e] = s.Device
	}
	if e.Strong() {
		s.Identified = true
		if !owned {
			mine.strong = append(mine.strong, e)
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
	i.known = i.known || f.known
	i.strong = append(i.strong, f.strong...)
	for _, pairs := range []map[Pair]bool{j.conflicts, j.weak, j.keptApart} {
		delete(pairs, Pair{from, into}.sorted())
		for p := range maps.Clone(pairs) {
			if moved, ok := p.with(from, into); ok {
				pairs[moved] = true
			}
		}
	}
	i.conflicted = i.conflicted || f.conflicted
}

// moveSession takes the session from a device that stays to another.
func (j *judge) moveSession(s *Session, from, to uuid.UUID) {
	j.devices[from].sessions--
	j.createDevice(to).sessions++
	j.moved = append(j.moved, s.ID)
}

// noteConflict notes that the session's evidence e leads to another device than
// its own, unless the pair is known to be in conflict.
func (j *judge) noteConflict(s *Session, other uuid.UUID, e Evidence, held []Evidence, contested bool) {
	pair := Pair{s.Device, other}.sorted()
	switch {
	case j.conflicts[pair] || !e.Strong() && j.weak[pair]:
		return
	case contested:
	case e.Strong():
		j.conflicts[pair] = true
		j.devices[s.Device].conflicted, j.devices[other].conflicted = true, true
	default:
		j.weak[pair] = true
	}
	c := Conflict{Session: s.ID, Device: s.Device, Other: other, OtherEvidence: e, Contested: contested}
	for _, mine := range held {
		if owner, owned := j.owner(mine); owned && owner == s.Device {
			c.Evidence = mine
			break
		}
	}
	j.found = append(j.found, c)
}

// endClaims notes which of the session's stored claims are not made again. A
// claim that is honoured ends with the merge, one that a conflict took the place
// of with that.
func (j *judge) endClaims(s *Session) {
	for _, c := range j.claims {
		if c.Session != s.ID || j.current(c.Pair[0]) == j.current(c.Pair[1]) {
			continue
		}
		if !slices.ContainsFunc(j.found, func(f Conflict) bool {
			return ConflictID(j.current(f.Device), j.current(f.Other)) == ConflictID(j.current(c.Pair[0]), j.current(c.Pair[1]))
		}) {
			j.withdrawn = append(j.withdrawn, c.ID)
		}
	}
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
	d.Conflicts = j.distinctConflicts()
	d.Withdrawn = j.withdrawn
	slices.SortFunc(d.Withdrawn, compareUUID)
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

// distinctConflicts are those that were found between devices that are two in the
// end, and that are not stored: of each pair the strongest, by strong evidence, by
// weak, a claim.
func (j *judge) distinctConflicts() []Conflict {
	var out []Conflict
	stored, weak := j.currentIDs(j.facts.Conflicts), j.currentIDs(j.facts.WeakConflicts)
	for _, c := range j.found {
		c.Device, c.Other = j.current(c.Device), j.current(c.Other)
		if id := c.ID(); c.Device == c.Other || stored[id] || weak[id] && (c.Contested || !c.OtherEvidence.Strong()) {
			continue
		}
		i := slices.IndexFunc(out, func(o Conflict) bool { return o.ID() == c.ID() })
		switch {
		case i < 0:
			out = append(out, c)
		case out[i].Contested && !c.Contested, out[i].Contested == c.Contested && !out[i].OtherEvidence.Strong() && c.OtherEvidence.Strong():
			out[i] = c
		}
	}
	return out
}

// currentIDs identifies the conflicts of pairs as the merges have left them.
func (j *judge) currentIDs(pairs []Pair) map[uuid.UUID]bool {
	ids := make(map[uuid.UUID]bool, len(pairs))
	for _, p := range pairs {
		ids[ConflictID(j.current(p[0]), j.current(p[1]))] = true
	}
	return ids
}

// placement is that of a session of the group.
func (d Decisions) placement(session uuid.UUID) Placement {
	i, _ := slices.BinarySearchFunc(d.Placements, session, func(p Placement, id uuid.UUID) int { return compareUUID(p.Session, id) })
	return d.Placements[i]
}
