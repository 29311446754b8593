package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ErrUnknownDevice says that there is no record of a MAC.
var ErrUnknownDevice = errors.New("unknown device")

// Tick does what time demands: devices that have been silent for too long are
// offline, snapshots that are due are taken, devices that were offline for very
// long are forgotten, and last-seen times are written now and then.
func (r *Registry) Tick(ctx context.Context) error {
	r.write.Lock()
	defer r.write.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	now := r.o.Now()
	t := r.begin()
	var due []string
	for _, mac := range slices.Sorted(maps.Keys(r.devices)) {
		e := r.devices[mac]
		if r.o.OfflineAfter > 0 && e.rec.status() == Online && now.Sub(later(e.heard, r.since)) > r.o.OfflineAfter {
			t.offline(mac, ReasonSilence, millis(now, now))
		}
		if err := t.sequence(); err != nil {
			return err
		}
		if r.o.ForgetAfter > 0 && e.rec.status() == Offline && now.Sub(e.heard) > r.o.ForgetAfter {
			if ok, err := t.close(mac, fmt.Sprintf("not heard of for %s", r.o.ForgetAfter), now); err != nil {
				return err
			} else if ok {
				continue
			}
		}
		if r.o.SnapshotInterval > 0 && !now.Before(e.due) {
			due = append(due, mac)
		}
	}
	if err := t.snapshots(due, now); err != nil {
		return err
	}
	if !now.Before(r.nextFlush) {
		return t.flush(now)
	}
	return t.commit()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// snapshots takes those that are due. One whose session's last snapshot is
// still in the outbox would tell the cloud nothing sooner: it is left out, so
// that an RAE that is cut off for weeks does not fill its outbox with them.
func (t *txn) snapshots(due []string, now time.Time) error {
	r := t.r
	for _, mac := range due {
		rec := t.get(mac)
		if rec.SnapshotKey <= r.head {
			ok, err := t.snapshot(mac, now)
			if err != nil {
				return err
			}
			if !ok {
				continue // no room: at the next tick
			}
		}
		t.due[mac] = r.nextSnapshot(now)
	}
	return nil
}

// nextSnapshot is when the one after a snapshot at now is due.
func (r *Registry) nextSnapshot(now time.Time) time.Time {
	return now.Add(time.Duration(float64(r.o.SnapshotInterval) * (0.9 + 0.2*r.o.Rand())))
}

// firstSnapshot is when the first snapshot of this process is due: an interval
// after the last one, or, of a new session, within the interval's second half,
// so that devices that came together do not stay together.
func (r *Registry) firstSnapshot(rec *record, now time.Time) time.Time {
	interval := r.o.SnapshotInterval
	if rec.SnapshotAt.IsZero() {
		return now.Add(time.Duration(float64(interval) * (0.5 + r.o.Rand()/2)))
	}
	due := rec.SnapshotAt.Add(interval)
	if due.After(now) && due.Before(now.Add(interval)) {
		return due
	}
	return now.Add(time.Duration(float64(min(interval, spreadOverdue)) * r.o.Rand()))
}

// Forget closes the session of a device and removes its record. If the device
// is met again, it opens a new session. It fails with ErrUnknownDevice or, when
// the closed event has no room, with ErrOutboxFull.
func (r *Registry) Forget(ctx context.Context, mac, reason string) error {
	r.write.Lock()
	defer r.write.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.devices[mac] == nil {
		return fmt.Errorf("forget %s: %w", mac, ErrUnknownDevice)
	}
	t := r.begin()
	ok, err := t.close(mac, reason, r.o.Now())
	if err != nil {
		return fmt.Errorf("forget %s: %w", mac, err)
	}
	if !ok {
		return fmt.Errorf("forget %s: %w: %d bytes of events wait for the broker; try again when it took some", mac, ErrOutboxFull, r.bytes)
	}
	return t.commit()
}

// Flush writes what is only in memory: last-seen times and the position.
func (r *Registry) Flush() error {
	r.write.Lock()
	defer r.write.Unlock()
	return r.begin().flush(r.o.Now())
}

// flush commits t with all last-seen times that are not on disk.
func (t *txn) flush(now time.Time) error {
	for mac, e := range t.r.devices {
		if _, staged := t.staged[mac]; !staged && e.last.After(e.rec.Last) {
			t.change(mac)
		}
	}
	if t.empty() && t.position == t.r.saved {
		t.r.nextFlush = now.Add(flushEvery)
		return nil
	}
	if err := t.save(); err != nil {
		return err
	}
	t.r.nextFlush = now.Add(flushEvery)
	return nil
}
