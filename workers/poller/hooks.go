package poller

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/plugin/kprom"
)

// requests is a hook of the Kafka client: it counts fetches, knows when the last
// was answered, and measures commits.
type requests struct {
	metrics   *metrics
	lastFetch *atomic.Int64
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (h requests) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	switch kmsg.Key(key) {
	case kmsg.Fetch:
		if e.Err() == nil {
			h.metrics.fetches.Inc()
			h.lastFetch.Store(time.Now().UnixNano())
		}
	case kmsg.OffsetCommit:
		h.metrics.commitBytes.Add(float64(e.BytesWritten))
		if e.Err() == nil {
			h.metrics.commitSeconds.Observe(e.DurationE2E().Seconds())
		}
	}
}

// clientRegisterer registers the metrics of one Kafka client, and unregisters them
// with it: those of the next client have the same names.
type clientRegisterer struct {
	prometheus.Registerer

	mu         sync.Mutex
	collectors []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (r *clientRegisterer) Register(c prometheus.Collector) error {
	err := r.Registerer.Register(c)
	if err == nil {
		r.mu.Lock()
		r.collectors = append(r.collectors, c)
		r.mu.Unlock()
	}
	return err
}

// MustRegister implements prometheus.Registerer.
func (r *clientRegisterer) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func (r *clientRegisterer) unregisterAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range slices.Backward(r.collectors) {
		r.Registerer.Unregister(c)
	}
	r.collectors = nil
}

// hooks returns the hooks of one client, and the registerer of its metrics, which
// are unregistered when the client is closed.
func hooks(m *metrics, lastFetch *atomic.Int64, registerer prometheus.Registerer) (kgo.Opt, *clientRegisterer) {
	r := &clientRegisterer{Registerer: registerer}
	return kgo.WithHooks(requests{m, lastFetch}, kprom.NewMetrics("rollcall_poller", kprom.Subsystem("kafka"), kprom.Registerer(r))), r
}
