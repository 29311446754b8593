package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// ErrUnknownDevice says that there is no record of a MAC.
var ErrUnknownDevice = errors.New("unknown device")

// openSession begins a session for mac, unless there are too many devices.
func (t *txn) openSession(mac string, at, now time.Time) bool {
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
	t.setAttribute(mac, device.AttrMAC, mac, at)
	return true
}

// closeSession ends the session of mac: it makes the events of what is pending
// and the closed event, and removes the record. It fails with ErrOutboxFull.
func (t *txn) closeSession(mac, reason string, now time.Time) error {
	if err := t.appendPending(mac); err != nil {
		return err
	}
	rec := t.record(mac)
	e := device.Event{RAE: t.r.o.RAE, Session: rec.Session, Type: device.Closed, Seq: rec.Seq + 1, Time: millis(now, now), Seen: t.lastSeen(rec), Reason: reason}
	if err := t.appendEvent(e, nil); err != nil {
		return err
	}
	t.staged[mac] = nil
	return nil
}

// Forget closes the session of a device and removes its record. If the device
// is met again, it opens a new session. It fails with ErrUnknownDevice or, when
// the closed event has no room, with ErrOutboxFull.
func (r *Registry) Forget(ctx context.Context, mac, reason string) error {
	return r.update(ctx, func(t *txn, now time.Time) error {
		if r.devices[mac] == nil {
			return fmt.Errorf("forget %s: %w", mac, ErrUnknownDevice)
		}
		err := t.closeSession(mac, reason, now)
		if errors.Is(err, ErrOutboxFull) {
			err = fmt.Errorf("%w: %d bytes of events wait for the broker; try again when it took some", err, r.outboxBytes)
		}
		if err != nil {
			return fmt.Errorf("forget %s: %w", mac, err)
		}
		return t.commit()
	})
}
