package poller

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/plugin/kprom"
)

// requests is a hook of the Kafka client: it counts fetches and measures
// commits.
type requests struct{ metrics *metrics }

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (h requests) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	switch kmsg.Key(key) {
	case kmsg.Fetch:
		if e.Err() == nil {
			h.metrics.fetches.Inc()
		}
	case kmsg.OffsetCommit:
		h.metrics.commitBytes.Add(float64(e.BytesWritten))
		if e.Err() == nil {
			h.metrics.commitSeconds.Observe(e.DurationE2E().Seconds())
		}
	}
}

// lease lends a registry to the metrics of one Kafka client: those of the next
// client have the same names.
type lease struct {
	prometheus.Registerer

	mu   sync.Mutex
	lent []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (l *lease) Register(c prometheus.Collector) error {
	err := l.Registerer.Register(c)
	if err == nil {
		l.mu.Lock()
		l.lent = append(l.lent, c)
		l.mu.Unlock()
	}
	return err
}

// MustRegister implements prometheus.Registerer.
func (l *lease) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := l.Register(c); err != nil {
			panic(err)
		}
	}
}

func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range slices.Backward(l.lent) {
		l.Registerer.Unregister(c)
	}
	l.lent = nil
}

// hooks are those of one client. Its metrics are to be ended with it.
func hooks(m *metrics, r prometheus.Registerer) (kgo.Opt, *lease) {
	l := &lease{Registerer: r}
	return kgo.WithHooks(requests{m}, kprom.NewMetrics("rollcall_poller", kprom.Subsystem("kafka"), kprom.Registerer(l))), l
}
