package store

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// The arrays that statements unnest, one for each column.

type attributeColumns struct {
	ids    []uuid.UUID
	names  []string
	values []*string // nil: a tombstone
	seqs   []int64
	ats    []time.Time
}

func (c *attributeColumns) add(id uuid.UUID, attributes map[string]device.Attribute) {
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		a := attributes[name]
		var value *string
		if !a.Removed() {
			s := string(a.Value)
			value = &s
		}
		c.ids, c.names, c.values = append(c.ids, id), append(c.names, name), append(c.values, value)
		c.seqs, c.ats = append(c.seqs, a.Seq), append(c.ats, a.At)
	}
}

type positionColumns struct {
	ids        []uuid.UUID
	topics     []string
	partitions []int32
	nexts      []int64
}

func (c *positionColumns) add(id uuid.UUID, positions []device.Position) {
	slices.SortFunc(positions, func(a, b device.Position) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	for _, p := range positions {
		c.ids, c.topics = append(c.ids, id), append(c.topics, p.Topic)
		c.partitions, c.nexts = append(c.partitions, p.Partition), append(c.nexts, p.Next)
	}
}

type identityColumns struct {
	kinds, values, attributes []string
	devices, sessions         []uuid.UUID
	ats                       []time.Time
}

func (c *identityColumns) add(i ownedClaim) {
	c.kinds, c.values, c.attributes = append(c.kinds, i.kind), append(c.values, i.value), append(c.attributes, i.attribute)
	c.devices, c.sessions, c.ats = append(c.devices, i.device), append(c.sessions, i.session), append(c.ats, i.at)
}

func gapArrays(gaps []gap) (ids []uuid.UUID, from, to []int64, by []string) {
	for _, g := range gaps {
		ids, from, to, by = append(ids, g.session), append(from, g.From), append(to, g.To), append(by, g.by)
	}
	return ids, from, to, by
}

// sessionArrays are the arguments of sqlUpdateSessions.
func sessionArrays(rows []*row) []any {
	return []any{
		column(rows, func(r *row) uuid.UUID { return r.id }),
		column(rows, func(r *row) uuid.UUID { return r.device }),
		column(rows, func(r *row) bool { return r.identified }),
		column(rows, func(r *row) int64 { return r.asOf }),
		column(rows, func(r *row) int64 { return r.snapshot }),
		column(rows, func(r *row) *time.Time { return orNull(r.snapshotAt) }),
		column(rows, func(r *row) string { return r.hash }),
		column(rows, func(r *row) string { return text(r.seen) }),
		column(rows, func(r *row) string { return text(r.missing) }),
		column(rows, func(r *row) int64 { return r.closed }),
		column(rows, func(r *row) string { return r.reason }),
		column(rows, func(r *row) *time.Time { return orNull(r.first) }),
		column(rows, func(r *row) *time.Time { return orNull(r.last) }),
		column(rows, func(r *row) *time.Time { return orNull(r.received) }),
		column(rows, func(r *row) string { return r.status.text }),
		column(rows, func(r *row) int64 { return r.status.seq }),
		column(rows, func(r *row) string { return r.mac.text }),
		column(rows, func(r *row) int64 { return r.mac.seq }),
		column(rows, func(r *row) string { return r.hostname.text }),
		column(rows, func(r *row) int64 { return r.hostname.seq }),
		column(rows, func(r *row) int64 { return r.counters.events }),
		column(rows, func(r *row) int64 { return r.counters.records }),
		column(rows, func(r *row) int64 { return r.counters.duplicates }),
		column(rows, func(r *row) int64 { return r.counters.afterClose }),
		column(rows, func(r *row) int64 { return r.counters.repaired }),
		column(rows, func(r *row) int64 { return r.counters.overLimit }),
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
