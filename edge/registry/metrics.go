package registry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// metrics of a registry. Names and labels are an interface.
type metrics struct {
	registerer prometheus.Registerer
	registered []prometheus.Collector

	events            *prometheus.CounterVec
	attributesRefused *prometheus.CounterVec
	devicesRefused    prometheus.Counter
	commits           prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, r *Registry) (*metrics, error) {
	m := &metrics{
		registerer: reg,
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_edge_events_total", Help: "Events written to the outbox, by type."}, []string{"type"}),
		attributesRefused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_edge_attributes_refused_total", Help: "Observed attributes or set members that were refused, by reason: invalid, limit, set-full."}, []string{"reason"}),
		devicesRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_edge_devices_refused_total", Help: "Observations of new devices beyond the limit of devices."}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_edge_commit_seconds", Help: "Duration of the registry's transactions, with fsync.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
	}
	for _, t := range []device.Type{device.Opened, device.Delta, device.Snapshot, device.Closed} {
		m.events.WithLabelValues(string(t))
	}
	for _, reason := range []string{"invalid", "limit", "set-full"} {
		m.attributesRefused.WithLabelValues(reason)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.events, m.attributesRefused, m.devicesRefused, m.commits, stateCollector{r}} {
		if err := reg.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("register registry metrics: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
}

// stateCollector collects what the registry holds at the moment.
type stateCollector struct{ r *Registry }

var (
	devicesDesc = prometheus.NewDesc("rollcall_edge_devices",
		"Devices that are recorded, by connection status.", []string{"status"}, nil)
	waitingDesc = prometheus.NewDesc("rollcall_edge_devices_waiting",
		"Devices with changes that wait for room in the outbox.", nil, nil)
	outboxEventsDesc = prometheus.NewDesc("rollcall_edge_outbox_events",
		"Events that wait for their acknowledgement.", nil, nil)
	outboxBytesDesc = prometheus.NewDesc("rollcall_edge_outbox_bytes",
		"Bytes of the events that wait for their acknowledgement.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{devicesDesc, waitingDesc, outboxEventsDesc, outboxBytesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s stateCollector) Collect(ch chan<- prometheus.Metric) {
	status := map[string]int{}
	s.r.mu.RLock()
	for _, e := range s.r.devices {
		status[e.rec.status()]++
	}
	events, bytes, waiting := s.r.outboxEvents, s.r.outboxBytes, len(s.r.waiting)
	s.r.mu.RUnlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(devicesDesc, float64(status[device.Online]), device.Online)
	gauge(devicesDesc, float64(status[device.Offline]), device.Offline)
	gauge(waitingDesc, float64(waiting))
	gauge(outboxEventsDesc, float64(events))
	gauge(outboxBytesDesc, float64(bytes))
}
