package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestKnown(t *testing.T) {
	s, _ := open(t)
	f, closed := newFeed(1), newFeed(2)
	apply(t, s, f.update(f.opened(nil)), closed.update(closed.opened(nil), closed.event(device.Closed, 3, nil)))
	apply(t, s, f.update(f.delta(4, nil)))
	apply(t, s, f.update(f.snapshot(6, map[string]device.Attribute{})))
	apply(t, s, f.update(f.delta(9, nil)))
	got, err := s.Known(t.Context(), []string{f.id, closed.id, session(99)})
	require.NoError(t, err)
	require.Equal(t, map[string]device.SeqSet{
		f.id:      {{From: 1, To: 6}, {From: 9, To: 9}},
		closed.id: {{From: 1, To: 1}, {From: 3, To: device.MaxSeq}},
	}, got)
	_, err = s.Known(t.Context(), []string{"x"})
	require.Error(t, err)
}
