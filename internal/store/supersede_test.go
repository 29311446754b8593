package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/store"
)

// An older session is an open one of the same MAC on the same RAE, of which
// nothing was received after the newer one's records.
func TestWhatIsOlderAndWhatIsNot(t *testing.T) {
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
	older := add("rae-1", mac, 10, nil)
	add("rae-1", mac, 10, closed)
	add("rae-2", mac, 10, nil)
	add("rae-1", `"02:00:00:00:00:02"`, 10, nil)
	newer := add("rae-1", mac, 20, nil)
	gone := add("rae-1", mac, 30, closed)
	none, unnamed := add("rae-1", "", 40, nil), add("rae-1", nobody, 40, nil)
	add("rae-1", nobody, 10, nil)

	for id, want := range map[string][]string{newer: {older}, older: nil, gone: nil, none: nil, unnamed: nil, session(999): nil} {
		got, err := s.Older(t.Context(), id)
		require.NoError(t, err)
		if want == nil {
			require.Empty(t, got)
			continue
		}
		require.Equal(t, want, got)
	}
	_, err := s.Older(t.Context(), "x")
	require.Error(t, err)
}
