package registry

import (
	"errors"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// appendSnapshot makes the events of what is pending, and a snapshot of the
// whole record. It fails with ErrOutboxFull.
func (t *txn) appendSnapshot(mac string, now time.Time) error {
	if err := t.appendPending(mac); err != nil {
		return err
	}
	rec := t.editRecord(mac)
	e := device.Event{RAE: t.r.o.RAE, Session: rec.Session, Type: device.Snapshot, Seq: rec.Seq + 1, Time: millis(now, now), Seen: t.lastSeen(rec), Attributes: rec.live()}
	if err := t.appendEvent(e, rec); err != nil {
		return err
	}
	rec.Seq, rec.SnapshotAt = e.Seq, e.Time
	return nil
}

// appendDueSnapshots takes the snapshots of the devices in due. It leaves one
// out while the session's last snapshot is still in the outbox: the cloud would
// learn nothing sooner, and an RAE that is cut off for weeks would fill its outbox
// with snapshots.
func (t *txn) appendDueSnapshots(due []string, now time.Time) error {
	r := t.r
	for _, mac := range due {
		rec := t.record(mac)
		if rec.SnapshotKey <= r.ackedKey {
			err := t.appendSnapshot(mac, now)
			if errors.Is(err, ErrOutboxFull) {
				continue // it stays due
			}
			if err != nil {
				return err
			}
		}
		t.snapshotDue[mac] = r.nextSnapshotTime(now)
	}
	return nil
}

// nextSnapshotTime is when the snapshot after one at now is due.
func (r *Registry) nextSnapshotTime(now time.Time) time.Time {
	return now.Add(time.Duration(float64(r.o.SnapshotInterval) * (0.9 + 0.2*r.o.Rand())))
}

// firstSnapshotTime is when the first snapshot of this process is due: an interval
// after the last one, or, of a new session, within the interval's second half,
// so that devices that came together do not stay together.
func (r *Registry) firstSnapshotTime(rec *record, now time.Time) time.Time {
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
