package temporal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/schema/sqlite"
	temporalserver "go.temporal.io/server/temporal"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	databaseName = "temporal.db"
	logName      = "temporal.log"
)

// Server is a running Temporal Server.
type Server struct {
	server temporalserver.Server
	ui     *uiserver.Server
	addr   string
	uiAddr string
	logs   *logFile
}

// Start creates or reopens the state in Options.DataDir and returns when the
// namespace answers, its search attributes are registered and the Web UI serves.
// It takes about half a second.
//
// The ports should have been checked: the server's libraries end the process
// when they cannot listen.
func Start(ctx context.Context, o Options) (*Server, error) {
	o.setDefaults()
	addrs, err := o.validate()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("temporal: %w", err)
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("temporal: %w", err)
	}
	database := filepath.Join(dir, databaseName)
	if err := createSchema(ctx, database); err != nil {
		return nil, fmt.Errorf("temporal: %w", err)
	}
	store := sqliteConfig(database)
	if err := createNamespace(store, &o); err != nil {
		return nil, fmt.Errorf("temporal: %w", err)
	}
	logs, err := openLog(filepath.Join(dir, logName), maxLogBytes)
	if err != nil {
		return nil, fmt.Errorf("temporal: %w", err)
	}
	server, err := newServer(&o, addrs, store, logs)
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("temporal: start the server: %w", err), logs.Close())
	}
	s := &Server{server: server, addr: o.FrontendAddr, uiAddr: o.UIAddr, logs: logs}
	if err := s.finish(ctx, &o, addrs); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("temporal: %w", err), s.Close(stop))
	}
	return s, nil
}

// finish brings a started server to where others can use it.
func (s *Server) finish(ctx context.Context, o *Options, addrs addresses) error {
	if err := prepareNamespace(ctx, o); err != nil {
		return err
	}
	if o.UIAddr == "" {
		return nil
	}
	s.ui = newUI(addrs, o)
	go func() { _ = s.ui.Start() }() // ends the process if it cannot listen
	return waitHTTP(ctx, "http://"+o.UIAddr+"/healthz")
}

// Addr is the host:port of the gRPC frontend.
func (s *Server) Addr() string { return s.addr }

// UIAddr is the host:port of the Web UI, or empty.
func (s *Server) UIAddr() string { return s.uiAddr }

// Close stops the Web UI and then the services, and returns when they have
// stopped or ctx is done, whichever is first. Stop the workers before it:
// their long polls hold it up. What the server acknowledged is on disk either
// way.
func (s *Server) Close(ctx context.Context) error {
	if s.ui != nil {
		s.ui.Stop()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- errors.Join(s.server.Stop(), s.logs.Close()) }()
	select {
	case err := <-stopped:
		if err != nil {
			return fmt.Errorf("temporal: stop: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("temporal: still stopping: %w", context.Cause(ctx))
	}
}

// createNamespace writes the namespace straight into the database before the
// first start, so that the server never runs without it. No effect if it exists.
func createNamespace(store *config.SQL, o *Options) error {
	namespace, err := sqlite.NewNamespaceConfig(clusterName, o.Namespace, false, o.SearchAttributes)
	if err != nil {
		return fmt.Errorf("namespace %q: %w", o.Namespace, err)
	}
	namespace.Detail.Config.Retention = durationpb.New(o.Retention)
	if err := sqlite.CreateNamespaces(store, namespace); err != nil {
		return fmt.Errorf("namespace %q: %w", o.Namespace, err)
	}
	return nil
}

func newServer(o *Options, addrs addresses, store *config.SQL, logs *logFile) (temporalserver.Server, error) {
	cfg, hosts, err := serverConfig(o, addrs, store)
	if err != nil {
		return nil, err
	}
	return temporalserver.NewServer(
		temporalserver.WithConfig(cfg),
		temporalserver.ForServices(temporalserver.DefaultServices),
		temporalserver.WithStaticHosts(hosts),
		temporalserver.WithLogger(newLogger(logs)),
		temporalserver.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporalserver.WithClaimMapper(func(*config.Config) authorization.ClaimMapper {
			return authorization.NewNoopClaimMapper()
		}),
		temporalserver.WithDynamicConfigClient(dynamicSettings()),
	)
}

func newUI(addrs addresses, o *Options) *uiserver.Server {
	host := addrs.uiHost
	if net.ParseIP(host).To4() == nil {
		host = "[" + host + "]" // the UI joins host and port itself
	}
	return uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		Host:                host,
		Port:                addrs.uiPort,
		TemporalGRPCAddress: o.FrontendAddr,
		DefaultNamespace:    o.Namespace,
		EnableUI:            true,
		DisableNewsFetch:    true,
		HideLogs:            true,
		CORS:                uiconfig.CORS{CookieInsecure: true}, // plain HTTP on loopback
	}))
}

// waitHTTP returns when url answers 200.
func waitHTTP(ctx context.Context, url string) error {
	client := &http.Client{Timeout: time.Second}
	return poll(ctx, 20*time.Millisecond, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, response.Status)
		}
		return nil
	})
}

// poll calls try until it succeeds or ctx is done, and then returns its last error.
func poll(ctx context.Context, every time.Duration, try func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: last try: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
