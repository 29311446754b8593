package registry

import (
	"encoding/json"
	"time"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// This file decides whether a device is online. Nothing else writes
// connection.status or connection.reason:
//
//	what happens                                        status    reason
//	the device shows itself, or a frame of it is read    online    none
//	it says that it leaves (discovery.Left)              offline   goodbye-{protocol}
//	it is silent for longer than Options.OfflineAfter    offline   silence
//
// The reason is that of the first of several causes. A status is decided in the
// transaction of its cause, so one event carries both.

// Values of device.AttrConnectionReason. It says why a device is offline:
// ReasonSilence, or GoodbyePrefix and the name of the discovery.Source in which the
// device said that it leaves.
const (
	ReasonSilence = "silence"
	GoodbyePrefix = "goodbye-"
)

var online = json.RawMessage(`"` + device.Online + `"`)

// decidePresence sets the status of a known device from an observation of it.
func (t *txn) decidePresence(o discovery.Observation, at time.Time) {
	if o.Presence == discovery.Left {
		t.setOffline(o.MAC, GoodbyePrefix+o.Kind, at)
		return
	}
	t.setAttribute(o.MAC, device.AttrConnectionReason, nil, at)
	t.setAttribute(o.MAC, device.AttrConnectionStatus, device.Online, at)
}

// decideSilence sets a device offline that was silent for too long. The time
// before this process began to listen does not count.
func (t *txn) decideSilence(mac string, d *trackedDevice, now time.Time) {
	if t.r.o.OfflineAfter <= 0 || d.rec.status() != device.Online {
		return
	}
	silentSince := d.lastHeard
	if t.r.listeningSince.After(silentSince) {
		silentSince = t.r.listeningSince
	}
	if now.Sub(silentSince) > t.r.o.OfflineAfter {
		t.setOffline(mac, ReasonSilence, millis(now, now))
	}
}

// isSilence reports whether the device is offline because it was silent.
func isSilence(r *record) bool {
	var reason string
	_ = json.Unmarshal(r.value(device.AttrConnectionReason), &reason) // absent: there is none
	return reason == ReasonSilence
}

// setOffline sets the status and the reason, unless the device is offline.
func (t *txn) setOffline(mac, reason string, at time.Time) {
	if rec := t.record(mac); rec.value(device.AttrConnectionStatus) != nil && rec.status() == device.Offline {
		return
	}
	t.setAttribute(mac, device.AttrConnectionReason, reason, at)
	t.setAttribute(mac, device.AttrConnectionStatus, device.Offline, at)
}

// status is Online or Offline. A record without a status is offline.
func (r *record) status() string {
	if string(r.value(device.AttrConnectionStatus)) == string(online) {
		return device.Online
	}
	return device.Offline
}
