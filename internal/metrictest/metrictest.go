// Package metrictest reads metrics in tests, and fails the test for a metric
// that does not exist. A reader that answers 0 for it makes tests that cannot
// fail: the name may be misspelt, or may have changed.
package metrictest

import (
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// Value is the value of the counter or gauge name, summed over its series.
// Labels are pairs of a label and its value; only series that have them count.
// It fails the test where the registry has no such metric, label or series.
func Value(t require.TestingT, r *prometheus.Registry, name string, labels ...string) float64 {
	series := find(t, r, name, labels)
	require.NotEmpty(t, series, "metric %s has no series with %q", name, labels)
	return sum(t, name, series)
}

// ValueOrZero is Value, but 0 where the registry has the metric and no series
// that matches: a vector has none until somebody writes to it.
func ValueOrZero(t require.TestingT, r *prometheus.Registry, name string, labels ...string) float64 {
	return sum(t, name, find(t, r, name, labels))
}

// HasSeries reports whether the metric name has a series that matches. It fails
// the test where the registry has no such metric or label.
func HasSeries(t require.TestingT, r *prometheus.Registry, name string, labels ...string) bool {
	return len(find(t, r, name, labels)) > 0
}

// Observations is how many values the histogram name has observed. It fails the
// test as Value does.
func Observations(t require.TestingT, r *prometheus.Registry, name string, labels ...string) (n uint64) {
	series := find(t, r, name, labels)
	require.NotEmpty(t, series, "metric %s has no series with %q", name, labels)
	for _, m := range series {
		require.NotNil(t, m.GetHistogram(), "metric %s is no histogram", name)
		n += m.GetHistogram().GetSampleCount()
	}
	return n
}

func sum(t require.TestingT, name string, series []*dto.Metric) (sum float64) {
	for _, m := range series {
		require.True(t, m.GetCounter() != nil || m.GetGauge() != nil, "metric %s is neither a counter nor a gauge", name)
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

// find returns the series of name that have the labels.
func find(t require.TestingT, r *prometheus.Registry, name string, labels []string) (found []*dto.Metric) {
	known := describe(r)
	require.Contains(t, known, name, "no such metric is registered")
	require.Zero(t, len(labels)%2, "labels are pairs: %q", labels)
	for i := 0; i < len(labels); i += 2 {
		require.Contains(t, known[name], labels[i], "metric %s has no such label", name)
	}
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if matches(m, labels) {
				found = append(found, m)
			}
		}
	}
	return found
}

func matches(m *dto.Metric, labels []string) bool {
	has := map[string]string{}
	for _, l := range m.GetLabel() {
		has[l.GetName()] = l.GetValue()
	}
	for i := 0; i < len(labels); i += 2 {
		if has[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

var (
	descName   = regexp.MustCompile(`^Desc\{fqName: "([^"]+)"`)
	descLabels = regexp.MustCompile(`constLabels: \{(.*)\}, variableLabels: \{([^}]*)\}\}$`)
	constLabel = regexp.MustCompile(`(\w+)="`)
)

// describe returns the label names of each metric that is registered, also of
// those without a series. A Desc shows them in its text alone.
func describe(r *prometheus.Registry) map[string][]string {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		r.Describe(descs)
	}()
	known := map[string][]string{}
	for d := range descs {
		name, labels := descName.FindStringSubmatch(d.String()), descLabels.FindStringSubmatch(d.String())
		if name == nil || labels == nil {
			panic("metrictest: the text of a Desc has changed: " + d.String())
		}
		all := strings.Split(labels[2], ",")
		for _, l := range constLabel.FindAllStringSubmatch(labels[1], -1) {
			all = append(all, l[1])
		}
		known[name[1]] = append(known[name[1]], all...)
	}
	return known
}
