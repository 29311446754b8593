package device_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestAdvanceNeverGoesBack(t *testing.T) {
	p := device.Position{Topic: "t", Partition: 1, Next: 10}
	positions := device.Advance(nil, p)
	positions = device.Advance(positions, device.Position{Topic: "t", Partition: 1, Next: 4})
	positions = device.Advance(positions, device.Position{Topic: "t", Partition: 2, Next: 4})
	require.Equal(t, []device.Position{p, {Topic: "t", Partition: 2, Next: 4}}, positions)
	require.True(t, device.Reached(positions, p))
	require.False(t, device.Reached(positions, device.Position{Topic: "t", Partition: 2, Next: 5}))
	require.False(t, device.Reached(positions, device.Position{Topic: "u", Partition: 1, Next: 1}))
}

const (
	incarnationA = "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a01"
	incarnationB = "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a02"
)

func TestPositionsAreOfATopicsIncarnation(t *testing.T) {
	a := device.Position{Topic: "t", TopicID: incarnationA, Partition: 1, Next: 10}
	b := device.Position{Topic: "t", TopicID: incarnationB, Partition: 1, Next: 3}
	require.False(t, device.Reached([]device.Position{a}, b))
	require.False(t, device.Reached([]device.Position{a}, device.Position{Topic: "t", Partition: 1, Next: 3}))
	positions := device.Advance([]device.Position{a}, b)
	require.Equal(t, []device.Position{b}, positions, "the new incarnation's takes the place")
	late := a
	late.Next = 4
	positions = device.Advance(positions, late)
	require.Equal(t, []device.Position{late}, positions)
	require.False(t, device.Reached(positions, b), "it is sent again, and not acknowledged for nothing")
}

// Batches of several incarnations come in any order, some of them again. No batch
// is acknowledged that was not applied.
func TestPositionsAcknowledgeOnlyWhatWasApplied(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := []string{"", incarnationA, incarnationB}
		type log struct {
			id        string
			partition int32
		}
		var positions []device.Position
		applied := map[log]int64{} // the next offset; a log's batches are first sent in order
		for range rapid.IntRange(1, 40).Draw(t, "batches") {
			l := log{rapid.SampledFrom(ids).Draw(t, "id"), rapid.Int32Range(0, 1).Draw(t, "partition")}
			next := rapid.Int64Range(1, applied[l]+3).Draw(t, "next") // new, or late
			applied[l] = max(applied[l], next)
			positions = device.Advance(positions, device.Position{Topic: "t", TopicID: l.id, Partition: l.partition, Next: next})

			require.Contains(t, positions, device.Position{Topic: "t", TopicID: l.id, Partition: l.partition, Next: nextOf(positions, l.partition)}, "the newest has its place")
			for _, id := range ids {
				for partition := range int32(2) {
					for next := int64(1); next < 50; next++ {
						if device.Reached(positions, device.Position{Topic: "t", TopicID: id, Partition: partition, Next: next}) {
							require.LessOrEqual(t, next, applied[log{id, partition}])
						}
					}
				}
			}
			require.LessOrEqual(t, len(positions), 2, "one of a partition")
		}
	})
}

func nextOf(positions []device.Position, partition int32) int64 {
	i := slices.IndexFunc(positions, func(p device.Position) bool { return p.Partition == partition })
	return positions[i].Next
}

func TestTopicIDs(t *testing.T) {
	require.Empty(t, device.TopicIDOf([16]byte{}))
	id := device.TopicIDOf([16]byte{1, 2, 3})
	require.Equal(t, "01020300-0000-0000-0000-000000000000", id)
	for s, want := range map[string]bool{"": true, id: true, incarnationA: true, "x": false, "00000000-0000-0000-0000-000000000000": false, "AB" + id[2:]: false} {
		require.Equal(t, want, device.IsTopicID(s), s)
	}
}
