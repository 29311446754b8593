package identity_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/identity"
	"github.com/rollcall-platform/rollcall/internal/identity/identitytest"
)

// play gives the world the sessions' updates, each session's in their order, in
// groups that are drawn.
func play(t *rapid.T, sessions []identitytest.Session, group func(sessions []int, next func(n int) map[string]string)) {
	done := make([]int, len(sessions))
	next := func(n int) map[string]string {
		attributes := map[string]string{}
		for attribute, name := range sessions[n][done[n]] {
			attributes[attribute] = identitytest.Value("run", attribute, name)
		}
		return attributes
	}
	for {
		var left []int
		for n := range sessions {
			if done[n] < len(sessions[n]) {
				left = append(left, n)
			}
		}
		if len(left) == 0 {
			return
		}
		of := rapid.SliceOfNDistinct(rapid.SampledFrom(left), 1, len(left), rapid.ID).Draw(t, "group")
		group(of, next)
		for _, n := range of {
			done[n]++
		}
	}
}

// Whatever the order, sessions are grouped as the model says, once conflicts are
// decided by merging.
func TestGroupingDoesNotDependOnOrder(t *testing.T) {
	pairs, conflicts := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		sessions := identitytest.Sessions(8).Draw(t, "sessions")
		w := newWorld()
		play(t, sessions, func(group []int, next func(int) map[string]string) {
			var updates []identity.Session
			for _, n := range group {
				updates = append(updates, w.update(n, next(n)))
			}
			w.judge(t, updates...)
		})
		connected := identitytest.Connected(sessions)
		for i := range sessions {
			for j := range i {
				require.False(t, connected[i] != connected[j] && w.device(i) == w.device(j), "nothing connects sessions %d and %d", j, i)
			}
		}
		conflicts += w.decideAll(t)
		want := identitytest.Groups(sessions)
		for i := range sessions {
			for j := range i {
				if want[i] == "" || want[j] == "" {
					continue
				}
				pairs++
				require.Equal(t, want[i] == want[j], w.device(i) == w.device(j), "sessions %d and %d", j, i)
			}
		}
	})
	require.Positive(t, pairs)
	require.Positive(t, conflicts)
}

// Weak evidence never merges known devices, and never takes evidence from one: what
// leads to two of them is a conflict, whatever the order. So a chain of conflicts
// connects the devices of sessions that share weak evidence.
func TestWeakEvidenceMergesNothing(t *testing.T) {
	conflicts := 0
	rapid.Check(t, func(t *rapid.T) {
		sessions := identitytest.WeakOnly(identitytest.Sessions(8).Draw(t, "sessions"))
		w := newWorld()
		play(t, sessions, func(group []int, next func(int) map[string]string) {
			var updates []identity.Session
			for _, n := range group {
				updates = append(updates, w.update(n, next(n)))
			}
			known := map[uuid.UUID]bool{}
			for _, owner := range w.owners {
				known[owner] = true
			}
			d := w.judge(t, updates...)
			for _, m := range d.Merges {
				require.False(t, known[m.From], "a known device was merged away")
			}
			require.Empty(t, d.Reassigned)
		})
		chain := map[uuid.UUID]uuid.UUID{}
		root := func(id uuid.UUID) uuid.UUID {
			for chain[id] != uuid.Nil {
				id = chain[id]
			}
			return id
		}
		for _, c := range w.conflicts {
			conflicts++
			if a, b := root(c.Device), root(c.Other); a != b {
				chain[a] = b
			}
		}
		connected := identitytest.Connected(sessions)
		for i := range sessions {
			for j := range i {
				require.Equal(t, connected[i] == connected[j], root(w.device(i)) == root(w.device(j)), "sessions %d and %d", j, i)
			}
		}
	})
	require.Positive(t, conflicts)
}

// Those that share strong evidence are one device once conflicts are merged, and
// until then a chain of open conflicts connects their devices.
func TestSharedStrongEvidenceIsOneDevice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sessions := identitytest.Sessions(8).Draw(t, "sessions")
		w := newWorld()
		brought := map[identity.Evidence][]uuid.UUID{} // by whom
		play(t, sessions, func(group []int, next func(int) map[string]string) {
			var updates []identity.Session
			for _, n := range group {
				u := w.update(n, next(n))
				updates = append(updates, u)
				for name, a := range u.Written {
					for _, e := range identity.Read(name, a) {
						if e.Strong() {
							brought[e] = append(brought[e], u.ID)
						}
					}
				}
			}
			w.judge(t, updates...)
		})
		connected := map[uuid.UUID]uuid.UUID{}
		root := func(id uuid.UUID) uuid.UUID {
			for connected[id] != uuid.Nil {
				id = connected[id]
			}
			return id
		}
		for _, c := range w.conflicts {
			if a, b := root(c.Device), root(c.Other); a != b {
				connected[a] = b
			}
		}
		for e, by := range brought {
			for _, id := range by {
				require.Equal(t, root(w.owners[e]), root(w.sessions[id].device), "before the decisions: %v", e)
				require.True(t, w.sessions[id].identified)
			}
		}
		w.decideAll(t)
		for e, by := range brought {
			for _, id := range by {
				require.Equal(t, w.owners[e], w.sessions[id].device, "after the decisions: %v", e)
			}
		}
	})
}

// A group is judged as its sessions would be one by one, in the order of their
// identifiers, whatever their order in the group; and facts about other devices
// change nothing.
func TestGroupIsJudgedInOrder(t *testing.T) {
	groups := 0
	rapid.Check(t, func(t *rapid.T) {
		sessions := identitytest.Sessions(8).Draw(t, "sessions")
		w := newWorld()
		play(t, sessions, func(group []int, next func(int) map[string]string) {
			alone := w.clone()
			var updates []identity.Session
			for _, n := range group {
				updates = append(updates, w.update(n, next(n)))
			}
			again := slices.Clone(updates)
			d := identity.Judge(w.facts(updates...), updates)
			slices.Reverse(again)
			require.Equal(t, d, identity.Judge(w.facts(again...), again), "another order")
			require.Equal(t, d, identity.Judge(w.allFacts(), updates), "more facts")
			w.do(t, updates, d)

			slices.SortFunc(group, func(a, b int) int {
				x, y := sessionID(a), sessionID(b)
				return slices.Compare(x[:], y[:])
			})
			for _, n := range group {
				alone.judge(t, alone.update(n, next(n)))
			}
			require.Equal(t, w.sessions, alone.sessions)
			require.Equal(t, w.owners, alone.owners)
			require.Equal(t, w.devices, alone.devices)
			require.Equal(t, len(w.conflicts), len(alone.conflicts))
			for id := range w.conflicts {
				require.Contains(t, alone.conflicts, id)
			}
			if len(group) > 1 {
				groups++
			}
		})
	})
	require.Positive(t, groups)
}

// What a session writes again changes nothing, whatever it is and wherever it was
// placed.
func TestRepetitionDecidesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sessions := identitytest.Sessions(8).Draw(t, "sessions")
		w := newWorld()
		play(t, sessions, func(group []int, next func(int) map[string]string) {
			for _, n := range group {
				w.judge(t, w.update(n, next(n)))
				again := w.update(n, next(n))
				was := w.sessions[again.ID]
				require.Equal(t, identity.Decisions{Placements: []identity.Placement{{Session: again.ID, Device: was.device, Identified: was.identified}}},
					identity.Judge(w.facts(again), []identity.Session{again}))
			}
		})
	})
}

// Reading takes any JSON, and gives evidence that is sorted, distinct, bounded
// and of the attribute's kind.
func TestReadTakesAnything(t *testing.T) {
	value := rapid.OneOf(
		rapid.String().AsAny(), rapid.Int().AsAny(), rapid.Bool().AsAny(),
		rapid.SliceOfN(rapid.StringMatching(`[a-f0-9:-]{0,20}`), 0, 80).AsAny(),
		rapid.SliceOfN(rapid.OneOf(rapid.StringN(0, 300, 400).AsAny(), rapid.Int().AsAny()), 0, 4).AsAny(),
		rapid.MapOf(rapid.String(), rapid.Int()).AsAny())
	rapid.Check(t, func(t *rapid.T) {
		raw, err := device.CanonicalOf(value.Draw(t, "value"))
		if err != nil {
			t.Skip(err)
		}
		name := rapid.SampledFrom(identity.Attributes).Draw(t, "attribute")
		read := identity.Read(name, device.Attribute{Value: raw, Seq: 1})
		require.LessOrEqual(t, len(read), 64)
		require.True(t, slices.IsSortedFunc(read, identity.Evidence.Compare))
		require.Equal(t, slices.Compact(slices.Clone(read)), read)
		for _, e := range read {
			require.NotEmpty(t, e.Value)
			require.LessOrEqual(t, len(e.Value), 256)
		}
	})
}
