// Package admin is the HTTP listener that every long-running command has for
// the people and machines that operate it: /healthz, /readyz and /metrics.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Flag is the flag that sets Options.Addr in every command. Errors name it.
const Flag = "--admin-addr"

const (
	readTimeout  = 5 * time.Second
	writeTimeout = 30 * time.Second // a scrape of a large registry
	idleTimeout  = 2 * time.Minute
	drainTimeout = 3 * time.Second
)

// Options of a Server.
type Options struct {
	// Addr is host:port to listen at. Port 0 takes a free one. An empty host
	// is loopback, not every interface: metrics and readiness tell a stranger
	// much. Say 0.0.0.0 to be scraped from elsewhere. Default 127.0.0.1:0.
	Addr string
	// Flag is what an error about Addr tells the reader to change. Default Flag.
	Flag string
	// Registry is what /metrics shows. Required.
	Registry *prometheus.Registry
	// Logger is required.
	Logger *slog.Logger
}

// Server answers /healthz (200 while the process runs and every liveness check
// passes, else 503 with a line for each that does not), /readyz (200 when every
// check passes, else 503; the body is JSON of check name to "ok" or why not) and /metrics (Prometheus or OpenMetrics text). Its methods may be
// called at any time, from any goroutine.
type Server struct {
	listener net.Listener
	handler  *http.ServeMux
	logger   *slog.Logger

	mu     sync.Mutex
	checks map[string]func() error // readiness
	lives  map[string]func() error // liveness
}

// New listens at once, so that a taken port is an error before anything else
// starts; Run serves. A server that will not Run must be closed.
func New(o Options) (*Server, error) {
	if o.Registry == nil || o.Logger == nil {
		return nil, errors.New("admin: Registry and Logger are required")
	}
	if o.Flag == "" {
		o.Flag = Flag
	}
	addr, err := loopback(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("admin address %q: %w; set %s to host:port", o.Addr, err, o.Flag)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("admin listener at %s: %w; set %s to another address", addr, cause(err), o.Flag)
	}
	s := &Server{listener: l, handler: http.NewServeMux(), logger: o.Logger, checks: map[string]func() error{}, lives: map[string]func() error{}}
	s.handler.HandleFunc("GET /healthz", s.healthz)
	s.handler.HandleFunc("GET /readyz", s.readyz)
	s.handler.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, Registry: o.Registry, MaxRequestsInFlight: 4,
	}))
	return s, nil
}

func loopback(addr string) (string, error) {
	if addr == "" {
		return "127.0.0.1:0", nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", cause(err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// cause is err without the address, which the caller's message has.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	if addr := (*net.AddrError)(nil); errors.As(err, &addr) {
		return errors.New(addr.Err)
	}
	return err
}

// Addr is the address the server listens at, with the port that was taken.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is where the server answers, for a log line or a terminal.
func (s *Server) URL() string { return "http://" + s.Addr() }

// AddCheck makes readiness depend on ready, which must answer from memory, at
// once: /readyz calls it on every request. A second check of the same name
// replaces the first.
func (s *Server) AddCheck(name string, ready func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = ready
}

// AddLiveness makes liveness depend on alive: whoever watches /healthz restarts
// the process when it fails. So it must tell of what only a restart mends, a
// loop that is stuck, and never of something that is down elsewhere. Else it is
// as AddCheck.
func (s *Server) AddLiveness(name string, alive func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lives[name] = alive
}

// Handle adds a handler for an http.ServeMux pattern.
func (s *Server) Handle(pattern string, h http.Handler) { s.handler.Handle(pattern, h) }

// Close stops listening. After Run it does nothing.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx is cancelled, then gives requests that are being
// answered 3 s. It returns nil after that.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler: s.handler, ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: 16 << 10,
	}
	s.logger.Info("admin listener up", "url", s.URL(), "paths", "/healthz /readyz /metrics")
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin listener at %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin listener at %s: %w", s.Addr(), err)
	}
	return nil
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	result, alive := s.ask(s.lives)
	if alive {
		_, _ = w.Write([]byte("ok\n"))
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	for _, name := range slices.Sorted(maps.Keys(result)) {
		_, _ = fmt.Fprintf(w, "%s: %s\n", name, result[name])
	}
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	result, ready := s.ask(s.checks)
	w.Header().Set("Content-Type", "application/json")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(result) // the client went away
}

// ask calls all of which, which the lock guards, and reports whether all pass.
func (s *Server) ask(which map[string]func() error) (map[string]string, bool) {
	s.mu.Lock()
	checks := maps.Clone(which)
	s.mu.Unlock()
	result, all := make(map[string]string, len(checks)), true
	for name, check := range checks {
		result[name] = "ok"
		if err := check(); err != nil {
			result[name], all = printable.Text(err.Error()), false
		}
	}
	return result, all
}
