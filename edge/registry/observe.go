package registry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// Step is a group of observations: all that they change in a device becomes one
// delta.
type Step struct {
	Observations []discovery.Observation
	// Position is how far the input is taken in with this step. The zero
	// value is for inputs that cannot be read again.
	Position Position
}

// Observe merges steps into the records, in order. When it returns nil, what
// they changed, the events that carry it and the last step's position are on
// disk, written by one transaction. Steps that change nothing cost none; their
// position is then written with the next transaction, or by Flush.
//
// After an error nothing has changed, and the same steps can be tried again.
func (r *Registry) Observe(ctx context.Context, steps ...Step) error {
	return r.update(ctx, func(t *txn, now time.Time) error {
		seen := map[string]time.Time{} // newest observation of each known device
		for _, s := range steps {
			for _, o := range s.Observations {
				if t.mergeObservation(o, now) && o.Time.After(seen[o.MAC]) {
					seen[o.MAC] = o.Time
				}
			}
			if err := t.appendTouched(); err != nil {
				return err
			}
			if s.Position != (Position{}) {
				t.position = s.Position
			}
		}
		if err := t.commit(); err != nil {
			return err
		}
		r.noteSeen(seen, now)
		return nil
	})
}

// noteSeen keeps in memory when devices were seen, by the frames' clock, and
// that they were heard now.
func (r *Registry) noteSeen(seen map[string]time.Time, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for mac, at := range seen {
		if d := r.devices[mac]; d != nil {
			d.lastHeard = now
			if at = millis(at, now); at.After(d.lastSeen) {
				d.lastSeen = at
			}
		}
	}
}

// mergeObservation merges o and reports whether it is about a device that is known.
func (t *txn) mergeObservation(o discovery.Observation, now time.Time) bool {
	at := millis(o.Time, now)
	rec := t.record(o.MAC)
	if rec == nil {
		if o.Presence != discovery.Seen || o.MAC == "" || !t.openSession(o.MAC, at, now) {
			return false
		}
		rec = t.record(o.MAC)
	}
	for _, c := range attributeChanges(rec, o) {
		if c.over > 0 {
			t.r.countRefused(rec.MAC, c.name, "set-full", fmt.Sprintf("%d members beyond %d", c.over, discovery.MaxSetMembers), c.over)
		}
		t.setAttribute(o.MAC, c.name, c.value, at)
	}
	if hasModelEvidence(o) {
		t.setAttribute(o.MAC, device.AttrDeviceModel, modelOf(t.record(o.MAC)), at)
	}
	t.decidePresence(o, at)
	return true
}

// setAttribute sets an attribute of a known device, or removes it if value is nil, and
// refuses what would break the contract's limits.
func (t *txn) setAttribute(mac, name string, value any, at time.Time) {
	rec := t.record(mac)
	v := null
	if value != nil {
		var err error
		if v, err = device.CanonicalOf(value); err != nil {
			t.r.countRefused(mac, name, "invalid", err.Error(), 1)
			return
		}
		if err := device.CheckValue(name, v); err != nil { // it costs itself alone
			t.r.countRefused(mac, name, "invalid", err.Error(), 1)
			return
		}
	}
	if err := device.CheckName(name); err != nil {
		t.r.countRefused(mac, name, "invalid", err.Error(), 1)
		return
	}
	if string(rec.value(name)) == string(v) || string(v) == string(null) && rec.value(name) == nil {
		return
	}
	if why := exceededLimit(rec, name, v); why != "" {
		t.r.countRefused(mac, name, "limit", why, 1)
		return
	}
	rec = t.editRecord(mac)
	if rec.setValue(name, v, at) {
		t.touched[mac] = struct{}{}
	}
}

// exceededLimit says which limit rec would break with name set to v, or "".
func exceededLimit(rec *record, name string, v []byte) string {
	if string(v) == string(null) {
		return ""
	}
	if len(v) > device.MaxValueBytes {
		return fmt.Sprintf("the value has %d bytes, more than %d", len(v), device.MaxValueBytes)
	}
	live := rec.live()
	live[name] = device.Attribute{Value: v}
	if len(live) > device.MaxAttributes {
		return fmt.Sprintf("the device would have %d attributes, more than %d", len(live), device.MaxAttributes)
	}
	if n := device.StateBytes(live); n > device.MaxStateBytes {
		return fmt.Sprintf("the device's state would have %d bytes, more than %d", n, device.MaxStateBytes)
	}
	return ""
}

// countRefused counts n refused attributes and logs the first of each name.
func (r *Registry) countRefused(mac, name, reason, why string, n int) {
	r.metrics.attributesRefused.WithLabelValues(reason).Add(float64(n))
	if r.refused.first(reason + " " + name) {
		r.o.Logger.Warn("attribute refused; further ones of the name are only counted", "mac", mac, "attribute", strings.ToValidUTF8(name, "?"), "reason", reason, "detail", why)
	}
}

// millis is at as events carry it, to the millisecond; a time that no event may
// carry is replaced by now.
func millis(at, now time.Time) time.Time {
	if y := at.UTC().Year(); y < 1970 || y > 9999 {
		at = now
	}
	return at.UTC().Truncate(time.Millisecond)
}
