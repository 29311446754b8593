package metrictest_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/metrictest"
)

// failing is a test that is expected to fail.
type failing struct{ says string }

func (f *failing) Errorf(format string, args ...any) { f.says += fmt.Sprintf(format, args...) }
func (f *failing) FailNow()                          { panic(f) }

func fails(t *testing.T, why string, read func(require.TestingT)) {
	t.Helper()
	f := &failing{}
	require.Panics(t, func() { read(f) })
	require.Contains(t, f.says, why)
}

func TestWhatDoesNotExistFails(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	things := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "things_total", ConstLabels: prometheus.Labels{"of": "here"}}, []string{"kind", "size"})
	level := prometheus.NewGauge(prometheus.GaugeOpts{Name: "level"})
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seconds"})
	r.MustRegister(things, level, seconds)
	require.Zero(t, metrictest.ValueOrZero(t, r, "things_total", "kind", "a", "of", "here"))
	fails(t, "no series", func(t require.TestingT) { metrictest.Value(t, r, "things_total") })

	require.False(t, metrictest.HasSeries(t, r, "things_total"))
	things.WithLabelValues("a", "big").Inc()
	require.True(t, metrictest.HasSeries(t, r, "things_total", "size", "big"))
	require.False(t, metrictest.HasSeries(t, r, "things_total", "size", "small"))
	things.WithLabelValues("a", "small").Add(2)
	things.WithLabelValues("b", "small").Add(4)
	level.Set(-1)
	seconds.Observe(3)
	require.InDelta(t, 7, metrictest.Value(t, r, "things_total"), 0)
	require.InDelta(t, 6, metrictest.Value(t, r, "things_total", "size", "small"), 0)
	require.InDelta(t, 2, metrictest.Value(t, r, "things_total", "size", "small", "kind", "a"), 0)
	require.InDelta(t, -1, metrictest.Value(t, r, "level"), 0)
	require.EqualValues(t, 1, metrictest.Observations(t, r, "seconds"))

	fails(t, "no such metric", func(t require.TestingT) { metrictest.Value(t, r, "thing_total") })
	fails(t, "no such metric", func(t require.TestingT) { metrictest.ValueOrZero(t, r, "thing_total") })
	fails(t, "no such metric", func(t require.TestingT) { metrictest.HasSeries(t, r, "thing_total") })
	fails(t, "no such label", func(t require.TestingT) { metrictest.ValueOrZero(t, r, "things_total", "knd", "a") })
	fails(t, "pairs", func(t require.TestingT) { metrictest.Value(t, r, "things_total", "kind") })
	fails(t, "no series", func(t require.TestingT) { metrictest.Value(t, r, "things_total", "kind", "c") })
	fails(t, "neither", func(t require.TestingT) { metrictest.Value(t, r, "seconds") })
	fails(t, "no histogram", func(t require.TestingT) { metrictest.Observations(t, r, "level") })
}
