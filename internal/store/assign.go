package store

import (
	"slices"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// assignment decides which devices a group's sessions belong to. It is thin: a
// session is bound by the first evidence it brings, to the device that owns the
// strongest identity of it, else to a device of its own. What it brings later
// is recorded where nobody owns it, and moves nothing.
type assignment struct {
	owners map[identity]uuid.UUID // stored, and given in this group

	devices    []uuid.UUID // to make
	orphans    []uuid.UUID // to delete
	identities []ownedClaim
}

type ownedClaim struct {
	claim
	device  uuid.UUID
	session uuid.UUID
}

// assign decides for one session, whose row it changes. Sessions come sorted,
// so that a group gives the same whoever computes it.
func (a *assignment) assign(r *row, found bool, claims []claim) {
	own := ownDevice(r.id)
	if !found {
		r.device = own
	}
	if !r.identified && len(claims) > 0 {
		before := r.device
		r.identified = true
		for _, c := range claims { // the strongest first
			if owner, ok := a.owners[c.identity]; ok {
				r.device = owner
				break
			}
		}
		if found && r.device != before {
			a.orphans = append(a.orphans, before)
		}
	}
	if !found && r.device == own {
		a.devices = append(a.devices, own)
	}
	for _, c := range claims {
		if _, ok := a.owners[c.identity]; !ok {
			a.owners[c.identity] = r.device
		}
		a.identities = append(a.identities, ownedClaim{c, a.owners[c.identity], r.id})
	}
}

// sortedIdentities are the identities to write, each once, in key order.
func (a *assignment) sortedIdentities() []ownedClaim {
	slices.SortStableFunc(a.identities, func(x, y ownedClaim) int { return x.compare(y.identity) })
	return slices.CompactFunc(a.identities, func(x, y ownedClaim) bool { return x.identity == y.identity })
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
