package store_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// Rivals are open sessions of the same MAC on the same RAE; older is the one of
// which the newest record was received before.
func TestRivals(t *testing.T) {
	s, _ := open(t)
	const mac, nobody = `"02:00:00:00:00:01"`, `"00:00:00:00:00:00"`
	n := 0
	add := func(rae, mac string, received int64, change func(*store.Update)) string {
		n++
		f := newFeed(n)
		f.rae = rae
		e := f.opened(map[string]string{"network.mac": mac})
		if mac == "" {
			e = f.opened(map[string]string{"a": `1`})
		}
		u := f.update(e)
		u.Received = at(received)
		if change != nil {
			change(&u)
		}
		apply(t, s, u)
		return f.id
	}
	closed := func(u *store.Update) { u.Closed = 1 }
	oldest, older := add("rae-1", mac, 5, nil), add("rae-1", mac, 10, nil)
	add("rae-1", mac, 10, closed)
	add("rae-2", mac, 10, nil)
	add("rae-1", `"02:00:00:00:00:02"`, 10, nil)
	newer := add("rae-1", mac, 20, nil)
	gone := add("rae-1", mac, 30, closed)
	none, unnamed := add("rae-1", "", 40, nil), add("rae-1", nobody, 40, nil)
	add("rae-1", nobody, 10, nil)

	for id, want := range map[string]store.Rivals{
		newer: {Older: []string{older, oldest}}, older: {Older: []string{oldest}, Newer: newer}, oldest: {Newer: newer},
		gone: {}, none: {}, unnamed: {}, session(999): {},
	} {
		got, err := s.Rivals(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := s.Rivals(t.Context(), "x")
	require.Error(t, err)
}

// Records that Kafka received in the same moment do not make each of two
// sessions the other's older one: both would be closed. No clock of an edge breaks
// the tie.
func TestOfTwoRivalsOneIsTheOlder(t *testing.T) {
	s, _ := open(t)
	var ids []string
	for n := range 2 {
		f := newFeed(n)
		u := f.update(f.opened(map[string]string{"network.mac": `"02:00:00:00:00:01"`}))
		u.Received, u.First = at(10), at(int64(5+n))
		apply(t, s, u)
		ids = append(ids, f.id)
	}
	slices.Sort(ids)
	first, err := s.Rivals(t.Context(), ids[0])
	require.NoError(t, err)
	require.Equal(t, store.Rivals{Newer: ids[1]}, first)
	second, err := s.Rivals(t.Context(), ids[1])
	require.NoError(t, err)
	require.Equal(t, store.Rivals{Older: ids[:1]}, second)
}

// A snapshot that only confirms does not make a session the newer one.
func TestConfirmationMakesNobodyNewer(t *testing.T) {
	s, _ := open(t)
	dead, live := newFeed(1), newFeed(2)
	u := dead.update(dead.opened(map[string]string{"network.mac": `"02:00:00:00:00:01"`}))
	u.Received = at(10)
	v := live.update(live.opened(map[string]string{"network.mac": `"02:00:00:00:00:01"`}))
	v.Received = at(20)
	apply(t, s, u, v)
	w := dead.update(device.Event{
		RAE: dead.rae, Session: dead.id, Type: device.Snapshot, Seq: 2, Time: at(2),
		Attributes: dead.state.Live(), Hash: device.Hash(dead.state.Live()),
	})
	w.Received = at(500)
	apply(t, s, w)
	rivals, err := s.Rivals(t.Context(), live.id)
	require.NoError(t, err)
	require.Equal(t, store.Rivals{Older: []string{dead.id}}, rivals)
}

// A group in which a session is not new after all: that one is left as it is,
// the others are written, and each learns of its rivals in the same group.
func TestApplyAnswers(t *testing.T) {
	s, _ := open(t)
	const mac = `"02:00:00:00:00:01"`
	first, second, third := newFeed(1), newFeed(2), newFeed(3)
	ask := func(f *feed, mac string, received int64) store.Update {
		u := f.update(f.opened(map[string]string{"network.mac": mac}))
		u.Received, u.New, u.Opens, u.Answer = at(received), true, true, &store.Answer{}
		return u
	}
	u := ask(first, mac, 10)
	apply(t, s, u)
	require.Equal(t, store.Answer{}, *u.Answer)

	again := u
	again.Write = map[string]device.Attribute{"a": value(9, `"worked out from nothing"`)}
	again.Positions = []device.Position{{Topic: topic, Next: 9}}
	newer, alone := ask(second, mac, 20), ask(third, `"02:00:00:00:00:03"`, 20)
	apply(t, s, again, newer, alone)
	require.Equal(t, store.Answer{Known: true}, *again.Answer)
	require.Equal(t, store.Answer{Rivals: store.Rivals{Older: []string{first.id}}}, *newer.Answer)
	require.Equal(t, store.Answer{}, *alone.Answer)
	state, positions := load(t, s, first.id)
	sameState(t, first.state, state)
	require.EqualValues(t, 1, positions[0].Next)

	again.Answer = nil
	require.ErrorIs(t, s.Apply(t.Context(), []store.Update{again}), store.ErrRefused)
}
