package sdkmetrics_test

import (
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/sdkmetrics"
)

func TestNamesAndTags(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	h, err := sdkmetrics.New(r)
	require.NoError(t, err)
	h.Counter("temporal_request").Inc(1) // one name, different tags
	queue := h.WithTags(map[string]string{"task_queue": "q", "worker-type": "w"})
	queue.Counter("temporal_request").Inc(2)
	queue.WithTags(map[string]string{"task_queue": "r"}).Counter("temporal_request").Inc(3)
	queue.Counter("temporal_request").Inc(-1) // kept out: a counter does not go down
	h.Gauge("temporal_worker_slots").Update(4)
	h.Timer("temporal_latency").Record(3 * time.Second)
	out := scrape(r)
	require.Contains(t, out, `# HELP temporal_request_total Written through the Temporal SDK's metrics handler.
# TYPE temporal_request_total counter
temporal_request_total 1
temporal_request_total{task_queue="q",worker_type="w"} 2
temporal_request_total{task_queue="r",worker_type="w"} 3
# HELP temporal_worker_slots Written through the Temporal SDK's metrics handler.
# TYPE temporal_worker_slots gauge
temporal_worker_slots 4
`)
	require.Contains(t, out, "temporal_latency_seconds_sum 3\n")
}

func TestSeriesAreBounded(t *testing.T) {
	r := prometheus.NewRegistry()
	h, err := sdkmetrics.New(r)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				c := h.WithTags(map[string]string{"id": fmt.Sprint(part, "-", i)})
				c.Counter("n").Inc(1)
				c.Gauge("g").Update(1)
				c.Timer("t").Record(1)
			}
		})
	}
	wg.Wait()
	families, err := r.Gather()
	require.NoError(t, err)
	n := 0
	for _, f := range families {
		n += len(f.GetMetric())
	}
	require.Equal(t, 5001, n)
}

func TestTwiceInOneRegistryIsAnError(t *testing.T) {
	r := prometheus.NewRegistry()
	_, err := sdkmetrics.New(r)
	require.NoError(t, err)
	_, err = sdkmetrics.New(r)
	require.Error(t, err)
}

func scrape(r *prometheus.Registry) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}
