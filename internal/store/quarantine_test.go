package store_test

import (
	"slices"
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

	q.TopicID = session(90) // the same offsets of a topic that was made again are another batch
	apply(t, s, store.Update{RAE: f.rae, Session: f.id, Quarantined: []store.Quarantined{q}})
	require.Equal(t, session(90), query[string](t, url, `SELECT max(topic_id) FROM quarantined_batch`))

	q.First = 5
	apply(t, s, store.Update{RAE: f.rae, Session: f.id, Quarantined: []store.Quarantined{q}})
	require.Equal(t, 5, query[int](t, url, `SELECT count(*) FROM quarantined_batch`), "no position advances")
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

func TestQuarantineQueries(t *testing.T) {
	s, url := open(t)
	for n := range 3 {
		f := newFeed(n)
		f.rae = []string{"rae-1", "rae-2", "rae-2"}[n]
		apply(t, s, store.Update{RAE: f.rae, Session: f.id, Quarantined: []store.Quarantined{
			{Topic: topic, Partition: 1, First: int64(n), Last: 9, Cause: []string{"database", "decode", "version"}[n], Detail: "why", At: at(int64(n / 2))},
		}})
	}
	list := func(f store.QuarantineFilter) (out []string) {
		page, _, err := s.ListQuarantine(t.Context(), f)
		require.NoError(t, err)
		for _, q := range page {
			out = append(out, q.Cause)
		}
		return out
	}
	all, more, err := s.ListQuarantine(t.Context(), store.QuarantineFilter{})
	require.NoError(t, err)
	require.False(t, more)
	require.Len(t, all, 3)
	require.Equal(t, at(1), all[2].At)
	require.Equal(t, []string{"decode", "version"}, sortedOf(list(store.QuarantineFilter{RAE: "rae-2"})))
	require.Equal(t, []string{"version"}, list(store.QuarantineFilter{Session: session(2)}))
	require.Equal(t, []string{"database", "version"}, sortedOf(list(store.QuarantineFilter{Causes: []string{"database", "version"}})))
	var paged []store.QuarantinedBatch
	for f := (store.QuarantineFilter{Limit: 1}); ; f.After = paged[len(paged)-1].ID {
		page, more, err := s.ListQuarantine(t.Context(), f)
		require.NoError(t, err)
		if paged = append(paged, page...); !more {
			break
		}
	}
	require.Equal(t, all, paged)

	require.NoError(t, s.ResolveQuarantine(t.Context(), []string{all[0].ID}, "someone", store.OutcomeDropped))
	require.Len(t, list(store.QuarantineFilter{}), 2)
	require.Len(t, list(store.QuarantineFilter{Resolved: true}), 3)
	got, err := s.GetQuarantine(t.Context(), []string{all[0].ID})
	require.NoError(t, err)
	require.Equal(t, "someone dropped", got[0].ResolvedBy+" "+got[0].Outcome)
	require.NotZero(t, got[0].ResolvedAt)
	for _, id := range []string{"x", session(77)} {
		_, err = s.GetQuarantine(t.Context(), []string{all[1].ID, id})
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	_, _, err = s.ListQuarantine(t.Context(), store.QuarantineFilter{Session: "x"})
	require.ErrorContains(t, err, "UUID")

	require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM quarantined_batch WHERE outcome = 'dropped'`))
}

func sortedOf(s []string) []string {
	slices.Sort(s)
	return s
}
