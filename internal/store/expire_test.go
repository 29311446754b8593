package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

func execute(t testing.TB, url, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// later is when everything of a test is old.
func later() time.Time { return time.Now().Add(time.Hour) }

// Whatever Kafka still holds may come again after retention has run: applied
// as it was, and worked out anew from what the tables have. The live tables are
// what they were.
func TestReplayAfterRetentionGivesTheSame(t *testing.T) {
	s, _ := open(t)
	rapid.Check(t, func(t *rapid.T) {
		r := &replayer{s: s, rae: "rae-1", states: map[string]*device.State{}, offset: map[string]int64{}}
		id := uuid.NewString()
		history := devicetest.History(r.rae, id, 12).Draw(t, "history")
		delivered := devicetest.Deliver(history).Draw(t, "delivery")
		r.states[id] = &device.State{}
		play := func(events []device.Event) {
			for queues := map[string][]device.Event{id: events}; len(queues[id]) > 0; {
				r.step(t, []string{id}, queues)
			}
		}
		play(delivered)
		_, err := s.Expire(ctx, store.Horizons{History: later(), Tombstones: later()}, 3)
		require.NoError(t, err)
		check := func() {
			model := devicetest.Of(history)
			stored, err := s.Load(ctx, id)
			require.NoError(t, err)
			require.True(t, stored.Found)
			got := stored.State
			require.Equal(t, model.Seq, got.AsOf)
			sameState(t, device.State{Attributes: model.Attributes}, device.State{Attributes: got.Live()})
			require.Equal(t, device.Hash(model.Attributes), device.Hash(got.Attributes))
		}
		check()
		for _, u := range r.sent {
			require.NoError(t, s.Apply(ctx, []store.Update{u}))
		}
		check()
		stored, err := s.Load(ctx, id) // by a worker that knows only the tables
		require.NoError(t, err)
		r.states[id] = &stored.State
		play(devicetest.Deliver(history).Draw(t, "again"))
		check()
	})
}

// From the horizon on history is whole; before it, values are missing and none
// is wrong. The newest change of each attribute stays, however old.
func TestExpireHistory(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	f.rae = "rae-1"
	var days []time.Time
	for n := range int64(6) {
		attributes := map[string]string{"a": string(rune('0' + n))}
		if n == 0 {
			attributes["b"] = `0`
		}
		e := f.event(device.Delta, n+1, attributes)
		if n == 0 {
			e.Type = device.Opened
		}
		apply(t, s, f.update(e))
		days = append(days, epoch.Add(time.Duration(n)*24*time.Hour))
		execute(t, url, `UPDATE attribute_change SET applied_at = $1 WHERE seq = $2`, days[n], n+1)
	}
	gone, err := s.Expire(t.Context(), store.Horizons{History: days[3].Add(time.Hour)}, 2)
	require.NoError(t, err)
	require.Equal(t, int64(3), gone["attribute_change"], "a of days 0 to 2; that of day 3 still held at the horizon")
	show := func(when time.Time) (out string, begins time.Time) {
		r, err := s.AsOf(t.Context(), f.id, when, store.Applied)
		require.NoError(t, err)
		for _, c := range r.Changes {
			out += c.Name + string(c.Attribute.Value)
		}
		return out, r.HistoryBegins
	}
	for when, want := range map[time.Time]string{days[3].Add(time.Hour): "a3b0", days[4]: "a4b0", days[5]: "a5b0"} {
		got, begins := show(when)
		require.Equal(t, want, got)
		require.Zero(t, begins)
	}
	got, begins := show(days[1])
	require.Equal(t, "b0", got)
	require.Equal(t, days[3].Add(time.Hour), begins)

	_, err = s.Expire(t.Context(), store.Horizons{History: days[2]}, 2)
	require.NoError(t, err)
	_, begins = show(days[1])
	require.Equal(t, days[3].Add(time.Hour), begins, "a horizon does not go back")
	_, err = s.Expire(t.Context(), store.Horizons{History: later()}, 2)
	require.NoError(t, err)
	require.Equal(t, 2, query[int](t, url, `SELECT count(*) FROM attribute_change`))
}

// A tombstone leaves when a snapshot holds in its place, and not before it is
// old by the database's clock, whatever the edge's says.
func TestExpireTombstones(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(map[string]string{"a": `1`, "b": `1`})))
	apply(t, s, f.update(f.delta(2, map[string]string{"a": `null`})))
	apply(t, s, f.update(f.snapshot(3, map[string]device.Attribute{"b": value(1, `1`)})))
	apply(t, s, f.update(f.delta(4, map[string]string{"b": `null`})))
	expire := func(h time.Time) int64 {
		gone, err := s.Expire(t.Context(), store.Horizons{Tombstones: h}, 100)
		require.NoError(t, err)
		return gone["device_attribute"]
	}
	require.Zero(t, expire(time.Now().Add(-time.Hour)), "observed long ago, applied just now")
	require.Equal(t, int64(1), expire(later()))
	require.Equal(t, "b", query[string](t, url, `SELECT name FROM device_attribute`), "no snapshot covers it")
}

func TestExpireClosed(t *testing.T) {
	s, url := open(t)
	now := time.Now().UTC()
	closed := func(n int, received time.Time, quarantined ...store.Quarantined) *feed {
		f := newFeed(n)
		e := f.event(device.Closed, 3, nil)
		u := f.update(f.opened(map[string]string{"a": `1`, "network.hostname": `"h"`}), e) // and a gap
		u.Received, u.Quarantined = received, quarantined
		apply(t, s, u)
		return f
	}
	old, fresh := closed(1, now.Add(-200*time.Hour)), closed(2, now.Add(-time.Hour))
	closed(3, now.Add(-200*time.Hour), store.Quarantined{Topic: topic, Cause: "database", At: now})
	live := newFeed(4)
	apply(t, s, live.update(live.opened(nil)))
	for n := range 30 {
		closed(100+n, now.Add(-300*time.Hour))
	}
	horizon := now.Add(-100 * time.Hour)
	gone, err := s.Expire(t.Context(), store.Horizons{Closed: horizon}, 100)
	require.NoError(t, err)
	require.Empty(t, gone, "applied just now: a replay may be under way")

	execute(t, url, `UPDATE device_session SET applied_at = $1`, horizon.Add(-time.Hour))
	gone, err = s.Expire(t.Context(), store.Horizons{Closed: horizon}, 100)
	require.NoError(t, err)
	require.Equal(t, store.Expired{
		"device_session": 31, "device_attribute": 62, "attribute_change": 62, "ingest_position": 31, "network_interface": 31, "session_gap": 31, "quarantined_batch": 0,
	}, gone)
	stored, err := s.Load(t.Context(), old.id)
	require.NoError(t, err)
	require.False(t, stored.Found)
	load(t, s, fresh.id)
	load(t, s, live.id)
	require.Equal(t, 3, query[int](t, url, `SELECT count(*) FROM device_session`), "one has a batch that nobody has dealt with")
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_attribute a WHERE NOT EXISTS (SELECT 1 FROM device_session s WHERE s.session_id = a.session_id)`))
}

// Gaps that ended, and batches that were settled, are history too.
func TestExpireBookkeeping(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(nil)))
	u := f.update(f.delta(3, nil), f.delta(5, nil))
	u.Quarantined = []store.Quarantined{{Topic: topic, First: 1, Cause: "database", At: at(1)}, {Topic: topic, First: 2, Cause: "database", At: at(2)}}
	apply(t, s, u)
	apply(t, s, f.update(f.delta(2, nil)))
	page, _, err := s.ListQuarantine(t.Context(), store.QuarantineFilter{})
	require.NoError(t, err)
	require.NoError(t, s.ResolveQuarantine(t.Context(), []string{page[0].ID}, "x", store.OutcomeDropped))
	gone, err := s.Expire(t.Context(), store.Horizons{History: later()}, 10)
	require.NoError(t, err)
	require.Equal(t, store.Expired{"attribute_change": 0, "session_gap": 1, "quarantined_batch": 1}, gone)
	require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM session_gap`))
	require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM quarantined_batch`))
}
