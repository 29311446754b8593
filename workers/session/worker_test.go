package session_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/sdkmetrics"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/session"
	"github.com/rollcall-platform/rollcall/workflows"
)

// patience only bounds a failure.
const patience = time.Minute

type memory struct {
	mu      sync.Mutex
	updates []store.Update
}

func (m *memory) Apply(_ context.Context, u []store.Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.updates = append(m.updates, u...)
	return nil
}

func (m *memory) Load(context.Context, string) (store.Stored, error) {
	return store.Stored{}, nil
}

func (m *memory) Rivals(context.Context, string) (store.Rivals, error) { return store.Rivals{}, nil }

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func logger() (*slog.Logger, *buffer) {
	var b buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

func lazy(t *testing.T, o client.Options) client.Client {
	t.Helper()
	quiet, _ := logger()
	o.Logger = sdklog.NewStructuredLogger(quiet)
	c, err := client.NewLazyClient(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestOptions(t *testing.T) {
	c := lazy(t, client.Options{HostPort: "127.0.0.1:1"})
	for name, tc := range map[string]struct {
		o    session.Options
		says string
	}{
		"no client":             {session.Options{Store: &memory{}}, "no Client"},
		"no store":              {session.Options{Client: c}, "no Store"},
		"below zero":            {session.Options{Client: c, Store: &memory{}, WorkflowTasks: -1}, "below zero"},
		"one poller":            {session.Options{Client: c, Store: &memory{}, WorkflowPollers: 1}, "2 or more"},
		"half a version":        {session.Options{Client: c, Store: &memory{}, Version: session.Version{Deployment: "d"}}, "both or neither"},
		"unknown search option": {session.Options{Client: c, Store: &memory{}, SearchAttributes: "maybe"}, "auto, on, off"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := session.New(tc.o)
			require.ErrorContains(t, err, tc.says)
		})
	}
	_, err := session.New(session.Options{Client: c, Store: &memory{}})
	require.NoError(t, err)
}

func TestVersion(t *testing.T) {
	require.Equal(t, "unversioned", session.Version{}.String())
	require.NoError(t, session.Version{}.Check())
	require.Equal(t, "apps/rollcall:2026-11.21", session.Version{"apps/rollcall", "2026-11.21"}.String())
	require.NoError(t, session.Version{"apps/rollcall", "2026-11.21"}.Check())
	for _, v := range []session.Version{
		{"", "v1"}, {"d", ""}, {"a.b", "v1"}, {"a:b", "v1"}, {"__a", "v1"}, {"a", "__unversioned__"},
		{"a", "v 1"}, {"a", "v'1"}, {"a", "v\"1"}, {"ä", "v1"}, {"a", "v\n"}, {strings.Repeat("a", 201), "v1"},
	} {
		require.Error(t, v.Check(), v)
	}

	registry := prometheus.NewPedanticRegistry()
	_, err := session.New(session.Options{
		Client: lazy(t, client.Options{HostPort: "127.0.0.1:1"}), Store: &memory{}, Registerer: registry,
		Version: session.Version{"rollcall", "v1"},
	})
	require.NoError(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "rollcall_session_worker_info" {
			labels := f.GetMetric()[0].GetLabel()
			require.Equal(t, []string{"v1", "rollcall"}, []string{labels[0].GetValue(), labels[1].GetValue()})
			return
		}
	}
	require.Fail(t, "the version is not among the metrics")
}

func TestWaitsForTemporalAndStops(t *testing.T) {
	log, lines := logger()
	w, err := session.New(session.Options{Client: lazy(t, client.Options{HostPort: "127.0.0.1:1"}), Store: &memory{}, Logger: log})
	require.NoError(t, err)
	require.ErrorContains(t, w.Ready(), "not started")
	stop := run(t, w)
	require.Eventually(t, func() bool {
		return w.Ready() != nil && bytes.Contains([]byte(lines.String()), []byte("TEMPORAL_ADDRESS"))
	}, patience, 10*time.Millisecond)
	require.ErrorContains(t, w.Ready(), "reach Temporal")
	stop()
	require.ErrorContains(t, w.Ready(), "stopped")
}

// run starts w; the function it returns stops it and waits.
func run(t *testing.T, w *session.Worker) func() {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Fatal("Run did not return")
		}
	}
}

func TestRunsSessionsOnARealServer(t *testing.T) {
	const variable = "ROLLCALL_TEST_TEMPORAL_ADDRESS"
	address := os.Getenv(variable)
	if address == "" {
		t.Skipf("no Temporal Server: start one (bin/devstack up --bare has one) and name it, host:port, in %s", variable)
	}
	registry := prometheus.NewPedanticRegistry()
	metrics, err := sdkmetrics.New(registry)
	require.NoError(t, err)
	c := lazy(t, client.Options{HostPort: address, MetricsHandler: metrics})
	db := &memory{}
	log, lines := logger()
	queue := "test-" + uuid.NewString()
	w, err := session.New(session.Options{Client: c, Store: db, TaskQueue: queue, Logger: log, Registerer: registry})
	require.NoError(t, err)
	stop := run(t, w)
	require.Eventually(t, func() bool { return w.Ready() == nil }, patience, 10*time.Millisecond)

	id, at := uuid.NewString(), time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	b := device.Batch{
		Version: device.BatchVersion, Topic: device.KafkaEvents, First: 1, Last: 2, Records: 2, Received: at,
		Fold: device.Fold{RAE: "RAE-1", Session: id, Seqs: device.SeqSet{{From: 1, To: 2}}, First: at, Last: at, Closed: 2},
	}
	r, err := c.SignalWithStartWorkflow(t.Context(), device.WorkflowID(id), device.SignalEvents, b,
		workflows.StartOptions(queue, "RAE-1", id), workflows.DeviceSessionName, workflows.Input{RAE: "RAE-1", Session: id})
	require.NoError(t, err)
	var result workflows.Result
	waiting, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, r.Get(waiting, &result))
	require.EqualValues(t, 2, result.AsOf)
	stop()
	// More than one where a workflow task was too slow and came again.
	require.NotEmpty(t, db.updates)
	for _, u := range db.updates {
		require.EqualValues(t, 2, u.AsOf)
	}
	require.Contains(t, lines.String(), "session worker stopped")

	families, err := registry.Gather()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	for _, name := range []string{
		"rollcall_session_activity_seconds", "rollcall_session_events_total",
		"temporal_workflow_task_execution_latency_seconds", "temporal_sticky_cache_size",
	} {
		require.True(t, names[name], "%s is not among %v", name, names)
	}
}
