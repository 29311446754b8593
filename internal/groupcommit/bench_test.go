package groupcommit_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cputest"
	"github.com/rollcall-platform/rollcall/internal/groupcommit"
	"github.com/rollcall-platform/rollcall/internal/groupcommit/commitload"
	"github.com/rollcall-platform/rollcall/internal/postgres"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// BenchmarkGroupCommit is 64 concurrent callers, as a session worker has them,
// on a PostgreSQL that syncs each commit: first one transaction a session, then
// group commit. "times" is the second against the first, of this very run.
func BenchmarkGroupCommit(b *testing.B) {
	for _, attributes := range []int{20, 3} {
		b.Run(fmt.Sprintf("attributes=%d", attributes), func(b *testing.B) {
			db := database(b)
			var alone float64
			b.Run("direct", func(b *testing.B) {
				alone = benchmark(b, direct{db}, commitload.Options{Attributes: attributes})
			})
			b.Run("grouped", func(b *testing.B) {
				grouped := benchmark(b, committer(b, groupcommit.Options{Store: db}), commitload.Options{Attributes: attributes})
				b.ReportMetric(grouped/alone, "times")
			})
		})
	}
}

// BenchmarkSettings is how the defaults were chosen.
func BenchmarkSettings(b *testing.B) {
	db := database(b)
	for _, callers := range []int{8, 64, 256} {
		for _, sessions := range []int{8, 16, 32, 64} {
			for _, committers := range []int{1, 2, 3, 4} {
				for _, linger := range []time.Duration{-1, 5 * time.Millisecond} {
					b.Run(fmt.Sprintf("callers=%d/sessions=%d/committers=%d/linger=%s", callers, sessions, committers, max(linger, 0)), func(b *testing.B) {
						benchmark(b, committer(b, groupcommit.Options{Store: db, Sessions: sessions, Committers: committers, Linger: linger}),
							commitload.Options{Callers: callers})
					})
				}
			}
		}
	}
}

// database is one that syncs: what postgrestest gives does not.
func database(b *testing.B) *store.Store {
	b.Helper()
	server, err := postgres.Start(b.Context(), postgres.Options{DataDir: b.TempDir(), NoFetch: true})
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(server.Stop)
	_, err = store.Migrate(b.Context(), server.URL(), nil)
	require.NoError(b, err)
	db, err := store.Open(b.Context(), store.Options{URL: server.URL()})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	return db
}

// direct is activities.Direct.
type direct struct{ db *store.Store }

func (d direct) Apply(ctx context.Context, u store.Update) error {
	return d.db.Apply(ctx, []store.Update{u})
}

func benchmark(b *testing.B, a commitload.Applier, o commitload.Options) float64 {
	o.Updates = b.N
	l, err := commitload.New(b.Context(), a, o)
	require.NoError(b, err)
	b.ResetTimer()
	before := cputest.Self(b) + cputest.Children()
	r, err := l.Run(b.Context(), a)
	require.NoError(b, err)
	b.ReportMetric(float64((cputest.Self(b)+cputest.Children()-before).Microseconds())/float64(b.N), "cpu-µs/session")
	b.ReportMetric(r.PerSecond(), "sessions/s")
	b.ReportMetric(float64(r.P50.Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(r.P99.Microseconds())/1000, "p99-ms")
	return r.PerSecond()
}
