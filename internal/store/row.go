package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// row is a row of device_session. It is comparable but for its sets.
type row struct {
	id         uuid.UUID
	rae        string
	device     uuid.UUID
	identified bool

	asOf         int64
	snapshot     int64
	snapshotAt   time.Time
	snapshotHash string
	seen         device.SeqSet
	missing      device.SeqSet
	closedSeq    int64
	closeReason  string
	closeKind    string // closedByEdge or closedByCloud; empty: open

	firstObserved, lastObserved, receivedAt time.Time // zero: unknown
	// changedAt is when Kafka received the newest record that changed something, so
	// no snapshot that only confirms.
	changedAt time.Time

	status, mac, hostname attributeCopy
	counters              Counters
	revision              Revision
}

// Who closed a session. An edge's close is final.
const (
	closedByEdge  = "edge"
	closedByCloud = "cloud"
)

// attributeCopy is a copy of an attribute's text, and the seq it is of.
type attributeCopy struct {
	text string
	seq  int64
}

func (r *row) scan(rows pgx.Rows) error {
	var snapshotAt, first, last, received, changed *time.Time
	var seen, missing []byte
	err := rows.Scan(&r.id, &r.rae, &r.device, &r.identified, &r.asOf, &r.snapshot, &snapshotAt, &r.snapshotHash,
		&seen, &missing, &r.closedSeq, &r.closeReason, &r.closeKind, &first, &last, &received, &changed,
		&r.status.text, &r.status.seq, &r.mac.text, &r.mac.seq, &r.hostname.text, &r.hostname.seq,
		&r.counters.Events, &r.counters.Records, &r.counters.Duplicates, &r.counters.AfterClose, &r.counters.Repaired, &r.counters.OverLimit, &r.counters.Stale,
		&r.revision.Number, &r.revision.ApplyID, &r.counters.Reopened)
	if err != nil {
		return err
	}
	r.snapshotAt, r.firstObserved, r.lastObserved, r.receivedAt = utc(snapshotAt), utc(first), utc(last), utc(received)
	r.changedAt = utc(changed)
	if err := json.Unmarshal(seen, &r.seen); err != nil {
		return fmt.Errorf("session %s: seen: %w", r.id, err)
	}
	if err := json.Unmarshal(missing, &r.missing); err != nil {
		return fmt.Errorf("session %s: missing: %w", r.id, err)
	}
	r.seen, r.missing = r.seen.After(0), r.missing.After(0) // an empty set is nil
	return nil
}

// merge merges u into the row as the union of what both know, so that an update
// that comes late, or again, takes nothing back. It is device.State.Apply's rule
// for the session, on columns.
//
// Requires: the transaction holds the row's lock.
func (r *row) merge(u Update) {
	wasClosed := r.closedSeq
	r.asOf = max(r.asOf, u.AsOf)
	if u.Snapshot > r.snapshot {
		r.snapshot, r.snapshotAt, r.snapshotHash = u.Snapshot, u.SnapshotAt.UTC(), u.Hash
	}
	r.seen = r.seen.Union(u.Seen).After(r.snapshot)
	r.missing = r.seen.Holes(r.snapshot + 1)
	r.mergeClose(u)
	if !u.First.IsZero() && (r.firstObserved.IsZero() || u.First.Before(r.firstObserved)) {
		r.firstObserved = u.First.UTC()
	}
	if u.Last.After(r.lastObserved) {
		r.lastObserved = u.Last.UTC()
	}
	if u.Received.After(r.receivedAt) {
		r.receivedAt = u.Received.UTC()
	}
	if at := u.batchReceived(); at.After(r.changedAt) && (len(u.Write) > 0 || r.closedSeq != wasClosed) {
		r.changedAt = at.UTC()
	}
	r.status.update(u, device.AttrConnectionStatus)
	r.mac.update(u, device.AttrMAC)
	r.hostname.update(u, device.AttrHostname)
	r.hostname.text = strings.ToLower(r.hostname.text)
}

// mergeClose merges the closes. Of two by the edge the earlier one counts. One that
// no edge sent counts while no event past it is known and the edge sent none: so it
// comes and goes the same in whatever order updates are merged.
//
// Requires: r.asOf is that of both.
func (r *row) mergeClose(u Update) {
	switch {
	case u.Closed == 0:
	case u.Provisional:
		if r.closedSeq == 0 || r.closeKind == closedByCloud && u.Closed > r.closedSeq {
			r.closedSeq, r.closeReason, r.closeKind = u.Closed, u.Reason, closedByCloud
		}
	case r.closeKind != closedByEdge || u.Closed < r.closedSeq:
		r.closedSeq, r.closeReason, r.closeKind = u.Closed, u.Reason, closedByEdge
	}
	if r.closeKind == closedByCloud && r.asOf > r.closedSeq {
		r.closedSeq, r.closeReason, r.closeKind = 0, "", ""
	}
}

// writable is what u may write: what a newer snapshot than u's has already
// decided stays as it is, whether that snapshot lists it or not.
func (r *row) writable(u Update) map[string]device.Attribute {
	if u.Snapshot >= r.snapshot {
		return u.Write
	}
	out := make(map[string]device.Attribute, len(u.Write))
	for name, a := range u.Write {
		if a.Seq > r.snapshot {
			out[name] = a
		}
	}
	return out
}

func (r *row) count(u Update) {
	r.counters.Events += u.Events
	r.counters.Records += u.Records
	r.counters.Duplicates += u.Duplicates
	r.counters.AfterClose += u.AfterClose
	r.counters.Repaired += int64(len(u.Repaired))
	r.counters.OverLimit += int64(len(u.OverLimit))
	r.counters.Stale += u.Stale
	r.counters.Reopened += u.Reopened
}

// update copies the attribute if u writes it and it does not lose against seq.
func (c *attributeCopy) update(u Update, name string) {
	a, written := u.Write[name]
	if !written || a.Seq <= c.seq && !u.corrects(name, c.seq) {
		return
	}
	c.text, c.seq = "", a.Seq
	_ = json.Unmarshal(a.Value, &c.text) // what is not a string is not copied
	if len(c.text) > maxCopied {
		c.text = ""
	}
}

// maxCopied is how long a text that is copied may be, in bytes: a DNS name has
// 253. An index takes about 2,700, and a longer one would fail its transaction.
const maxCopied = 256

// state is the row as device.State, without attributes. A session of which
// nothing is applied yet (its batches were refused) is the empty State.
func (r *row) state() device.State {
	if r.asOf == 0 {
		return device.State{}
	}
	return device.State{
		RAE: r.rae, Session: r.id.String(), AsOf: r.asOf, Snapshot: r.snapshot, Hash: r.snapshotHash, SnapshotAt: r.snapshotAt,
		Seen: r.seen, Closed: r.closedSeq, Reason: r.closeReason, Provisional: r.closeKind == closedByCloud, First: r.firstObserved, Last: r.lastObserved,
		Attributes: make(map[string]device.Attribute),
	}
}

// compareGaps returns the ranges that are missing now and were not, and what ended
// those that were missing and are not: events, snapshot, narrowed.
func compareGaps(was, is device.SeqSet, snapshot int64) (opened []device.Range, ended map[device.Range]string) {
	ended = make(map[device.Range]string)
	for _, r := range was {
		ended[r] = "events"
		if r.To <= snapshot {
			ended[r] = "snapshot"
		}
		for _, still := range is {
			if still.From <= r.To && r.From <= still.To {
				ended[r] = "narrowed"
			}
		}
	}
	for _, r := range is {
		if _, ok := ended[r]; ok {
			delete(ended, r)
			continue
		}
		opened = append(opened, r)
	}
	return opened, ended
}

func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func seqSetJSON(s device.SeqSet) string {
	if len(s) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(s) // ranges of integers always encode
	return string(b)
}
