package plain

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// schema has the names of the platform's tables, so that the benchmark looks at
// both in the same way.
const schema = `
CREATE TABLE IF NOT EXISTS device_session (
    session_id UUID NOT NULL PRIMARY KEY,
    rae TEXT NOT NULL,
    as_of_seq INT8 NOT NULL, snapshot_seq INT8 NOT NULL, snapshot_hash TEXT NOT NULL, closed_seq INT8 NOT NULL,
    last_observed TIMESTAMPTZ NOT NULL, received_at TIMESTAMPTZ NOT NULL, applied_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS device_session_rae ON device_session (rae);
CREATE TABLE IF NOT EXISTS device_attribute (
    session_id UUID NOT NULL, name TEXT NOT NULL, value JSONB, seq INT8 NOT NULL,
    observed_at TIMESTAMPTZ NOT NULL, applied_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (session_id, name)
);
CREATE TABLE IF NOT EXISTS attribute_change (
    session_id UUID NOT NULL, seq INT8 NOT NULL, name TEXT NOT NULL, value JSONB,
    observed_at TIMESTAMPTZ NOT NULL, applied_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (session_id, seq, name)
)`

const (
	upsertSession = `
INSERT INTO device_session (session_id, rae, as_of_seq, snapshot_seq, snapshot_hash, closed_seq, last_observed, received_at, applied_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now())
ON CONFLICT (session_id) DO UPDATE SET
    as_of_seq = excluded.as_of_seq,
    snapshot_seq = GREATEST(device_session.snapshot_seq, excluded.snapshot_seq),
    snapshot_hash = CASE WHEN excluded.snapshot_seq > 0 THEN excluded.snapshot_hash ELSE device_session.snapshot_hash END,
    closed_seq = excluded.closed_seq, last_observed = excluded.last_observed,
    received_at = excluded.received_at, applied_at = excluded.applied_at
WHERE device_session.as_of_seq < excluded.as_of_seq`

	upsertAttributes = `
WITH written AS (
    INSERT INTO device_attribute (session_id, name, value, seq, observed_at, applied_at)
    SELECT $1, u.name, u.value::JSONB, u.seq, u.observed_at, now()
    FROM (SELECT unnest($2::TEXT[]) AS name, unnest($3::TEXT[]) AS value, unnest($4::INT8[]) AS seq, unnest($5::TIMESTAMPTZ[]) AS observed_at) u
    ON CONFLICT (session_id, name) DO UPDATE SET
        value = excluded.value, seq = excluded.seq, observed_at = excluded.observed_at, applied_at = excluded.applied_at
    WHERE device_attribute.seq < excluded.seq
    RETURNING session_id, name, value, seq, observed_at, applied_at
)
INSERT INTO attribute_change (session_id, seq, name, value, observed_at, applied_at)
SELECT session_id, seq, name, value, observed_at, applied_at FROM written
ON CONFLICT (session_id, seq, name) DO NOTHING`

	// What a snapshot does not list is gone.
	removeOthers = `
UPDATE device_attribute SET value = NULL, seq = $2, observed_at = $3, applied_at = now()
WHERE session_id = $1 AND seq < $2 AND value IS NOT NULL AND name <> ALL($4::TEXT[])`
)

// transaction is the statements of some records, in their order.
type transaction struct{ queue []func(*pgx.Batch) }

func (t *transaction) add(e device.Event, received time.Time) {
	names := slices.Sorted(maps.Keys(e.Attributes))
	values, seqs, ats := make([]*string, len(names)), make([]int64, len(names)), make([]time.Time, len(names))
	for i, name := range names {
		a := e.Attributes[name]
		if !a.Removed() {
			v := string(a.Value)
			values[i] = &v
		}
		seqs[i], ats[i] = a.Seq, a.At
	}
	var snapshot, closed int64
	switch e.Type {
	case device.Snapshot:
		snapshot = e.Seq
	case device.Closed:
		closed = e.Seq
	case device.Opened, device.Delta:
	}
	t.queue = append(t.queue, func(b *pgx.Batch) {
		b.Queue(upsertSession, e.Session, e.RAE, e.Seq, snapshot, e.Hash, closed, e.Time, received)
		if len(names) > 0 {
			b.Queue(upsertAttributes, e.Session, names, values, seqs, ats)
		}
		if snapshot > 0 {
			b.Queue(removeOthers, e.Session, e.Seq, e.Time, names)
		}
	})
}

// run sends all of it in one round trip, as one transaction.
func (t *transaction) run(ctx context.Context, pool *pgxpool.Pool) error {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	for _, queue := range t.queue {
		queue(b)
	}
	b.Queue("COMMIT")
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Release() // closes a connection that is still in a transaction
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}
