package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// live is what a past record shows.
func live(t require.TestingT, s *store.Store, ref string, at time.Time, by store.Clock) map[string]device.Attribute {
	r, err := s.AsOf(ctx, ref, at, by)
	require.NoError(t, err)
	require.Empty(t, r.Unrecorded)
	out := map[string]device.Attribute{}
	for _, c := range r.Changes {
		if !c.Attribute.Removed() {
			out[c.Name] = c.Attribute
		}
	}
	return out
}

func same(t require.TestingT, want, got map[string]device.Attribute) {
	sameState(t, device.State{Attributes: want}, device.State{Attributes: got})
}

// As of any time, by the edge's clock: what a naive reader of the events up to
// then has. By the database's: what a query showed then, whatever the order of
// arrival.
func TestAsOfIsWhatTheModelHad(t *testing.T) {
	s, url := open(t)
	tb, run := t, 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		f, late := newFeed(2*run), newFeed(2*run+1)
		events := devicetest.History(f.rae, f.id, 10).Draw(t, "history")
		for _, e := range events {
			require.NoError(t, s.Apply(ctx, []store.Update{f.update(e)}))
		}
		var m devicetest.Model
		for i, e := range events {
			m.Take(e)
			if i+1 < len(events) && events[i+1].Time.Equal(e.Time) {
				continue // the later of the two holds
			}
			same(t, m.Attributes, live(t, s, f.id, e.Time, store.Observed))
		}
		require.Empty(t, live(t, s, f.id, devicetest.Epoch.Add(-time.Second), store.Observed))

		type moment struct {
			at   time.Time
			live map[string]device.Attribute
		}
		var moments []moment
		for _, e := range devicetest.Deliver(devicetest.History(late.rae, late.id, 8).Draw(t, "history")).Draw(t, "delivery") {
			require.NoError(t, s.Apply(ctx, []store.Update{late.update(e)}))
			stored, err := s.Load(ctx, late.id)
			require.NoError(t, err)
			moments = append(moments, moment{query[time.Time](tb, url, `SELECT clock_timestamp()`), stored.State.Live()})
		}
		for _, m := range moments {
			same(t, m.live, live(t, s, late.id, m.at, store.Applied))
		}
	})
}

// What came late counts from when it was observed; what lost, not at all.
func TestAsOfWithLateEvents(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(map[string]string{"a": `1`})))
	apply(t, s, f.update(f.delta(4, map[string]string{"a": `4`})))
	before := query[time.Time](t, url, `SELECT clock_timestamp()`)
	apply(t, s, f.update(f.delta(2, map[string]string{"a": `2`, "b": `2`, "c": `2`})))
	apply(t, s, f.update(f.snapshot(6, map[string]device.Attribute{"a": value(4, `4`), "b": value(2, `2`), "d": value(3, `3`)})))
	names := func(at time.Time, by store.Clock) (out []string) {
		r, err := s.AsOf(t.Context(), f.id, at, by)
		require.NoError(t, err)
		for _, c := range r.Changes {
			out = append(out, c.Name+"="+string(c.Attribute.Value))
		}
		return out
	}
	require.Equal(t, []string{"a=1", "b=2", "c=2", "d=3"}, names(at(3), store.Observed), "d came with a snapshot, and was there; a=2 lost")
	require.Equal(t, []string{"a=4", "b=2", "c=2", "d=3"}, names(at(5), store.Observed))
	require.Equal(t, []string{"a=4", "b=2", "c=null", "d=3"}, names(at(6), store.Observed), "a removal is shown as such")
	require.Equal(t, []string{"a=4"}, names(before, store.Applied), "what the platform knew")
}

// Of a device with several sessions, the record is of the one that began last.
func TestAsOfOfDevice(t *testing.T) {
	s, _ := open(t)
	first, second := newFeed(1), newFeed(2)
	mac := map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`}
	apply(t, s, first.update(first.opened(mac)))
	e := second.opened(mac)
	e.Time = at(100)
	e.Attributes["network.mac"] = device.Attribute{Value: e.Attributes["network.mac"].Value, Seq: 1, At: at(100)}
	apply(t, s, second.update(e))
	of := func(ref string, seconds int64) string {
		r, err := s.AsOf(t.Context(), ref, at(seconds), store.Observed)
		require.NoError(t, err)
		return r.Session
	}
	require.Empty(t, of("9c:b6:d0:00:00:01", 0))
	require.Equal(t, first.id, of("9c:b6:d0:00:00:01", 50))
	require.Equal(t, second.id, of("9c:b6:d0:00:00:01", 100))
	require.Equal(t, first.id, of(first.id, 100), "the session that was named")
	_, err := s.AsOf(t.Context(), uuid.NewString(), at(1), store.Observed)
	require.ErrorIs(t, err, store.ErrNotFound)
}

// What was applied while no history was kept is named: the answer is not sure.
func TestNoHistory(t *testing.T) {
	s, url := open(t)
	none, err := store.Open(t.Context(), store.Options{URL: url, NoHistory: true, Tracer: &used})
	require.NoError(t, err)
	defer none.Close()
	f := newFeed(1)
	apply(t, s, f.update(f.opened(map[string]string{"a": `1`, "b": `1`})))
	apply(t, none, f.update(f.delta(2, map[string]string{"a": `2`})))
	got, _ := load(t, s, f.id)
	sameState(t, f.state, got)
	require.Equal(t, 2, query[int](t, url, `SELECT count(*) FROM attribute_change`))
	r, err := s.AsOf(t.Context(), f.id, at(9), store.Observed)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, r.Unrecorded)
}
