package device_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestMergeOfTwoRAEsOrSessionsPanics(t *testing.T) {
	fold := func(rae, session string) device.Fold {
		return device.FoldOf(device.Event{Type: device.Delta, RAE: rae, Session: session, Seq: 1})
	}
	const other = "11111111-3c6e-4f4e-9f3a-0c0f3f0a9b11"
	require.NotPanics(t, func() { device.Merge(fold(rae, session), fold(rae, session)) })
	require.Panics(t, func() { device.Merge(fold(rae, session), fold("RAE-0666", session)) })
	require.Panics(t, func() { device.Merge(fold(rae, session), fold(rae, other)) })
}

func TestForeignPositionsAreKeptApart(t *testing.T) {
	of := func(rae string, last int64) device.Batch {
		return device.Batch{Topic: "t", Partition: 2, First: last, Last: last, Fold: device.Fold{RAE: rae}}
	}
	owner, other := of("RAE-1", 10), of("RAE-2", 12)
	refused := []device.Position{other.Position().Foreign("RAE-2")}
	require.True(t, refused[0].IsForeign())
	require.True(t, other.DoneWith(refused))
	require.False(t, owner.DoneWith(refused), "another RAE's refusal passes nothing of the owner's")
	require.False(t, of("RAE-2", 13).DoneWith(refused))
	require.False(t, of("RAE-3", 11).DoneWith(refused))
	require.False(t, owner.Position().IsForeign())
	require.True(t, owner.DoneWith([]device.Position{owner.Position()}))
}
