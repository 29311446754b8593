package registry

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

var null = json.RawMessage("null")

// attribute is the value of one attribute. Seq 0 says that no event carries it
// yet. Known then says that an earlier event carried another value of the name, so
// that a removal needs an event as well.
type attribute struct {
	Value json.RawMessage `json:"value"`
	Seq   int64           `json:"seq"`
	At    time.Time       `json:"at"`
	Known bool            `json:"known,omitempty"`
}

func (a attribute) removed() bool { return bytes.Equal(a.Value, null) }

// record is one device session. Invariant: a committed record is never changed; a
// changed clone takes its place.
type record struct {
	MAC     string `json:"mac"`
	Session string `json:"session"`
	// Seq is the seq of the session's newest event, 0 before its opened.
	Seq        int64                `json:"seq"`
	Attributes map[string]attribute `json:"attributes"`
	// First and Last are times of observations, by the frames' clock.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Heard is when this process last read a frame of the device, by the
	// clock on the wall. In the replay of an old capture it is far from Last.
	Heard time.Time `json:"heard"`
	// SnapshotAt and SnapshotKey are the newest snapshot's time and its key
	// in the outbox.
	SnapshotAt  time.Time `json:"snapshot_at,omitzero"`
	SnapshotKey uint64    `json:"snapshot_key,omitempty"`
}

func (r *record) clone() *record {
	c := *r
	c.Attributes = maps.Clone(r.Attributes)
	return &c
}

// value returns the attribute's value, or nil.
func (r *record) value(name string) json.RawMessage {
	a, ok := r.Attributes[name]
	if !ok || a.removed() {
		return nil
	}
	return a.Value
}

// pending are the names whose value no event carries, sorted.
func (r *record) pending() []string {
	var names []string
	for name, a := range r.Attributes {
		if a.Seq == 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hasPending reports whether there is a value that no event carries.
func (r *record) hasPending() bool {
	for _, a := range r.Attributes {
		if a.Seq == 0 {
			return true
		}
	}
	return false
}

// setValue sets name to a canonical value, or removes it, and reports whether that
// changed anything.
func (r *record) setValue(name string, value json.RawMessage, at time.Time) bool {
	old, ok := r.Attributes[name]
	if bytes.Equal(value, null) && (!ok || old.removed()) || ok && bytes.Equal(old.Value, value) {
		return false
	}
	known := old.Seq > 0 || old.Known
	if bytes.Equal(value, null) && !known {
		delete(r.Attributes, name)
		return true
	}
	r.Attributes[name] = attribute{Value: value, At: at, Known: known}
	return true
}

// live are the attributes that have a value, in the vocabulary's type.
func (r *record) live() map[string]device.Attribute {
	out := make(map[string]device.Attribute, len(r.Attributes))
	for name, a := range r.Attributes {
		if !a.removed() {
			out[name] = device.Attribute{Value: a.Value, Seq: a.Seq, At: a.At}
		}
	}
	return out
}

// attributeChange is one change that an observation asks for: set name to value, or remove it.
type attributeChange struct {
	name  string
	value any // nil removes
	over  int // members that did not fit the set
}

// attributeChanges are what o asks of r, in a fixed order: removals before values, so
// that a full record makes room first.
func attributeChanges(r *record, o discovery.Observation) []attributeChange {
	var out []attributeChange
	for _, name := range slices.Sorted(slices.Values(o.Unset)) {
		out = append(out, attributeChange{name: name})
	}
	for _, name := range slices.Sorted(maps.Keys(o.Drop)) {
		if _, both := o.Add[name]; !both {
			out = append(out, memberChange(r, name, nil, o.Drop[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Set)) {
		out = append(out, attributeChange{name: name, value: o.Set[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(o.Add)) {
		out = append(out, memberChange(r, name, o.Add[name], o.Drop[name]))
	}
	return out
}

// memberChange is the change of an attribute with set semantics: a sorted array of
// strings, each once, at most discovery.MaxSetMembers, those that came first.
// An empty set has no value.
func memberChange(r *record, name string, add, drop []string) attributeChange {
	var members []string
	if v := r.value(name); v != nil {
		_ = json.Unmarshal(v, &members) // what is no array of strings is replaced
	}
	members = slices.DeleteFunc(members, func(m string) bool { return slices.Contains(drop, m) })
	over := 0
	for _, m := range slices.Sorted(slices.Values(add)) {
		switch {
		case slices.Contains(members, m):
		case len(members) >= discovery.MaxSetMembers:
			over++
		default:
			members = append(members, m)
		}
	}
	if len(members) == 0 {
		return attributeChange{name: name, over: over}
	}
	slices.Sort(members)
	return attributeChange{name: name, value: members, over: over}
}
