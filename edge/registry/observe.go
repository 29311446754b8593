package registry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// Step is what is folded together: what several observations of a step change
// in a device becomes one delta.
type Step struct {
	Observations []discovery.Observation
	// Position is how far the input is taken in with this step. The zero
	// value is for inputs that cannot be read again.
	Position Position
}

// Observe merges steps into the records, in order. When it returns nil, what
// they changed, the events that tell of it and the last step's position are on
// disk, written by one transaction. Steps that change nothing cost none; their
// position is then written with the next transaction, or by Flush.
//
// After an error nothing has changed, and the same steps can be tried again.
func (r *Registry) Observe(ctx context.Context, steps ...Step) error {
	r.write.Lock()
	defer r.write.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	now := r.o.Now()
	t := r.begin()
	met := map[string]time.Time{}
	for _, s := range steps {
		for _, o := range s.Observations {
			if t.observe(o, now) && o.Time.After(met[o.MAC]) {
				met[o.MAC] = o.Time
			}
		}
		if err := t.sequence(); err != nil {
			return err
		}
		if s.Position != (Position{}) {
			t.position = s.Position
		}
	}
	if err := t.commit(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for mac, at := range met {
		if e := r.devices[mac]; e != nil {
			e.heard = now
			if at = millis(at, now); at.After(e.last) {
				e.last = at
			}
		}
	}
	return nil
}

// observe merges o and reports whether it is about a device that is known.
func (t *txn) observe(o discovery.Observation, now time.Time) bool {
	at := millis(o.Time, now)
	rec := t.get(o.MAC)
	if rec == nil {
		if o.Presence != discovery.Seen || o.MAC == "" || !t.open(o.MAC, at, now) {
			return false
		}
		rec = t.get(o.MAC)
	}
	for _, c := range changes(rec, o) {
		if c.over > 0 {
			t.r.refuse(rec.MAC, c.name, "set-full", fmt.Sprintf("%d members beyond %d", c.over, discovery.MaxSetMembers), c.over)
		}
		t.set(o.MAC, c.name, c.value, at)
	}
	if tellsModel(o) {
		t.set(o.MAC, AttrModel, modelOf(t.get(o.MAC)), at)
	}
	if o.Presence == discovery.Left {
		t.offline(o.MAC, GoodbyePrefix+o.Kind, at)
	} else {
		t.set(o.MAC, AttrReason, nil, at)
		t.set(o.MAC, AttrStatus, Online, at)
	}
	return true
}

// offline notes that a known device is not there, and what told so first.
func (t *txn) offline(mac, reason string, at time.Time) {
	if t.get(mac).value(AttrStatus) != nil && t.get(mac).status() == Offline {
		return
	}
	t.set(mac, AttrReason, reason, at)
	t.set(mac, AttrStatus, Offline, at)
}

// open begins a session for mac, unless there are too many devices.
func (t *txn) open(mac string, at, now time.Time) bool {
	if t.count() >= t.r.o.MaxDevices {
		t.r.metrics.devicesRefused.Inc()
		if t.r.refused.first("devices") {
			t.r.o.Logger.Warn("more devices than the limit; further ones are not recorded until some are forgotten", "limit", t.r.o.MaxDevices, "mac", mac)
		}
		return false
	}
	session, err := t.r.o.NewSession()
	if err != nil {
		t.r.o.Logger.Error("device was not recorded", "mac", mac, "err", err)
		return false
	}
	t.staged[mac] = &record{MAC: mac, Session: session, Attributes: map[string]attribute{}, First: at, Last: at, Heard: now}
	t.opened++
	t.set(mac, discovery.AttrMAC, mac, at)
	return true
}

// set sets an attribute of a known device, or removes it if value is nil, and
// refuses what would break the contract's limits.
func (t *txn) set(mac, name string, value any, at time.Time) {
	rec := t.get(mac)
	v := null
	if value != nil {
		var err error
		if v, err = device.CanonicalOf(value); err != nil {
			t.r.refuse(mac, name, "invalid", err.Error(), 1)
			return
		}
	}
	if err := device.CheckName(name); err != nil {
		t.r.refuse(mac, name, "invalid", err.Error(), 1)
		return
	}
	if string(rec.value(name)) == string(v) || string(v) == string(null) && rec.value(name) == nil {
		return
	}
	if why := tooMuch(rec, name, v); why != "" {
		t.r.refuse(mac, name, "limit", why, 1)
		return
	}
	rec = t.change(mac)
	if rec.put(name, v, at) {
		t.touched[mac] = struct{}{}
	}
}

// tooMuch says which limit rec would break with name set to v, or "".
func tooMuch(rec *record, name string, v []byte) string {
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

// refuse counts n refused attributes and logs the first of each name.
func (r *Registry) refuse(mac, name, reason, why string, n int) {
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
