package groupcommit

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/store"
)

type metrics struct {
	sessions   prometheus.Histogram
	wait       prometheus.Histogram
	seconds    *prometheus.HistogramVec
	bisections prometheus.Counter
}

// newMetrics registers the metrics; depth is asked at each scrape. The names
// are listed in docs/metrics.md, and a test freezes them.
func newMetrics(r prometheus.Registerer, depth func() (int, int64)) (*metrics, error) {
	m := &metrics{
		sessions: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_group_commit_sessions", Help: "Sessions in one transaction.",
			Buckets: []float64{1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128},
		}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_group_commit_wait_seconds", Help: "From an update's arrival to the begin of its transaction: the wait for room, for others and for a committer.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16), // 0.25 ms to 8 s
		}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rollcall_group_commit_seconds", Help: "How long a transaction took, its retries included, by outcome (ok, refused, error).",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
		}, []string{"outcome"}),
		bisections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_group_commit_bisections_total", Help: "Groups that were refused and tried again in halves.",
		}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.sessions), r.Register(m.wait), r.Register(m.seconds), r.Register(m.bisections),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "rollcall_group_commit_queue_sessions", Help: "Updates that wait for a transaction.",
		}, func() float64 { n, _ := depth(); return float64(n) })),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "rollcall_group_commit_queue_bytes", Help: "Bytes of the updates that wait for a transaction, estimated from above.",
		}, func() float64 { _, b := depth(); return float64(b) })))
}

func (m *metrics) observe(sessions int, took time.Duration, err error) {
	outcome := "ok"
	switch {
	case errors.Is(err, store.ErrRefused):
		outcome = "refused"
	case err != nil:
		outcome = "error"
	}
	m.sessions.Observe(float64(sessions))
	m.seconds.WithLabelValues(outcome).Observe(took.Seconds())
}
