package identity_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/identity"
)

// world keeps what a store would: it gives the facts, and does what was decided.
type world struct {
	owners    map[identity.Evidence]uuid.UUID
	devices   map[uuid.UUID]bool
	sessions  map[uuid.UUID]*stored
	conflicts map[uuid.UUID]identity.Conflict // open ones, and those that were decided by keeping apart
}

type stored struct {
	device     uuid.UUID
	identified bool
	held       []identity.Holding
	seq        int64
}

func newWorld() *world {
	return &world{
		owners: map[identity.Evidence]uuid.UUID{}, devices: map[uuid.UUID]bool{}, sessions: map[uuid.UUID]*stored{},
		conflicts: map[uuid.UUID]identity.Conflict{},
	}
}

// clone is another world with the same in it.
func (w *world) clone() *world {
	c := &world{maps.Clone(w.owners), maps.Clone(w.devices), map[uuid.UUID]*stored{}, maps.Clone(w.conflicts)}
	for id, s := range w.sessions {
		copied := *s
		copied.held = slices.Clone(s.held)
		c.sessions[id] = &copied
	}
	return c
}

func sessionID(n int) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)) }

// update is what the n-th session writes next: attributes and their JSON.
func (w *world) update(n int, attributes map[string]string) identity.Session {
	s := identity.Session{ID: sessionID(n), Written: map[string]device.Attribute{}}
	seq := int64(1)
	if was := w.sessions[s.ID]; was != nil {
		s.Device, s.Identified, s.Held, seq = was.device, was.identified, was.held, was.seq+1
	}
	for name, v := range attributes {
		s.Written[name] = device.Attribute{Value: []byte(v), Seq: seq, At: time.Unix(seq, 0)}
	}
	return s
}

// facts are those that judging the sessions requires, and no more.
func (w *world) facts(sessions ...identity.Session) identity.Facts {
	f := identity.Facts{Owners: map[identity.Evidence]uuid.UUID{}, Devices: map[uuid.UUID]identity.Device{}}
	devices := map[uuid.UUID]bool{}
	for _, s := range sessions {
		var all []identity.Evidence
		for _, h := range s.Held {
			all = append(all, h.Evidence)
		}
		for name, a := range s.Written {
			all = append(all, identity.Read(name, a)...)
		}
		for _, e := range all {
			if owner, ok := w.owners[e]; ok {
				f.Owners[e], devices[owner] = owner, true
			}
		}
		if s.Device != uuid.Nil {
			devices[s.Device] = true
		}
	}
	w.addDevices(&f, devices)
	return f
}

func (w *world) addDevices(f *identity.Facts, devices map[uuid.UUID]bool) {
	for id := range devices {
		var d identity.Device
		for _, s := range w.sessions {
			if s.device == id {
				d.Sessions++
			}
		}
		for e, owner := range w.owners {
			if owner != id {
				continue
			}
			if d.Known = true; e.Strong() {
				d.Strong = append(d.Strong, e)
			}
		}
		f.Devices[id] = d
	}
	for _, c := range w.conflicts {
		if c.Contested {
			f.Claims = append(f.Claims, identity.Claim{ID: c.ID(), Session: c.Session, Pair: identity.Pair{c.Device, c.Other}})
		} else if !c.OtherEvidence.Strong() && (devices[c.Device] || devices[c.Other]) {
			f.WeakConflicts = append(f.WeakConflicts, identity.Pair{c.Device, c.Other})
		} else if devices[c.Device] || devices[c.Other] {
			f.Conflicts = append(f.Conflicts, identity.Pair{c.Device, c.Other})
		}
	}
}

// allFacts is everything the world has.
func (w *world) allFacts() identity.Facts {
	f := identity.Facts{Owners: w.owners, Devices: map[uuid.UUID]identity.Device{}}
	w.addDevices(&f, w.devices)
	return f
}

// do does what was decided of the sessions, and requires of every decision that
// it can be done.
func (w *world) do(t require.TestingT, sessions []identity.Session, d identity.Decisions) {
	made := map[uuid.UUID]bool{} // for new sessions, and for those that left a device to others
	for _, s := range sessions {
		made[identity.OwnDevice(s.ID)] = s.Device == uuid.Nil
	}
	for _, m := range d.Moved {
		made[m.Device] = true
	}
	for _, id := range d.Created {
		require.True(t, made[id], "a session keeps its device while that may be")
		w.devices[id] = true
	}
	for _, o := range d.Claimed {
		require.NotContains(t, w.owners, o.Evidence, "claimed: nobody's")
		w.owners[o.Evidence] = o.Device
	}
	for _, o := range d.Reassigned {
		require.Contains(t, w.owners, o.Evidence, "reassigned: somebody's")
		w.owners[o.Evidence] = o.Device
	}
	require.Len(t, d.Placements, len(sessions))
	for i := range sessions {
		s := &sessions[i]
		if w.sessions[s.ID] == nil {
			w.sessions[s.ID] = &stored{}
		}
		w.sessions[s.ID].seq++
	}
	for _, p := range d.Placements {
		w.sessions[p.Session].device, w.sessions[p.Session].identified = p.Device, p.Identified
	}
	for _, e := range d.Ended {
		s := w.sessions[e.Session]
		require.Contains(t, s.held, e.Holding)
		s.held = slices.DeleteFunc(s.held, func(h identity.Holding) bool { return h == e.Holding })
	}
	for _, e := range d.Begun {
		s := w.sessions[e.Session]
		require.NotContains(t, s.held, e.Holding)
		s.held = append(s.held, e.Holding)
		require.Equal(t, s.device, e.Device)
	}
	for _, m := range d.Merges {
		w.merge(t, m.From, m.Into)
	}
	for _, id := range d.Withdrawn {
		require.True(t, w.conflicts[id].Contested)
		delete(w.conflicts, id)
	}
	for _, c := range d.Conflicts {
		if !c.Contested {
			was, ok := w.conflicts[c.ID()]
			require.True(t, !ok || was.Contested || !was.OtherEvidence.Strong() && c.OtherEvidence.Strong(), "a pair of devices is in conflict once")
		}
		w.conflicts[c.ID()] = c
	}
	for _, s := range w.sessions {
		require.True(t, w.devices[s.device], "a session's device is there")
	}
	for _, owner := range w.owners {
		require.True(t, w.devices[owner], "an owner is there")
	}
}

// merge has one device get all that another has, which goes.
func (w *world) merge(t require.TestingT, from, into uuid.UUID) {
	require.True(t, w.devices[from])
	require.True(t, w.devices[into])
	for _, s := range w.sessions {
		if s.device == from {
			s.device = into
		}
	}
	for e, owner := range w.owners {
		if owner == from {
			w.owners[e] = into
		}
	}
	delete(w.devices, from)
	was := w.conflicts
	w.conflicts = map[uuid.UUID]identity.Conflict{}
	for _, c := range was {
		if c.Device == from {
			c.Device = into
		}
		if c.Other == from {
			c.Other = into
		}
		if other, ok := w.conflicts[c.ID()]; c.Device != c.Other && !(ok && other.OtherEvidence.Strong()) {
			w.conflicts[c.ID()] = c
		}
	}
}

// decide merges the devices of a conflict, as a person does.
func (w *world) decide(t require.TestingT, c identity.Conflict) { w.merge(t, c.Other, c.Device) }

// decideAll merges until no conflict by strong evidence is left, and returns how many
// there were.
func (w *world) decideAll(t require.TestingT) (n int) {
	for {
		var ids []uuid.UUID
		for id, c := range w.conflicts {
			if c.OtherEvidence.Strong() {
				ids = append(ids, id)
			}
		}
		if len(ids) == 0 {
			return n
		}
		slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
		w.decide(t, w.conflicts[ids[0]])
		n++
	}
}

// judge judges what some sessions write next, as one group, and does what was
// decided.
func (w *world) judge(t require.TestingT, sessions ...identity.Session) identity.Decisions {
	d := identity.Judge(w.facts(sessions...), sessions)
	w.do(t, sessions, d)
	return d
}

// write is judge of one session, and returns its device.
func (w *world) write(t testing.TB, n int, attributes map[string]string) uuid.UUID {
	t.Helper()
	w.judge(t, w.update(n, attributes))
	return w.device(n)
}

func (w *world) device(n int) uuid.UUID { return w.sessions[sessionID(n)].device }

func (w *world) owner(kind identity.Kind, value string) uuid.UUID {
	return w.owners[identity.Evidence{Kind: kind, Value: value}]
}
