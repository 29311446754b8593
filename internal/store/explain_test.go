package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

func TestExplain(t *testing.T) {
	s, _ := open(t)
	f := newFeed(1)
	u := f.update(f.opened(map[string]string{"a": `1`, "gone": `1`}))
	u.BatchReceived = at(7)
	apply(t, s, u)
	came := func(name string) string {
		e, err := s.Explain(t.Context(), f.id, name)
		require.NoError(t, err)
		require.Len(t, e.Attributes, 1)
		return e.Attributes[0].Carrier
	}
	require.Equal(t, store.CarriedByEvent, came("a"), "every seq has come as an event")

	apply(t, s, f.update(f.delta(4, map[string]string{"b": `4`})))
	apply(t, s, f.update(f.snapshot(6, map[string]device.Attribute{"a": value(1, `1`), "b": value(4, `4`), "c": value(2, `2`)})))
	u = f.update(f.delta(8, map[string]string{"d": `8`}))
	u.Stale, u.Quarantined = 2, []store.Quarantined{{Topic: topic, First: 3, Last: 3, Cause: "database", At: at(8)}}
	apply(t, s, u)
	e, err := s.Explain(t.Context(), f.id, "")
	require.NoError(t, err)
	got := map[string]string{}
	for _, a := range e.Attributes {
		got[a.Name] = a.Event[len(f.id):] + " " + a.Carrier
	}
	require.Equal(t, map[string]string{
		"a":    "/1 ",         // before a snapshot: nothing says whether event 1 came
		"b":    "/4 ",         // the same
		"c":    "/2 snapshot", // 2 was missing until the snapshot
		"d":    "/8 event",    // past the snapshot
		"gone": "/6 snapshot", // which no longer listed it
	}, got)
	require.Equal(t, at(7), e.Attributes[0].ReceivedAt)
	require.Equal(t, map[string]int64{"snapshot": 1, "open": 1}, e.Gaps, "2-3 and 7; of 5 nobody knew before the snapshot came")
	require.Equal(t, store.QuarantineCounter{Batches: 1, Unresolved: 1}, e.Quarantined)
	require.Equal(t, int64(2), e.Counters.Stale)
	require.Equal(t, f.id, e.Session)

	_, err = s.Explain(t.Context(), f.id, "no.such")
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = s.Explain(t.Context(), session(99), "")
	require.ErrorIs(t, err, store.ErrNotFound)
}
