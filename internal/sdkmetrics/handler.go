// Package sdkmetrics lets the Temporal SDK write its metrics, and those of our
// workflows, into a Prometheus registry.
//
// It exists because the SDK's own bridges bring tally or OpenTelemetry with
// them for what are three kinds of number. Names follow the SDK's documented
// Prometheus form: a counter ends in _total, a timer is a histogram in _seconds.
package sdkmetrics

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
)

// maxSeries bounds what one process keeps, should a tag have no bound of its
// own. A series past it is not kept; rollcall_sdk_metrics_dropped counts what
// would have been written to such.
const maxSeries = 5000

// buckets fit what the SDK times: a local activity's milliseconds, a long
// poll's minute.
var buckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}

// New registers a collector and returns the handler that fills it: set it as
// client.Options.MetricsHandler.
func New(r prometheus.Registerer) (client.MetricsHandler, error) {
	t := &table{series: make(map[string]prometheus.Metric)}
	t.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "rollcall_sdk_metrics_dropped_total", Help: "Writes to series of the Temporal SDK past the most that are kept.",
	})
	// The counter goes first: it makes a second handler in one registry the
	// error that it is, which an unchecked collector would not.
	for _, c := range []prometheus.Collector{t.dropped, t} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the Temporal SDK's metrics: %w", err)
		}
	}
	return handler{table: t}, nil
}

// table is an unchecked collector: the SDK gives one name different tags, which
// a vector with fixed labels could not hold.
type table struct {
	mu      sync.RWMutex
	series  map[string]prometheus.Metric
	dropped prometheus.Counter
}

// Describe implements prometheus.Collector. It describes nothing, which makes
// the collector an unchecked one.
func (t *table) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (t *table) Collect(out chan<- prometheus.Metric) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, m := range t.series {
		out <- m
	}
}

type tag struct{ name, value string }

type handler struct {
	table *table
	tags  []tag // sorted by name
}

// WithTags implements client.MetricsHandler.
func (h handler) WithTags(tags map[string]string) client.MetricsHandler {
	out := make([]tag, 0, len(h.tags)+len(tags))
	for name, value := range tags {
		out = append(out, tag{clean(name), strings.ToValidUTF8(value, "\uFFFD")})
	}
	out = append(out, h.tags...) // after the new ones, which win
	slices.SortStableFunc(out, func(a, b tag) int { return cmp.Compare(a.name, b.name) })
	return handler{table: h.table, tags: slices.CompactFunc(out, func(a, b tag) bool { return a.name == b.name })}
}

// Counter implements client.MetricsHandler.
func (h handler) Counter(name string) client.MetricsCounter {
	m, _ := h.find("c", clean(name)+"_total", func(name string, labels prometheus.Labels) prometheus.Metric {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	}).(prometheus.Counter)
	return counter{m, h.table}
}

// Gauge implements client.MetricsHandler.
func (h handler) Gauge(name string) client.MetricsGauge {
	m, _ := h.find("g", clean(name), func(name string, labels prometheus.Labels) prometheus.Metric {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	}).(prometheus.Gauge)
	return gauge{m, h.table}
}

// Timer implements client.MetricsHandler.
func (h handler) Timer(name string) client.MetricsTimer {
	m, _ := h.find("h", clean(name)+"_seconds", func(name string, labels prometheus.Labels) prometheus.Metric {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, ConstLabels: labels, Buckets: buckets})
	}).(prometheus.Histogram)
	return timer{m, h.table}
}

const help = "Written through the Temporal SDK's metrics handler."

// find returns a series, made on first use, or nil past the bound. kind is part
// of the key, so that a name used for two kinds does not meet itself.
func (h handler) find(kind, name string, create func(string, prometheus.Labels) prometheus.Metric) prometheus.Metric {
	var key strings.Builder
	key.WriteString(kind)
	key.WriteString(name)
	for _, t := range h.tags {
		key.WriteByte(0xff) // in no valid UTF-8
		key.WriteString(t.name)
		key.WriteByte(0xff)
		key.WriteString(t.value)
	}
	k := key.String()
	h.table.mu.RLock()
	m, ok := h.table.series[k]
	h.table.mu.RUnlock()
	if ok {
		return m
	}
	h.table.mu.Lock()
	defer h.table.mu.Unlock()
	if m, ok := h.table.series[k]; ok || len(h.table.series) >= maxSeries {
		return m
	}
	labels := make(prometheus.Labels, len(h.tags))
	for _, t := range h.tags {
		labels[t.name] = t.value
	}
	m = create(name, labels)
	h.table.series[k] = m
	return m
}

type counter struct {
	m prometheus.Counter
	t *table
}

// Inc implements client.MetricsCounter. A counter does not go down.
func (c counter) Inc(n int64) {
	if c.m == nil || n < 0 {
		c.t.dropped.Inc()
		return
	}
	c.m.Add(float64(n))
}

type gauge struct {
	m prometheus.Gauge
	t *table
}

// Update implements client.MetricsGauge.
func (g gauge) Update(v float64) {
	if g.m == nil {
		g.t.dropped.Inc()
		return
	}
	g.m.Set(v)
}

type timer struct {
	m prometheus.Histogram
	t *table
}

// Record implements client.MetricsTimer.
func (t timer) Record(d time.Duration) {
	if t.m == nil {
		t.t.dropped.Inc()
		return
	}
	t.m.Observe(d.Seconds())
}

// clean makes a Prometheus name: what is not a letter, a digit or _ becomes _.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, name)
}
