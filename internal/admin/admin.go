// Package admin is the HTTP listener that every long-running command has for
// the people and machines that operate it: /healthz, /readyz, /metrics and what
// the command adds.
//
// docs/health.md says who may see what, and what keeps web pages out.
package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-platform/rollcall/internal/health"
	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Flag is the flag that sets Options.Addr in every command. Errors name it.
const Flag = "--admin-addr"

const (
	readTimeout  = 5 * time.Second
	writeTimeout = 30 * time.Second // a scrape of a large registry
	idleTimeout  = 2 * time.Minute
	drainTimeout = 3 * time.Second
	maxHeader    = 16 << 10
	maxBody      = 4 << 10 // no request has one
)

// Options of a Server.
type Options struct {
	// Addr is host:port to listen at. Port 0 takes a free one. An empty host
	// is loopback, not every interface. An address that other hosts reach needs
	// Access. Default 127.0.0.1:0.
	Addr string
	// Flag is what an error about Addr tells the reader to change. Default Flag.
	Flag string
	// Access says who may read metrics and details, and change anything.
	// Default: processes of this host may read, nobody may change.
	Access Access
	// Pprof serves Go's profiles below /debug/pprof/, as it serves /metrics.
	Pprof bool
	// Registry is what /metrics shows. Required.
	Registry *prometheus.Registry
	// Logger is required.
	Logger *slog.Logger
}

// Check reports what is wrong with the address and the files of Access, or nil.
// It opens nothing.
func (o Options) Check() error {
	_, _, err := o.listenAt()
	return err
}

// listenAt is the address to listen at, and whether it is loopback.
func (o Options) listenAt() (addr string, local bool, err error) {
	flag := cmp.Or(o.Flag, Flag)
	addr, err = loopback(o.Addr)
	if err != nil {
		return "", false, fmt.Errorf("admin address %q: %w; set %s to host:port", o.Addr, err, flag)
	}
	if err := o.Access.check(); err != nil {
		return "", false, err
	}
	host, port, _ := net.SplitHostPort(addr) // loopback has split it
	if local = isLoopback(host); !local && !o.Access.asks() {
		return "", false, fmt.Errorf("admin address %q can be reached from other hosts: set --admin-token-file to a file with a token, or --admin-tls-client-ca with --admin-tls-cert and --admin-tls-key, or %s to 127.0.0.1:%s", addr, flag, port)
	}
	return addr, local, nil
}

// Server answers
//
//   - /healthz: 200 while the process runs and every liveness check passes,
//     else 503 with a line for each that does not;
//   - /readyz: 200 when every check passes, else 503; the body is JSON, Report;
//   - /metrics: Prometheus or OpenMetrics text.
//
// Whoever must prove itself and does not gets of the first two the status code
// alone, and nothing else. Its methods may be called at any time, from any
// goroutine.
type Server struct {
	listener net.Listener
	scheme   string
	handler  *http.ServeMux
	gate     *gate
	logger   *slog.Logger
	ready    *health.Set

	mu    sync.Mutex
	lives map[string]func() error // liveness
}

// Report is the body of /readyz.
type Report struct {
	Ready bool `json:"ready"`
	// Checks by name. Nil where the client may not see them.
	Checks map[string]health.Status `json:"checks,omitempty"`
}

// New listens at once, so that a taken port is an error before anything else
// starts; Run serves. A server that will not Run must be closed.
func New(o Options) (*Server, error) {
	if o.Registry == nil || o.Logger == nil {
		return nil, errors.New("admin: Registry and Logger are required")
	}
	addr, local, err := o.listenAt()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("admin listener at %s: %w; set %s to another address", addr, cause(err), cmp.Or(o.Flag, Flag))
	}
	s := &Server{
		scheme: "http", handler: http.NewServeMux(), logger: o.Logger, ready: health.NewSet(), lives: map[string]func() error{},
		gate: &gate{access: o.Access, loopback: local, logger: o.Logger},
	}
	if s.listener, err = o.Access.listen(l, o.Logger); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if o.Access.Cert != "" {
		s.scheme = "https"
	}
	if err := o.Registry.Register(s.ready); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.handler.HandleFunc("GET /healthz", s.healthz)
	s.handler.HandleFunc("GET /readyz", s.readyz)
	s.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, Registry: o.Registry, MaxRequestsInFlight: 4,
	}))
	if o.Pprof {
		s.Handle("GET /debug/pprof/", http.HandlerFunc(pprof.Index))
		s.Handle("GET /debug/pprof/profile", http.HandlerFunc(pprof.Profile))
		s.Handle("GET /debug/pprof/symbol", http.HandlerFunc(pprof.Symbol))
		s.Handle("GET /debug/pprof/trace", http.HandlerFunc(pprof.Trace))
	}
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
func (s *Server) URL() string { return s.scheme + "://" + s.Addr() }

// AddCheck makes readiness depend on ready, which must answer from memory, at
// once: /readyz calls it on every request. A second check of the same name
// replaces the first.
func (s *Server) AddCheck(name string, ready func() error) { s.ready.Add(name, ready) }

// RemoveCheck removes a check, if there is one of this name.
func (s *Server) RemoveCheck(name string) { s.ready.Remove(name) }

// Watch makes readiness depend on d, and asks it until ctx ends.
func (s *Server) Watch(ctx context.Context, d health.Dependency) { s.ready.Watch(ctx, d) }

// AddLiveness makes liveness depend on alive: whoever watches /healthz restarts
// the process when it fails. So it must tell of what only a restart mends, a
// loop that is stuck, and never of something that is down elsewhere. Else it is
// as AddCheck.
func (s *Server) AddLiveness(name string, alive func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lives[name] = alive
}

// Handle adds a handler for an http.ServeMux pattern. It is served as /metrics
// is; with another method than GET and HEAD, to nobody where Access asks for
// nothing.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.handler.Handle(pattern, s.gate.protect(h))
}

// Close stops listening. After Run it does nothing.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx is cancelled, then gives requests that are being
// answered 3 s. It returns nil after that.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           s.gate.wrap(s.handler),
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug), // of what strangers send
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
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

func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	failing := s.failing()
	if len(failing) == 0 {
		_, _ = w.Write([]byte("ok\n"))
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	if !s.gate.trusts(r) {
		_, _ = w.Write([]byte("failing\n"))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(failing)) {
		_, _ = fmt.Fprintf(w, "%s: %s\n", name, printable.Text(failing[name].Error()))
	}
}

// failing are the liveness checks that do not pass.
func (s *Server) failing() map[string]error {
	s.mu.Lock()
	lives := maps.Clone(s.lives)
	s.mu.Unlock()
	failing := map[string]error{}
	for name, alive := range lives {
		if err := alive(); err != nil {
			failing[name] = err
		}
	}
	return failing
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	var report Report
	report.Checks, report.Ready = s.ready.Check()
	if !s.gate.trusts(r) {
		report.Checks = nil
	}
	w.Header().Set("Content-Type", "application/json")
	if !report.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(report) // the client went away
}
