package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// RunDueWork does what has become due. Devices that were silent for too long
// are set offline, devices that were offline for very long are forgotten, due
// snapshots are taken, and last-seen times are written now and then.
func (r *Registry) RunDueWork(ctx context.Context) error {
	return r.update(ctx, func(t *txn, now time.Time) error {
		var due []string
		for _, mac := range slices.Sorted(maps.Keys(r.devices)) {
			d := r.devices[mac]
			t.decideSilence(mac, d, now)
			if err := t.appendTouched(); err != nil {
				return err
			}
			switch forgotten, err := t.forgetIfGone(mac, d, now); {
			case err != nil:
				return err
			case forgotten:
			case r.o.SnapshotInterval > 0 && !now.Before(d.snapshotDue):
				due = append(due, mac)
			}
		}
		if err := t.appendDueSnapshots(due, now); err != nil {
			return err
		}
		if !now.Before(r.nextFlush) {
			return t.flush(now)
		}
		return t.commit()
	})
}

// forgetIfGone closes the session of a device that was offline for longer than
// Options.ForgetAfter, and reports whether it did. Without room in the outbox the
// device stays until there is some.
func (t *txn) forgetIfGone(mac string, d *trackedDevice, now time.Time) (bool, error) {
	after := t.r.o.ForgetAfter
	if after <= 0 || d.rec.status() != device.Offline || now.Sub(d.lastHeard) <= after {
		return false, nil
	}
	err := t.closeSession(mac, fmt.Sprintf("not heard of for %s", after), now)
	if errors.Is(err, ErrOutboxFull) {
		return false, nil
	}
	return err == nil, err
}

// Flush writes what is only in memory: last-seen times and the position.
func (r *Registry) Flush() error {
	return r.update(context.Background(), func(t *txn, now time.Time) error { return t.flush(now) })
}

// flush commits t with all last-seen times that are not on disk.
func (t *txn) flush(now time.Time) error {
	for mac, d := range t.r.devices {
		if _, staged := t.staged[mac]; !staged && d.lastSeen.After(d.rec.Last) {
			t.editRecord(mac)
		}
	}
	if !t.empty() || t.position != t.r.savedPosition {
		if err := t.write(); err != nil {
			return err
		}
	}
	t.r.nextFlush = now.Add(flushEvery)
	return nil
}
