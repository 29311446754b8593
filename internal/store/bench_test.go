package store_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/postgres"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// BenchmarkApply applies updates of 20 changed attributes each to sessions that
// exist, on a server that syncs each commit. One worker shows what a
// transaction costs, four what the database takes.
func BenchmarkApply(b *testing.B) {
	server, err := postgres.Start(b.Context(), postgres.Options{DataDir: b.TempDir(), NoFetch: true})
	if err != nil {
		b.Skip(err)
	}
	defer server.Stop()
	_, err = store.Migrate(b.Context(), server.URL(), nil)
	require.NoError(b, err)
	for _, group := range []int{1, 16, 48} {
		for _, workers := range []int{1, 4} {
			for _, history := range []bool{true, false} {
				s, err := store.Open(b.Context(), store.Options{URL: server.URL(), NoHistory: !history})
				require.NoError(b, err)
				b.Run(fmt.Sprintf("sessions=%d/workers=%d/history=%t", group, workers, history), func(b *testing.B) {
					benchmarkApply(b, s, group, workers)
				})
				s.Close()
			}
		}
	}
}

// BenchmarkApplyEvidence applies groups of sessions that change their MAC, of
// devices that have an ESN: what it costs to judge which device each is of.
func BenchmarkApplyEvidence(b *testing.B) {
	server, err := postgres.Start(b.Context(), postgres.Options{DataDir: b.TempDir(), NoFetch: true})
	if err != nil {
		b.Skip(err)
	}
	defer server.Stop()
	_, err = store.Migrate(b.Context(), server.URL(), nil)
	require.NoError(b, err)
	s, err := store.Open(b.Context(), store.Options{URL: server.URL()})
	require.NoError(b, err)
	defer s.Close()
	for _, group := range []int{1, 16} {
		b.Run(fmt.Sprintf("sessions=%d", group), func(b *testing.B) {
			feeds := make([]*feed, group)
			for n := range feeds {
				feeds[n] = newFeed(int(seqBase.Add(1)))
				apply(b, s, feeds[n].update(feeds[n].opened(map[string]string{"netflix.esn": fmt.Sprintf("%q", feeds[n].id)})))
			}
			b.ReportAllocs()
			seq := int64(1)
			for b.Loop() {
				seq++
				updates := make([]store.Update, group)
				for j, f := range feeds {
					updates[j] = f.update(f.delta(seq, map[string]string{"network.mac": fmt.Sprintf(`"9c:b6:%02x:%02x:%02x:%02x"`, j, seq>>16&255, seq>>8&255, seq&255)}))
				}
				if err := s.Apply(ctx, updates); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmarkApply(b *testing.B, s *store.Store, group, workers int) {
	const sessions, attributes = 960, 20
	var feeds [sessions]*feed
	opened := make([]store.Update, 0, 96)
	for n := range feeds {
		feeds[n] = newFeed(n)
		opened = append(opened, store.Update{RAE: "rae-1", Session: feeds[n].id, Positions: []device.Position{{Topic: topic, Next: 1}}})
		if len(opened) == cap(opened) {
			apply(b, s, opened...)
			opened = opened[:0]
		}
	}
	var next atomic.Int64
	next.Store(seqBase.Add(1 << 32))
	var wg sync.WaitGroup
	b.ResetTimer()
	work := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range work {
				updates := make([]store.Update, group)
				for j := range updates {
					at := next.Add(1)
					updates[j] = change(feeds[(i*group+j)%sessions], at, attributes)
				}
				if err := s.Apply(ctx, updates); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		work <- i
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(b.N*group)/b.Elapsed().Seconds(), "sessions/s")
}

// seqBase moves each run past what the runs before have written.
var seqBase atomic.Int64

func change(f *feed, seq int64, attributes int) store.Update {
	u := store.Update{
		RAE: f.rae, Session: f.id, AsOf: seq, Seen: device.SeqSet{{From: 1, To: seq}}, First: at(1), Last: at(1), Received: at(1),
		Write: map[string]device.Attribute{}, Events: 1, Records: 1,
		Positions: []device.Position{{Topic: topic, Partition: 3, Next: seq}},
	}
	for i := range attributes {
		u.Write[fmt.Sprintf("attribute.number_%d", i)] = device.Attribute{Value: fmt.Appendf(nil, `"value %d"`, seq), Seq: seq, At: at(1)}
	}
	return u
}
