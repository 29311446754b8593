package store_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// JSONB keeps a value and not its text. What comes out must hash as what went in.
func TestValuesComeBackAsTheyWere(t *testing.T) {
	s, _ := open(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		f := newFeed(n)
		attributes := map[string]string{}
		for i := range rapid.IntRange(1, 8).Draw(t, "values") {
			raw, err := json.Marshal(jsonValue(4).Draw(t, "value"))
			require.NoError(t, err)
			v, err := device.Canonical(raw)
			if err != nil {
				continue // a NUL: refused long before
			}
			attributes[fmt.Sprintf("a%d", i)] = string(v)
		}
		require.NoError(t, s.Apply(ctx, []store.Update{f.update(f.opened(attributes))}))
		stored, err := s.Load(ctx, f.id)
		require.NoError(t, err)
		got := stored.State
		sameState(t, f.state, got)
		require.Equal(t, device.Hash(f.state.Attributes), device.Hash(got.Attributes))
	})
}

func jsonValue(depth int) *rapid.Generator[any] {
	scalar := []*rapid.Generator[any]{
		rapid.Float64Range(-1.7e308, 1.7e308).AsAny(),
		rapid.SampledFrom([]float64{5e-324, 1e21, 1e-7, 123456789012345680000, 0.1, 1.7976931348623157e308}).AsAny(),
		rapid.Int64().AsAny(), rapid.Bool().AsAny(), rapid.String().AsAny(),
		rapid.SampledFrom([]string{"\u2028<&>", "é", "e\u0301", "😀", "\ufffd", `\u0041`, "\x7f\x1f\b", `"`}).AsAny(),
	}
	if depth == 0 {
		return rapid.OneOf(scalar...)
	}
	inner := rapid.Deferred(func() *rapid.Generator[any] { return jsonValue(depth - 1) })
	return rapid.OneOf(append(scalar,
		rapid.SliceOfN(inner, 0, 4).AsAny(),
		rapid.MapOfN(rapid.String(), inner, 0, 4).AsAny())...)
}

// replayer plays what workflows may do with the events of several sessions: any
// order, any grouping, anything twice, updates that are applied again later,
// and workers that start again from what the database has.
type replayer struct {
	s      *store.Store
	rae    string
	states map[string]*device.State
	offset map[string]int64
	sent   []store.Update
}

func (r *replayer) step(t *rapid.T, sessions []string, queues map[string][]device.Event) {
	var group []store.Update
	for _, id := range sessions {
		take := rapid.IntRange(0, min(3, len(queues[id]))).Draw(t, "take")
		if take == 0 {
			continue
		}
		var fold device.Fold
		for _, e := range queues[id][:take] {
			fold = device.Merge(fold, device.FoldOf(clone(e)))
		}
		queues[id] = queues[id][take:]
		if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
			stored, err := r.s.Load(ctx, id)
			require.NoError(t, err)
			state := stored.State
			if r.states[id].AsOf > 0 {
				sameState(t, *r.states[id], state)
			}
			r.states[id] = &state
		}
		c := r.states[id].Apply(fold)
		r.offset[id] += int64(take)
		group = append(group, updateOf(r.states[id], c, fold, r.rae, id, r.offset[id], take))
	}
	r.sent = append(r.sent, group...)
	require.NoError(t, r.s.Apply(ctx, group))
	if len(r.sent) > 0 && rapid.IntRange(0, 3).Draw(t, "again") == 0 {
		require.NoError(t, r.s.Apply(ctx, []store.Update{rapid.SampledFrom(r.sent).Draw(t, "old")}))
	}
}

// Replaying anything, in any order and grouping, any number of times, gives the
// same: live attributes, as_of and hash of an independent model.
func TestAnyReplayGivesTheSame(t *testing.T) {
	s, url := open(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		r := &replayer{s: s, rae: "rae-1", states: map[string]*device.State{}, offset: map[string]int64{}}
		var sessions []string
		histories, queues := map[string][]device.Event{}, map[string][]device.Event{}
		for n := range rapid.IntRange(1, 3).Draw(t, "sessions") {
			id := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "%d/%d", run, n)).String()
			sessions, r.states[id] = append(sessions, id), &device.State{}
			histories[id] = devicetest.History(r.rae, id, 12).Draw(t, "history")
			queues[id] = devicetest.Deliver(histories[id]).Draw(t, "delivery")
		}
		left := func() (n int) {
			for _, id := range sessions {
				n += len(queues[id])
			}
			return n
		}
		for left() > 0 {
			r.step(t, sessions, queues)
		}
		for _, id := range sessions {
			model := devicetest.Of(histories[id])
			stored, err := s.Load(ctx, id)
			require.NoError(t, err)
			require.True(t, stored.Found)
			got, positions := stored.State, stored.Positions
			require.Equal(t, model.Seq, got.AsOf)
			require.Equal(t, model.Closed, got.Closed != 0)
			require.Empty(t, got.Missing())
			sameState(t, device.State{Attributes: model.Attributes}, device.State{Attributes: got.Live()})
			require.Equal(t, device.Hash(model.Attributes), device.Hash(got.Attributes))
			require.Equal(t, r.offset[id], positions[0].Next)
		}
	})
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM session_gap WHERE ended_at IS NULL`))
}

// Two workers that apply the same sessions at once, each in groups of its own,
// leave what one would have.
func TestConcurrentApply(t *testing.T) {
	for _, isolation := range []string{"read%20committed", "serializable"} { // the default of PostgreSQL, and of CockroachDB
		t.Run(isolation, func(t *testing.T) {
			_, url := open(t)
			testConcurrentApply(t, url, url+"&default_transaction_isolation="+isolation)
		})
	}
}

func testConcurrentApply(t *testing.T, url, with string) {
	a, b := reopen(t, with), reopen(t, with)
	const sessions, rounds = 12, 15
	groups := make([][]store.Update, rounds)
	feeds := make([]*feed, sessions)
	for n := range feeds {
		feeds[n] = newFeed(n)
	}
	for round := range groups {
		for n, f := range feeds {
			e := f.delta(int64(round+1), map[string]string{"n": fmt.Sprint(round), "network.mac": fmt.Sprintf(`"9c:b6:d0:00:00:%02x"`, n/2)})
			if round == 0 {
				e.Type = device.Opened
			}
			groups[round] = append(groups[round], f.update(e))
		}
	}
	var wg sync.WaitGroup
	for i, s := range []*store.Store{a, b, a, b} {
		wg.Go(func() {
			for round := range groups {
				if i%2 == 1 { // the other order of rounds, and of sessions in them
					round = len(groups) - 1 - round
				}
				err := s.Apply(ctx, groups[round])
				for store.Retryable(err) { // as often as it takes, like the activity
					err = s.Apply(ctx, groups[round])
				}
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			}
		})
	}
	wg.Wait()
	for _, f := range feeds {
		got, positions := load(t, a, f.id)
		sameState(t, f.state, got)
		require.Equal(t, int64(rounds), positions[0].Next)
	}
	require.Equal(t, sessions/2, query[int](t, url, `SELECT count(DISTINCT device_id) FROM device_session`), "two sessions share a MAC")
	require.Equal(t, sessions/2, query[int](t, url, `SELECT count(*) FROM device`))
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_session WHERE events > $1`, rounds), "nothing is counted twice")
	require.Zero(t, deadlocks(t, url, a, b), "transactions meet in one order, and wait")
}
