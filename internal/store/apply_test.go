package store_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

func TestLoadGivesBackTheState(t *testing.T) {
	s, _ := open(t)
	f := newFeed(1)
	stored, err := s.Load(t.Context(), f.id)
	require.NoError(t, err)
	require.False(t, stored.Found)

	apply(t, s, f.update(
		f.opened(map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`, "network.ipv4": `"192.168.7.2"`, "x": `[1,{"k":true}]`}),
		f.delta(2, map[string]string{"network.ipv4": `"192.168.7.3"`, "x": `null`}),
		f.delta(5, map[string]string{"y": `1.5e+300`}),
	))
	got, positions := load(t, s, f.id)
	sameState(t, f.state, got)
	require.Equal(t, device.SeqSet{{From: 3, To: 4}}, got.Missing())
	require.Equal(t, []device.Position{{Topic: topic, Partition: 3, Next: 3}}, positions)
}

// An attribute is written only where its seq is newer, and a tombstone is a
// row: what is older than the removal stays removed.
func TestUpsertIsConditionalOnSeq(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	base := f.update(f.opened(map[string]string{"a": `"one"`}))
	apply(t, s, base)
	write := func(seq int64, v string) {
		u := base
		u.AsOf, u.Write = seq, map[string]device.Attribute{"a": value(seq, v)}
		apply(t, s, u)
	}
	now := func() string {
		return query[string](t, url, `SELECT coalesce(value::TEXT, 'removed') || '@' || seq FROM device_attribute WHERE name = 'a'`)
	}
	write(5, `"five"`)
	require.Equal(t, `"five"@5`, now())
	write(4, `"four"`)
	require.Equal(t, `"five"@5`, now())
	write(7, `null`)
	require.Equal(t, `removed@7`, now())
	write(6, `"six"`)
	require.Equal(t, `removed@7`, now())
	write(7, `"also seven"`)
	require.Equal(t, `removed@7`, now(), "equal is not newer")
	require.Equal(t, int64(7), query[int64](t, url, `SELECT as_of_seq FROM device_session`), "as_of does not go back")
	require.Equal(t, "1,5,7", query[string](t, url, `SELECT string_agg(seq::TEXT, ',' ORDER BY seq) FROM attribute_change`),
		"what was not written is not history")
}

// What a stored snapshot has decided is not changed by an update that does not
// know the snapshot, even where no row remembers the attribute.
func TestSnapshotGuard(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	late := *f // a worker that knows only the first event
	first := f.update(f.opened(map[string]string{"a": `1`}))
	apply(t, s, first)
	late.update(late.opened(map[string]string{"a": `1`}))
	apply(t, s, f.update(f.snapshot(9, map[string]device.Attribute{"a": value(1, `1`)})))

	apply(t, s, late.update(late.delta(4, map[string]string{"ghost": `true`})))
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_attribute WHERE name = 'ghost'`))
	apply(t, s, late.update(late.delta(12, map[string]string{"new": `true`})))
	got, _ := load(t, s, f.id)
	require.Equal(t, int64(9), got.Snapshot, "and the snapshot stays")
	require.Equal(t, device.SeqSet{{From: 10, To: 11}}, got.Missing())
	require.Contains(t, got.Attributes, "new")
}

func TestSnapshotTombstonesWhatItDoesNotList(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(map[string]string{"a": `1`, "b": `2`})))
	apply(t, s, f.update(f.snapshot(4, map[string]device.Attribute{"a": value(1, `1`)})))
	require.Equal(t, int64(4), query[int64](t, url, `SELECT seq FROM device_attribute WHERE name = 'b' AND value IS NULL`))
	got, _ := load(t, s, f.id)
	sameState(t, f.state, got)
	require.NotContains(t, got.Attributes, "b", "a state holds no tombstone that its snapshot covers")
}

func TestPositionsOnlyAdvance(t *testing.T) {
	s, _ := open(t)
	f := newFeed(1)
	u := f.update(f.opened(nil))
	u.Positions = []device.Position{{Topic: topic, Partition: 1, Next: 10}, {Topic: topic, Partition: 0, Next: 7}, {Topic: topic, Partition: 1, Next: 12}}
	apply(t, s, u)
	u.Positions = []device.Position{{Topic: topic, Partition: 1, Next: 5}, {Topic: topic, Partition: 0, Next: 8}}
	apply(t, s, u)
	got, err := s.Positions(t.Context(), []string{f.id, session(404)})
	require.NoError(t, err)
	require.Equal(t, map[string][]device.Position{
		f.id: {{Topic: topic, Partition: 0, Next: 8}, {Topic: topic, Partition: 1, Next: 12}},
	}, got)

	// A topic that was made again: its position takes the place of the old one's,
	// wherever that was, and the other way round where a late batch comes.
	for _, id := range []string{session(90), session(91), session(90)} {
		u.Positions = []device.Position{{Topic: topic, TopicID: id, Partition: 1, Next: 3}}
		apply(t, s, u)
		got, err = s.Positions(t.Context(), []string{f.id})
		require.NoError(t, err)
		require.Equal(t, []device.Position{{Topic: topic, Partition: 0, Next: 8}, u.Positions[0]}, got[f.id])
	}
	u.Positions[0].Next = 2
	apply(t, s, u)
	got, err = s.Positions(t.Context(), []string{f.id})
	require.NoError(t, err)
	require.EqualValues(t, 3, got[f.id][1].Next)

	none, err := s.Positions(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = s.Positions(t.Context(), []string{"no UUID"})
	require.Error(t, err)
}

// A replay advances no position, and so counts nothing; nor does it touch a row.
func TestReplayCountsNothing(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	u := f.update(f.opened(map[string]string{"a": `1`}), f.delta(2, map[string]string{"a": `2`}))
	u.Repaired, u.OverLimit = []string{"a"}, []string{"b", "c"}
	apply(t, s, u)
	count := func() string {
		return query[string](t, url, `SELECT concat_ws(',', events, records, duplicates, after_close, repaired, over_limit) FROM device_session`)
	}
	require.Equal(t, "2,2,0,0,1,2", count())
	before := query[string](t, url, `SELECT applied_at::TEXT FROM device_session`)
	apply(t, s, u)
	require.Equal(t, "2,2,0,0,1,2", count())
	require.Equal(t, before, query[string](t, url, `SELECT applied_at::TEXT FROM device_session`))
	require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM attribute_change`))
}

func TestGroupIsOneTransaction(t *testing.T) {
	s, url := open(t)
	var group []store.Update
	for n := range 5 {
		f := newFeed(n)
		group = append(group, f.update(f.opened(map[string]string{"a": `1`})))
	}
	apply(t, s, group...)
	require.Equal(t, 5, query[int](t, url, `SELECT count(*) FROM device_session`))

	for i := range group {
		group[i].AsOf, group[i].Positions[0].Next = 2, 2
		group[i].Write = map[string]device.Attribute{"a": value(2, `2`)}
	}
	group[3].Write = map[string]device.Attribute{"a": value(2, `"nul \u0000"`)}
	err := s.Apply(t.Context(), group)
	require.ErrorIs(t, err, store.ErrRefused)
	require.Equal(t, int64(1), query[int64](t, url, `SELECT max(seq) FROM device_attribute`), "all or none")
	apply(t, s, append(group[:3:3], group[4])...)
	require.Equal(t, 4, query[int](t, url, `SELECT count(*) FROM device_attribute WHERE seq = 2`), "the connection is usable")

	require.NoError(t, s.Apply(t.Context(), nil))
}

func TestRefusals(t *testing.T) {
	s, _ := open(t)
	f := newFeed(1)
	good := f.update(f.opened(nil))
	apply(t, s, good)
	for name, break_ := range map[string]func(u *store.Update){
		"session":   func(u *store.Update) { u.Session = "x" },
		"empty RAE": func(u *store.Update) { u.RAE = "" },
		"other RAE": func(u *store.Update) { u.RAE = "rae-2" },
		"topic ID":  func(u *store.Update) { u.Positions = []device.Position{{Topic: topic, TopicID: "x", Next: 1}} },
		"position":  func(u *store.Update) { u.Positions = []device.Position{{Topic: "", Next: 1}} },
		"not JSON":  func(u *store.Update) { u.Write = map[string]device.Attribute{"a": value(2, `{`)} },
		"not UTF-8": func(u *store.Update) { u.AsOf, u.Closed, u.Reason = 3, 3, "\xff" },
		"NUL":       func(u *store.Update) { u.AsOf, u.Closed, u.Reason = 3, 3, "a\x00b" },
	} {
		t.Run(name, func(t *testing.T) {
			u := good
			break_(&u)
			err := s.Apply(t.Context(), []store.Update{u})
			require.ErrorIs(t, err, store.ErrRefused)
			require.False(t, store.Retryable(err))
		})
	}
	require.ErrorIs(t, s.Apply(t.Context(), []store.Update{good, good}), store.ErrRefused, "a session twice")
}

// A session whose first batches were all refused has a row with positions, so
// that the poller is not stuck, and no state.
func TestStepOverOnly(t *testing.T) {
	s, _ := open(t)
	f := newFeed(1)
	apply(t, s, store.Update{RAE: f.rae, Session: f.id, Positions: []device.Position{{Topic: topic, Partition: 2, Next: 5}}})
	got, positions := load(t, s, f.id)
	require.Equal(t, device.State{}, got)
	require.Len(t, positions, 1)
	apply(t, s, f.update(f.opened(map[string]string{"a": `1`})))
	got, positions = load(t, s, f.id)
	sameState(t, f.state, got)
	require.Len(t, positions, 2)
}

func TestGaps(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	gaps := func() string {
		return query[string](t, url, `SELECT coalesce(string_agg(from_seq || '-' || to_seq || ' ' || CASE WHEN ended_at IS NULL THEN 'open' ELSE ended_by END, ', ' ORDER BY from_seq, to_seq), '') FROM session_gap`)
	}
	apply(t, s, f.update(f.opened(nil)))
	require.Empty(t, gaps())
	apply(t, s, f.update(f.delta(6, nil), f.delta(9, nil)))
	require.Equal(t, "2-5 open, 7-8 open", gaps())
	apply(t, s, f.update(f.delta(3, nil)))
	require.Equal(t, "2-2 open, 2-5 narrowed, 4-5 open, 7-8 open", gaps())
	apply(t, s, f.update(f.delta(2, nil)))
	require.Equal(t, "2-2 events, 2-5 narrowed, 4-5 open, 7-8 open", gaps())
	apply(t, s, f.update(f.snapshot(12, map[string]device.Attribute{})))
	require.Equal(t, "2-2 events, 2-5 narrowed, 4-5 snapshot, 7-8 snapshot", gaps())
}

func TestClosed(t *testing.T) {
	s, _ := open(t)
	f := newFeed(1)
	closed := f.event(device.Closed, 3, nil)
	closed.Reason = "forgotten"
	apply(t, s, f.update(f.opened(map[string]string{"a": `1`}), f.delta(2, nil), closed))
	got, _ := load(t, s, f.id)
	sameState(t, f.state, got)
	require.Equal(t, "forgotten", got.Reason)
}

// A name may be longer than an index takes: it is kept, and not looked up by.
func TestLongNames(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	long := make([]byte, 6000) // what does not compress
	for i := range long {
		long[i] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[rand.N(62)]
	}
	text := `"` + string(long) + `"`
	apply(t, s, f.update(f.opened(map[string]string{
		"network.hostname": text, "network.mac": text, "connection.status": text, "netflix.esn": text, "device.serial": text,
	})))
	got, _ := load(t, s, f.id)
	sameState(t, f.state, got)
	require.Empty(t, query[string](t, url, `SELECT hostname || mac || connection_status FROM device_session`))

	// What an index will never take is refused: tried for ever, it would hold up
	// all that share its transactions.
	execute(t, url, `CREATE INDEX ON device_attribute ((value #>> '{}')) WHERE name = 'a'`)
	f = newFeed(2)
	err := s.Apply(t.Context(), []store.Update{f.update(f.opened(map[string]string{"a": `"x` + string(long[1:]) + `"`}))})
	require.ErrorIs(t, err, store.ErrRefused)
}
