package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// A quarantined batch is a row of the transaction that steps over it, once
// however often that is applied, also where no position is to be advanced.
func TestQuarantinedIsWrittenOnce(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	q := store.Quarantined{Topic: topic, Partition: 2, First: 4, Last: 9, Cause: "database", Detail: "nul \x00, not UTF-8 \xff " + strings.Repeat("é", 3000), At: at(5)}
	nowhere := store.Quarantined{Cause: "decode", At: at(6)}
	u := store.Update{
		RAE: f.rae, Session: f.id, Positions: []device.Position{{Topic: topic, Partition: 2, Next: 10}},
		Quarantined: []store.Quarantined{q, nowhere, {Cause: "decode", At: at(7)}, q},
	}
	apply(t, s, u)
	apply(t, s, u)
	require.Equal(t, 3, query[int](t, url, `SELECT count(*) FROM quarantined_batch`))
	require.Equal(t, "rae-1 4-9 database", query[string](t, url, `SELECT rae || ' ' || first_offset || '-' || last_offset || ' ' || cause FROM quarantined_batch WHERE topic <> ''`))
	require.LessOrEqual(t, query[int](t, url, `SELECT max(octet_length(detail)) FROM quarantined_batch`), 2000)

	q.First = 5
	apply(t, s, store.Update{RAE: f.rae, Session: f.id, Quarantined: []store.Quarantined{q}})
	require.Equal(t, 4, query[int](t, url, `SELECT count(*) FROM quarantined_batch`), "no position advances")
}

// What is received with a batch is said of each value in it; where the batch's
// time is unknown, the session's newest is as good.
func TestReceivedOfValues(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	u := f.update(f.opened(map[string]string{"a": `1`}))
	u.Received, u.BatchReceived = at(100), at(50)
	apply(t, s, u)
	received := func(table string) time.Time {
		return query[time.Time](t, url, `SELECT max(received_at) FROM `+table).UTC()
	}
	require.Equal(t, at(50), received("device_attribute"))
	require.Equal(t, at(50), received("attribute_change"))
	require.Equal(t, at(100), received("device_session"))
	u = f.update(f.delta(2, map[string]string{"a": `2`}))
	u.Received, u.Stale = at(101), 3
	apply(t, s, u)
	apply(t, s, u)
	require.Equal(t, at(101), received("device_attribute"))
	require.Equal(t, int64(3), query[int64](t, url, `SELECT stale FROM device_session`), "a replay counts nothing")
}
