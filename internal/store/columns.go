package store

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// The arrays that statements unnest, one for each column. They are of pgx's own
// types: a slice of uuid.UUID or of pointers is encoded by reflection, and each
// UUID by way of its text, which was half of what Apply cost in this process.

type (
	uuidArray = pgtype.FlatArray[pgtype.UUID]
	textArray = pgtype.FlatArray[pgtype.Text]
	timeArray = pgtype.FlatArray[pgtype.Timestamptz]
)

func uuidOf(id uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }

func uuidsOf(ids []uuid.UUID) uuidArray {
	out := make(uuidArray, len(ids))
	for i, id := range ids {
		out[i] = uuidOf(id)
	}
	return out
}

// nullableTime is null for a time that is unknown, the zero time.
func nullableTime(t time.Time) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}
}

type attributeColumns struct {
	ids    uuidArray
	names  []string
	values textArray // null: a tombstone
	seqs   []int64
	ats    []time.Time
	// received of the batch that brought them; null: unknown
	received timeArray
}

func (c *attributeColumns) add(id uuid.UUID, attributes map[string]device.Attribute, received time.Time) {
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		a := attributes[name]
		var value pgtype.Text
		if !a.Removed() {
			value = pgtype.Text{String: string(a.Value), Valid: true}
		}
		c.ids, c.names, c.values = append(c.ids, uuidOf(id)), append(c.names, name), append(c.values, value)
		c.seqs, c.ats, c.received = append(c.seqs, a.Seq), append(c.ats, a.At), append(c.received, nullableTime(received))
	}
}

// correctionColumns are the writes that a snapshot decides, whatever seq is
// stored up to its own.
type correctionColumns struct {
	attributeColumns
	snapshots []int64
	taken     timeArray // when
}

func (c *correctionColumns) add(id uuid.UUID, u Update) {
	for _, name := range u.Corrected {
		if a, ok := u.Write[name]; ok {
			c.attributeColumns.add(id, map[string]device.Attribute{name: a}, u.batchReceived())
			c.snapshots, c.taken = append(c.snapshots, u.Snapshot), append(c.taken, nullableTime(u.SnapshotAt))
		}
	}
}

type positionColumns struct {
	ids        uuidArray
	topics     []string
	topicIDs   []string
	partitions []int32
	nexts      []int64
}

func (c *positionColumns) add(id uuid.UUID, positions []device.Position) {
	slices.SortFunc(positions, func(a, b device.Position) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	for _, p := range positions {
		c.ids, c.topics, c.topicIDs = append(c.ids, uuidOf(id)), append(c.topics, p.Topic), append(c.topicIDs, p.TopicID)
		c.partitions, c.nexts = append(c.partitions, p.Partition), append(c.nexts, p.Next)
	}
}

func gapArrays(gaps []gap) (ids uuidArray, from, to []int64, by []string) {
	for _, g := range gaps {
		ids, from, to, by = append(ids, uuidOf(g.session)), append(from, g.From), append(to, g.To), append(by, g.endedBy)
	}
	return ids, from, to, by
}

// sessionArrays are the arguments of sqlUpdateSessions.
func sessionArrays(rows []*row) []any {
	return []any{
		uuidArray(column(rows, func(r *row) pgtype.UUID { return uuidOf(r.id) })),
		uuidArray(column(rows, func(r *row) pgtype.UUID { return uuidOf(r.device) })),
		column(rows, func(r *row) bool { return r.identified }),
		column(rows, func(r *row) int64 { return r.asOf }),
		column(rows, func(r *row) int64 { return r.snapshot }),
		timeArray(column(rows, func(r *row) pgtype.Timestamptz { return nullableTime(r.snapshotAt) })),
		column(rows, func(r *row) string { return r.snapshotHash }),
		column(rows, func(r *row) string { return seqSetJSON(r.seen) }),
		column(rows, func(r *row) string { return seqSetJSON(r.missing) }),
		column(rows, func(r *row) int64 { return r.closedSeq }),
		column(rows, func(r *row) string { return r.closeReason }),
		timeArray(column(rows, func(r *row) pgtype.Timestamptz { return nullableTime(r.firstObserved) })),
		timeArray(column(rows, func(r *row) pgtype.Timestamptz { return nullableTime(r.lastObserved) })),
		timeArray(column(rows, func(r *row) pgtype.Timestamptz { return nullableTime(r.receivedAt) })),
		column(rows, func(r *row) string { return r.status.text }),
		column(rows, func(r *row) int64 { return r.status.seq }),
		column(rows, func(r *row) string { return r.mac.text }),
		column(rows, func(r *row) int64 { return r.mac.seq }),
		column(rows, func(r *row) string { return r.hostname.text }),
		column(rows, func(r *row) int64 { return r.hostname.seq }),
		column(rows, func(r *row) int64 { return r.counters.Events }),
		column(rows, func(r *row) int64 { return r.counters.Records }),
		column(rows, func(r *row) int64 { return r.counters.Duplicates }),
		column(rows, func(r *row) int64 { return r.counters.AfterClose }),
		column(rows, func(r *row) int64 { return r.counters.Repaired }),
		column(rows, func(r *row) int64 { return r.counters.OverLimit }),
		column(rows, func(r *row) int64 { return r.counters.Stale }),
		column(rows, func(r *row) int64 { return r.revision.Number }),
		column(rows, func(r *row) string { return r.revision.ApplyID }),
		column(rows, func(r *row) string { return r.closeKind }),
		timeArray(column(rows, func(r *row) pgtype.Timestamptz { return nullableTime(r.changedAt) })),
		column(rows, func(r *row) int64 { return r.counters.Reopened }),
	}
}

func column[T any](rows []*row, field func(*row) T) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = field(r)
	}
	return out
}

func compareUUID(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }
