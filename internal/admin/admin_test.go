package admin_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func start(t *testing.T) *admin.Server {
	t.Helper()
	return startWith(t, admin.Options{Addr: "127.0.0.1:0"})
}

// startWith runs a server with a registry of its own.
func startWith(t *testing.T, o admin.Options) *admin.Server {
	t.Helper()
	o.Registry = prometheus.NewRegistry()
	o.Registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "rollcall_test_total"}))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := admin.New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

func probe(t *testing.T, addr, path string) error {
	t.Helper()
	return admin.Client{Addr: addr}.Probe(t.Context(), path)
}

func TestEndpoints(t *testing.T) {
	s := start(t)
	code, body := get(t, s.URL()+"/healthz")
	require.Equal(t, http.StatusOK, code, body)

	var broken atomic.Bool
	broken.Store(true)
	s.AddCheck("database", func() error {
		if broken.Load() {
			return errors.New("database at db:5432 refuses connections")
		}
		return nil
	})
	s.AddCheck("kafka", func() error { return nil })
	code, body = get(t, s.URL()+"/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.JSONEq(t, `{"ready": false, "checks": {"database": {"ok": false, "error": "database at db:5432 refuses connections"}, "kafka": {"ok": true}}}`, body)
	require.ErrorContains(t, probe(t, s.Addr(), "/readyz"), "database at db:5432 refuses")

	broken.Store(false)
	code, body = get(t, s.URL()+"/readyz")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"ready": true, "checks": {"database": {"ok": true}, "kafka": {"ok": true}}}`, body)
	require.NoError(t, probe(t, s.Addr(), "/readyz"))
	_, port, err := net.SplitHostPort(s.Addr())
	require.NoError(t, err)
	require.NoError(t, probe(t, "0.0.0.0:"+port, "/healthz"), "listening everywhere is asked through loopback")

	_, body = get(t, s.URL()+"/metrics")
	require.Contains(t, body, "rollcall_test_total 0")
	require.Contains(t, body, `rollcall_dependency_up{dependency="kafka"} 1`)

	var stuck atomic.Bool
	s.AddLiveness("loop", func() error {
		if stuck.Load() {
			return errors.New("has not turned for 1m0s")
		}
		return nil
	})
	code, _ = get(t, s.URL()+"/healthz")
	require.Equal(t, http.StatusOK, code)
	stuck.Store(true)
	code, body = get(t, s.URL()+"/healthz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "loop: has not turned for 1m0s\n", body)
	code, _ = get(t, s.URL()+"/readyz")
	require.Equal(t, http.StatusOK, code, "liveness and readiness are two questions")
	stuck.Store(false)

	s.Handle("GET /extra", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	code, _ = get(t, s.URL()+"/extra")
	require.Equal(t, http.StatusTeapot, code)
}

func TestTakenPortNamesAddressAndFlag(t *testing.T) {
	s := start(t)
	_, err := admin.New(admin.Options{Addr: s.Addr(), Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, s.Addr())
	require.ErrorContains(t, err, "address already in use")
	require.ErrorContains(t, err, "--admin-addr")
}

func TestListensOnLoopbackUnlessTold(t *testing.T) {
	for _, addr := range []string{"", ":0"} {
		s, err := admin.New(admin.Options{Addr: addr, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		host, _, err := net.SplitHostPort(s.Addr())
		require.NoError(t, err)
		require.Equal(t, "127.0.0.1", host)
		require.NoError(t, s.Close())
	}
}

func TestRefusedOptions(t *testing.T) {
	_, err := admin.New(admin.Options{})
	require.ErrorContains(t, err, "required")
	_, err = admin.New(admin.Options{Addr: "nonsense", Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, `admin address "nonsense": missing port in address; set --admin-addr to host:port`)
}

func TestProbeOfNobody(t *testing.T) {
	cmd := admin.HealthcheckCmd{AdminAddr: porttest.Addr(t), Timeout: time.Minute, Alive: true}
	require.ErrorContains(t, cmd.Run(t.Context()), "no answer")
}
