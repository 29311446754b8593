package device_test

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
)

const (
	rae     = "rae-1"
	session = "6f1c1e0e-8b0e-4c58-9d8f-1f2a3b4c5d6e"
)

// foldOf copies the event's map first: Merge may use it.
func foldOf(e device.Event) device.Fold {
	e.Attributes = maps.Clone(e.Attributes)
	return device.FoldOf(e)
}

func foldAll(events []device.Event) device.Fold {
	var f device.Fold
	for _, e := range events {
		f = device.Merge(f, foldOf(e))
	}
	return f
}

// anyHistory draws events that need not fit together: the law must hold for
// whatever an edge may send.
func anyHistory() *rapid.Generator[[]device.Event] {
	one := rapid.Custom(func(t *rapid.T) device.Event {
		seq := rapid.Int64Range(1, 8).Draw(t, "seq")
		e := device.Event{
			RAE: rae, Session: session, Seq: seq, Attributes: map[string]device.Attribute{},
			Type: rapid.SampledFrom([]device.Type{device.Delta, device.Snapshot, device.Closed}).Draw(t, "type"),
			Time: devicetest.Epoch.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "s")) * time.Second),
		}
		if rapid.Bool().Draw(t, "says when seen") {
			e.Seen = devicetest.Epoch.Add(time.Duration(rapid.IntRange(-5, 9).Draw(t, "seen")) * time.Second)
		}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			a := device.Attribute{Seq: seq, At: e.Time, Value: json.RawMessage(rapid.SampledFrom([]string{"null", "1", "2"}).Draw(t, "value"))}
			if e.Type == device.Snapshot {
				a.Seq = rapid.Int64Range(1, seq).Draw(t, "set at")
			}
			e.Attributes[rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")] = a
		}
		return e
	})
	return rapid.SliceOfN(one, 0, 6)
}

func TestMergeIsAssociative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anyHistory().Draw(t, "a"), anyHistory().Draw(t, "b"), anyHistory().Draw(t, "c")
		left := device.Merge(device.Merge(foldAll(a), foldAll(b)), foldAll(c))
		right := device.Merge(foldAll(a), device.Merge(foldAll(b), foldAll(c)))
		requireEqualFolds(t, left, right)
	})
}

func TestMergeIsCommutative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyHistory().Draw(t, "a"), anyHistory().Draw(t, "b")
		requireEqualFolds(t, device.Merge(foldAll(a), foldAll(b)), device.Merge(foldAll(b), foldAll(a)))
	})
}

func TestMergeIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anyHistory().Draw(t, "a")
		requireEqualFolds(t, foldAll(a), device.Merge(foldAll(a), foldAll(a)))
	})
}

// requireEqualFolds compares as JSON, which is how folds travel.
func requireEqualFolds(t require.TestingT, want, got device.Fold) {
	w, err := json.Marshal(want)
	require.NoError(t, err)
	g, err := json.Marshal(got)
	require.NoError(t, err)
	require.JSONEq(t, string(w), string(g))
}

// Any order, grouping and repetition of a lawful history ends in the state that
// reading it once, in order, gives.
func TestStateDoesNotDependOnDelivery(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := devicetest.History(rae, session, 24).Draw(t, "history")
		want := devicetest.Of(history)

		var s device.State
		for rest := devicetest.Deliver(history).Draw(t, "delivery"); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			s.Apply(foldAll(rest[:n]))
			rest = rest[n:]
		}

		require.Equal(t, want.Seq, s.AsOf)
		require.Equal(t, want.Closed, s.Closed != 0)
		require.Empty(t, s.Missing())
		require.Equal(t, device.Hash(want.Attributes), device.Hash(s.Attributes))
		live := s.Live()
		require.Len(t, live, len(want.Attributes))
		for name, a := range want.Attributes {
			require.Truef(t, a.Equal(live[name]), "%s: want %v, got %v", name, a, live[name])
		}
	})
}

// Closes that no edge sent, at any moment, change nothing that events change: the
// state ends as without them, and closed by its edge if that has closed it. Otherwise
// it is closed just while nothing past the last such close has come.
func TestProvisionalClosesLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := devicetest.History(rae, session, 24).Draw(t, "history")
		want := devicetest.Of(history)
		var s device.State
		provisional := int64(0)
		for rest := devicetest.Deliver(history).Draw(t, "delivery"); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			f := foldAll(rest[:n])
			was := s.Provisional
			c := s.Apply(f)
			require.Equal(t, was && f.Seqs.Last() > provisional, c.Reopened)
			require.Zero(t, c.AfterClose, "a lawful edge sends nothing after its own close")
			if c.Reopened {
				provisional = 0
			}
			if rapid.Bool().Draw(t, "close") {
				if s.CloseProvisionally("superseded"); s.Provisional {
					provisional = s.Closed
					require.Equal(t, s.AsOf, s.Closed)
				}
			}
			rest = rest[n:]
		}
		require.Equal(t, want.Seq, s.AsOf)
		require.Empty(t, s.Missing())
		require.Equal(t, device.Hash(want.Attributes), device.Hash(s.Attributes))
		require.Equal(t, want.Closed, s.Final() != 0)
		if !want.Closed {
			require.Equal(t, s.Provisional, s.Closed != 0)
		}
	})
}

// A lawful history whose last event is a snapshot ends right even if any of the
// events before it never come.
func TestSnapshotHealsWhatWasLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := devicetest.History(rae, session, 24).Filter(func(h []device.Event) bool {
			return h[len(h)-1].Type == device.Snapshot
		}).Draw(t, "history")
		want := devicetest.Of(history)

		var s device.State
		for _, e := range history[:len(history)-1] {
			if rapid.Bool().Draw(t, "arrives") {
				s.Apply(foldOf(e))
			}
		}
		missing := s.Missing()
		change := s.Apply(foldOf(history[len(history)-1]))

		require.Empty(t, s.Missing())
		require.Equal(t, device.Hash(want.Attributes), device.Hash(s.Attributes))
		require.True(t, change.Healed.Covers(missing), "healed %v of %v", change.Healed, missing)
	})
}

// A state is the fold of all its events, also where an edge's snapshots
// contradict its deltas and each other: the newest snapshot decides, whatever
// came first. What each is given goes by distinct seqs, and nothing is closed.
func TestStateIsTheFoldOfAnyEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := map[int64]device.Event{}
		for _, e := range anyHistory().Draw(t, "events") {
			if e.Type != device.Closed {
				if e.Type == device.Snapshot {
					maps.DeleteFunc(e.Attributes, func(_ string, a device.Attribute) bool { return a.Removed() })
				}
				events[e.Seq] = e
			}
		}
		all := slices.Collect(maps.Values(events))
		slices.SortFunc(all, func(a, b device.Event) int { return cmp.Compare(a.Seq, b.Seq) })
		var want, got device.State
		want.Apply(foldAll(all))
		for rest := rapid.Permutation(all).Draw(t, "delivery"); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			got.Apply(foldAll(rest[:n]))
			rest = rest[n:]
		}
		require.Equal(t, device.Hash(want.Attributes), device.Hash(got.Attributes))
	})
}

func TestSnapshotCorrectsWhatItContradicts(t *testing.T) {
	x := func(seq int64, value string) map[string]device.Attribute {
		return map[string]device.Attribute{"x": attr(seq, value)}
	}
	for _, tc := range []struct {
		name   string
		events []device.Event
		listed device.Attribute
	}{
		{"another value of the same event", []device.Event{event(device.Delta, 2, x(2, `2`))}, attr(2, `3`)},
		{"an older event", []device.Event{event(device.Delta, 2, x(2, `2`))}, attr(1, `1`)},
		{"what was removed", []device.Event{event(device.Delta, 2, x(2, `null`))}, attr(1, `1`)},
		{"what the snapshot before did not list", []device.Event{event(device.Snapshot, 2, nil)}, attr(1, `1`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s device.State
			s.Apply(foldOf(event(device.Opened, 1, x(1, `1`))))
			for _, e := range tc.events {
				s.Apply(foldOf(e))
			}
			last := map[string]device.Attribute{"x": tc.listed}
			c := s.Apply(foldOf(event(device.Snapshot, 3, last)))
			require.Equal(t, []string{"x"}, c.Corrected)
			require.Equal(t, []string{"x"}, c.Repaired)
			require.True(t, c.Write["x"].Equal(tc.listed))
			require.Equal(t, device.Hash(last), device.Hash(s.Attributes))

			c = s.Apply(foldOf(event(device.Snapshot, 4, last)))
			require.Empty(t, c.Write)
			require.Empty(t, c.Corrected)
		})
	}
	var s device.State
	s.Apply(foldOf(event(device.Delta, 5, x(5, `5`))))
	c := s.Apply(foldOf(event(device.Snapshot, 4, x(1, `1`))))
	require.Empty(t, c.Corrected, "what is newer than the snapshot is none of its business")
	require.Equal(t, `5`, string(s.Attributes["x"].Value))
}

func TestSnapshotOfAWholeHistoryRepairsAndWritesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := devicetest.History(rae, session, 24).Draw(t, "history")
		var s device.State
		for _, e := range history {
			c := s.Apply(foldOf(e))
			require.Empty(t, c.Repaired)
			if e.Type == device.Snapshot {
				require.Empty(t, c.Write)
			}
		}
	})
}

func attr(seq int64, value string) device.Attribute {
	return device.Attribute{Value: json.RawMessage(value), Seq: seq, At: devicetest.Epoch}
}

func event(typ device.Type, seq int64, attributes map[string]device.Attribute) device.Event {
	return device.Event{RAE: rae, Session: session, Type: typ, Seq: seq, Time: devicetest.Epoch, Attributes: attributes}
}

func TestSnapshotNamesWhatItRepaired(t *testing.T) {
	var s device.State
	s.Apply(foldOf(event(device.Opened, 1, map[string]device.Attribute{"kept": attr(1, `1`), "lost": attr(1, `1`), "gone": attr(1, `1`)})))
	// Seq 2 changes "lost" and removes "gone", and never comes.
	s.Apply(foldOf(event(device.Delta, 3, map[string]device.Attribute{"kept": attr(3, `3`)})))
	require.Equal(t, device.SeqSet{{2, 2}}, s.Missing())

	c := s.Apply(foldOf(event(device.Snapshot, 4, map[string]device.Attribute{"kept": attr(3, `3`), "lost": attr(2, `2`)})))
	require.Equal(t, []string{"gone", "lost"}, c.Repaired)
	require.Equal(t, device.SeqSet{{2, 2}}, c.Healed)
	require.Len(t, c.Write, 2)
	require.True(t, c.Write["gone"].Removed())
	require.EqualValues(t, 4, c.Write["gone"].Seq)
}

func TestLateDeltaDoesNotReviveWhatASnapshotDropped(t *testing.T) {
	var s device.State
	s.Apply(foldOf(event(device.Snapshot, 5, nil)))
	c := s.Apply(foldOf(event(device.Delta, 3, map[string]device.Attribute{"x": attr(3, `1`)})))
	require.Empty(t, c.Write)
	require.Empty(t, s.Live())
	require.EqualValues(t, 1, c.Duplicates)
}

func TestClosedIsFinal(t *testing.T) {
	var s device.State
	s.Apply(foldOf(event(device.Opened, 1, map[string]device.Attribute{"x": attr(1, `1`)})))
	s.Apply(foldOf(device.Event{RAE: rae, Session: session, Type: device.Closed, Seq: 3, Time: devicetest.Epoch, Reason: "forgotten"}))

	c := s.Apply(foldOf(event(device.Delta, 4, map[string]device.Attribute{"x": attr(4, `4`)})))
	require.EqualValues(t, 1, c.AfterClose)
	require.Equal(t, `1`, string(s.Attributes["x"].Value))
	require.EqualValues(t, 3, s.AsOf)

	s.Apply(foldOf(event(device.Delta, 2, map[string]device.Attribute{"x": attr(2, `2`)})))
	require.Equal(t, `2`, string(s.Attributes["x"].Value), "an event from before the close still counts")
	require.Empty(t, s.Missing())
}

func TestClosedIsFinalWithinAFoldToo(t *testing.T) {
	var s device.State
	f := device.Merge(
		foldOf(event(device.Opened, 1, map[string]device.Attribute{"x": attr(1, `1`)})),
		foldOf(device.Event{RAE: rae, Session: session, Type: device.Closed, Seq: 2, Time: devicetest.Epoch}))
	c := s.Apply(device.Merge(f, foldOf(event(device.Delta, 3, map[string]device.Attribute{"x": attr(3, `3`), "y": attr(3, `3`)}))))
	require.EqualValues(t, 1, c.AfterClose)
	require.EqualValues(t, 2, s.AsOf)
	require.NotContains(t, s.Attributes, "y")
}

func TestStateRefusesWhatWouldNotFitASnapshot(t *testing.T) {
	var s device.State
	for seq := int64(1); seq <= device.MaxAttributes+10; seq++ {
		name := "n" + string(rune('a'+seq%26)) + string(rune('a'+seq/26))
		c := s.Apply(foldOf(event(device.Delta, seq, map[string]device.Attribute{name: attr(seq, `true`)})))
		if seq > device.MaxAttributes {
			require.Equal(t, []string{name}, c.OverLimit)
		}
	}
	require.Len(t, s.Live(), device.MaxAttributes)
	_, err := event(device.Snapshot, device.MaxAttributes+11, s.Live()).Encode()
	require.NoError(t, err, "the state at its limit fits one event")
}
