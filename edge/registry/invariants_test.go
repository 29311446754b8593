package registry_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// requireInvariants checks the promises of the package. All events that were ever
// handed out, with those that still wait, are gap-free from 1 in each session,
// duplicates are identical, nothing follows a closed event, and folding them gives
// the records.
func requireInvariants(t require.TestingT, events []device.Event, devices []registry.Device) {
	sessions := map[string]map[int64]device.Event{}
	for _, e := range events {
		s := sessions[e.Session]
		if s == nil {
			s = map[int64]device.Event{}
			sessions[e.Session] = s
		}
		if old, ok := s[e.Seq]; ok {
			require.Equal(t, old, e, "a duplicate of %s differs", e.ID())
		}
		s[e.Seq] = e
	}
	states := map[string]device.State{}
	for session, bySeq := range sessions {
		var state device.State
		for seq := int64(1); seq <= int64(len(bySeq)); seq++ {
			e, ok := bySeq[seq]
			require.True(t, ok, "session %s has %d events, but not seq %d", session, len(bySeq), seq)
			c := state.Apply(device.FoldOf(e))
			require.Empty(t, c.Repaired, "snapshot %s corrects what the deltas said", e.ID())
			require.Zero(t, c.AfterClose)
			require.Empty(t, c.OverLimit)
		}
		states[session] = state
	}
	current := map[string]bool{}
	for _, d := range devices {
		current[d.Session] = true
		state := states[d.Session]
		require.Equal(t, d.Seq, state.AsOf, "session %s", d.Session)
		require.Zero(t, state.Closed)
		if !d.Waiting { // what waits hides what was told before
			require.Equal(t, d.Attributes, state.Live(), "session %s", d.Session)
		}
	}
	for session, state := range states {
		require.Equal(t, !current[session], state.Closed != 0, "session %s is closed or has a record", session)
	}
}

// step returns a random observation.
func step(r *rand.Rand, now time.Time) discovery.Observation {
	o := discovery.Observation{
		MAC: fmt.Sprintf("02:00:00:00:00:%02x", r.IntN(6)), Kind: discovery.KindMDNS, Time: now,
		Presence: discovery.Presence(r.IntN(8) % 3), // mostly Seen
	}
	name := fmt.Sprintf("n%d", r.IntN(5))
	switch r.IntN(5) {
	case 0:
		o.Unset = []string{name}
	case 1:
		o.Add = map[string][]string{"set": {fmt.Sprint(r.IntN(6))}}
	case 2:
		o.Drop = map[string][]string{"set": {fmt.Sprint(r.IntN(6))}}
	default:
		o.Set = map[string]any{name: fmt.Sprint(r.IntN(4))}
	}
	return o
}

func TestEventsFoldToTheRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "registry")
		require.NoError(t, err)
		defer func() { _ = os.RemoveAll(dir) }()
		clock := &clock{start}
		o := registry.Options{
			Path: filepath.Join(dir, "registry.db"), RAE: rae, Logger: slog.New(slog.DiscardHandler), Now: clock.Now,
			SnapshotInterval: time.Minute, OfflineAfter: 90 * time.Second, ForgetAfter: 10 * time.Minute,
			MaxOutboxBytes: rapid.SampledFrom([]int64{2000, 6000, 1 << 20}).Draw(t, "outbox"), MaxDevices: 5,
		}
		r, err := registry.Open(o)
		require.NoError(t, err)
		defer func() { require.NoError(t, r.Close()) }()
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var handed []device.Event
		ctx := t.Context()
		for range rapid.IntRange(1, 40).Draw(t, "operations") {
			clock.Advance(time.Duration(random.IntN(20)) * time.Second)
			switch n := random.IntN(20); {
			case n < 12:
				var steps []registry.Step
				for range 1 + random.IntN(3) {
					var s registry.Step
					for range 1 + random.IntN(3) {
						s.Observations = append(s.Observations, step(random, clock.now))
					}
					steps = append(steps, s)
				}
				require.NoError(t, r.Observe(ctx, steps...))
			case n < 15:
				require.NoError(t, r.RunDueWork(ctx))
			case n < 18:
				entries, err := r.Read(0, 1+random.IntN(5))
				require.NoError(t, err)
				for i, e := range entries {
					event, err := device.DecodeRecord(e.Topic, e.Payload)
					require.NoError(t, err)
					handed = append(handed, event)
					if i == len(entries)-1 && random.IntN(3) > 0 {
						require.NoError(t, r.Ack(ctx, e.Key))
					}
				}
			case n < 19:
				_ = r.Forget(ctx, fmt.Sprintf("02:00:00:00:00:%02x", random.IntN(6)), "test")
			default:
				require.NoError(t, r.Close())
				r, err = registry.Open(o)
				require.NoError(t, err)
			}
			_, bytes := r.Pending()
			require.LessOrEqual(t, bytes, o.MaxOutboxBytes)
		}
		for { // hand out everything, with what waits for room
			events, last := decode(t, r)
			if last == 0 {
				break
			}
			handed = append(handed, events...)
			require.NoError(t, r.Ack(ctx, last))
		}
		devices := r.Devices()
		require.False(t, slices.ContainsFunc(devices, func(d registry.Device) bool { return d.Waiting }), "nothing waits when the outbox is empty")
		requireInvariants(t, handed, devices)
	})
}
