package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// on makes u one that builds on base.
func on(base store.Revision, id string, u store.Update) store.Update {
	u.ID, u.Base, u.Answer = id, base, &store.Answer{}
	return u
}

func TestApplyIsOnTheRowItBuildsOn(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	first := on(store.Revision{}, "one", f.update(f.opened(map[string]string{"a": `1`})))
	second := on(store.Revision{Number: 1, ApplyID: "one"}, "two", f.update(f.delta(2, map[string]string{"a": `2`})))
	third := on(store.Revision{Number: 2, ApplyID: "two"}, "three", f.update(f.delta(3, map[string]string{"a": `3`})))
	stored := func() store.Stored {
		out, err := s.Load(t.Context(), f.id)
		require.NoError(t, err)
		return out
	}

	apply(t, s, second)
	require.True(t, second.Answer.Mismatch, "there is no row")
	require.False(t, stored().Found)

	apply(t, s, first)
	apply(t, s, second)
	require.False(t, second.Answer.Mismatch)
	require.Equal(t, store.Revision{Number: 2, ApplyID: "two"}, stored().Revision)
	before := stored()

	// Its answer was lost, and it comes again.
	apply(t, s, second)
	require.False(t, second.Answer.Mismatch)
	require.Equal(t, before, stored(), "nothing is counted twice")

	other := on(store.Revision{Number: 1, ApplyID: "one"}, "other", third)
	for name, u := range map[string]store.Update{
		"an older one":                       first,
		"another on the same row":            other,
		"one that is ahead":                  on(store.Revision{Number: 3, ApplyID: "x"}, "y", third),
		"the same number of another history": on(store.Revision{Number: 2, ApplyID: "other"}, "y", third),
	} {
		apply(t, s, u)
		require.True(t, u.Answer.Mismatch, name)
		require.Equal(t, before, stored(), name)
	}

	// In a group each is judged alone.
	g := newFeed(2)
	apply(t, s, other, on(store.Revision{}, "one", g.update(g.opened(nil))))
	require.Equal(t, before, stored())
	require.Equal(t, int64(1), query[int64](t, url, `SELECT revision FROM device_session WHERE session_id = $1`, g.id))

	apply(t, s, third)
	require.EqualValues(t, 3, stored().Revision.Number)
	require.EqualValues(t, 3, stored().Counters.Events)

	// An apply that moves no position counts too, once.
	quarantines := on(stored().Revision, "four", store.Update{
		RAE: f.rae, Session: f.id, AfterClose: 2, Quarantined: []store.Quarantined{{Cause: "payload", At: at(1)}},
	})
	apply(t, s, quarantines)
	apply(t, s, quarantines)
	require.EqualValues(t, 2, stored().Counters.AfterClose)
	require.EqualValues(t, 4, stored().Revision.Number)

	// One that names no apply is written all the same, and is noticed by the next.
	apply(t, s, f.update(f.delta(4, map[string]string{"a": `4`})))
	require.Equal(t, store.Revision{Number: 5}, stored().Revision)
	next := on(store.Revision{Number: 4, ApplyID: "four"}, "five", f.update(f.delta(5, nil)))
	apply(t, s, next)
	require.True(t, next.Answer.Mismatch)

	err := s.Apply(t.Context(), []store.Update{{RAE: f.rae, Session: f.id, ID: "x"}})
	require.ErrorIs(t, err, store.ErrRefused, "an answer is needed")
}

// A new session whose first apply comes again finds it done.
func TestNewSessionWhoseAnswerIsLost(t *testing.T) {
	s, _ := open(t)
	f := newFeed(1)
	u := on(store.Revision{}, "one", f.update(f.opened(map[string]string{device.AttrMAC: `"4c:b1:17:00:00:01"`})))
	u.New, u.Opens = true, true
	for range 2 {
		apply(t, s, u)
		require.False(t, u.Answer.Known)
		require.False(t, u.Answer.Mismatch)
	}
	other := u
	other.ID, other.Answer = "two", &store.Answer{}
	apply(t, s, other)
	require.True(t, other.Answer.Known)
	require.False(t, other.Answer.Mismatch)
	stored, err := s.Load(t.Context(), f.id)
	require.NoError(t, err)
	require.Equal(t, store.Revision{Number: 1, ApplyID: "one"}, stored.Revision)
	require.EqualValues(t, 1, stored.Counters.Events)
}
