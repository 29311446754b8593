package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/health"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// serviceFlags are the flags of every long-running command.
type serviceFlags struct{ admin.Flags }

func (f *serviceFlags) validate() error {
	if err := checkHostPort(f.AdminAddr); err != nil {
		return fmt.Errorf("%s: %w", admin.Flag, err)
	}
	return f.Options().Check()
}

// service is what a long-running command runs in: its metrics, its admin
// listener and its readiness.
type service struct {
	registry *prometheus.Registry
	admin    *admin.Server
	logger   *slog.Logger

	watching context.Context // ends when the service has ended, drain included
	watches  sync.WaitGroup
}

// component is a part of a service, as the packages of the project build them.
type component interface {
	Run(ctx context.Context) error
	Ready() error
}

// runService opens the admin listener and runs start until it returns or ctx
// is cancelled. While start waits for what it depends on, the service is alive
// and not ready.
func runService(ctx context.Context, env cli.Env, name string, flags serviceFlags, start func(context.Context, *service) error) error {
	s := &service{registry: prometheus.NewRegistry(), logger: env.Logger}
	s.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	o := flags.Options()
	o.Registry, o.Logger = s.registry, env.Logger
	var err error
	if s.admin, err = admin.New(o); err != nil {
		return err
	}
	s.admin.AddCheck(starting, func() error { return errors.New("waiting for what it needs") })
	if defaults := env.Defaults(); len(defaults) > 0 {
		env.Logger.Warn("addresses are not set, and their defaults are of this host or container alone", "defaults", defaults)
	}
	var stopWatching context.CancelFunc
	s.watching, stopWatching = context.WithCancel(context.WithoutCancel(ctx))

	// The listener outlives the service: a drain can be watched.
	listening, stopListening := context.WithCancel(context.WithoutCancel(ctx))
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return s.admin.Run(listening) })
	group.Go(func() error {
		defer stopListening()
		defer s.watches.Wait()
		defer stopWatching()
		env.Logger.Info("starting", "service", name, "version", cli.Version())
		if err := start(running, s); err != nil && !(errors.Is(err, context.Canceled) && ctx.Err() != nil) {
			return fmt.Errorf("%s: %w", name, err)
		}
		env.Logger.Info("stopped", "service", name)
		return nil
	})
	return group.Wait()
}

// starting is the check that there is until the first component runs.
const starting = "starting"

// watch makes the service ready only while d is, until the service has ended.
func (s *service) watch(d health.Dependency) {
	s.watches.Go(func() { s.admin.Watch(s.watching, d) })
}

// run runs a component of the service; the service is ready when all its
// components are.
func (s *service) run(ctx context.Context, name string, c component) error {
	s.admin.AddCheck(name, c.Ready)
	s.admin.RemoveCheck(starting)
	return c.Run(ctx)
}

// dependency is something that must answer before a service can start, and that
// the service needs for as long as it runs.
type dependency struct {
	name  string // also the name of the readiness check
	where string // without passwords
	hint  string // what whoever reads the log can do
	try   func(context.Context) error
	ask   func(context.Context) error // once the service runs. nil: try
	fatal func(error) bool            // nil: every error may pass
}

// tryTimeout bounds one try of a dependency.
const tryTimeout = 10 * time.Second

var dependencyBackoff = retry.Backoff{First: 500 * time.Millisecond, Max: 15 * time.Second}

// await tries d until it answers, and from then on has readiness follow it. It
// returns only the error of a cancelled ctx or one that waiting does not cure.
func (s *service) await(ctx context.Context, d dependency) error {
	s.admin.AddCheck(d.name, func() error { return fmt.Errorf("waiting for %s at %s", d.name, d.where) })
	if err := await(ctx, s.logger, d); err != nil {
		return err
	}
	ask := d.ask
	if ask == nil {
		ask = d.try
	}
	s.watch(health.Dependency{Name: d.name, Ask: func(ctx context.Context) error {
		if err := ask(ctx); err != nil {
			return fmt.Errorf("%s: %s", d.where, cli.OneLine(err)) // readers see it: without passwords
		}
		return nil
	}})
	return nil
}

func await(ctx context.Context, logger *slog.Logger, d dependency) error {
	start := time.Now()
	for n := 0; ; n++ {
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		err := d.try(try)
		cancel()
		switch {
		case err == nil:
			logger.Info("dependency answers", "dependency", d.name, "where", d.where, "after", time.Since(start).Round(time.Millisecond))
			return nil
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), fmt.Errorf("%s at %s: %w", d.name, d.where, err))
		case d.fatal != nil && d.fatal(err):
			return fmt.Errorf("%s at %s: %w", d.name, d.where, err)
		}
		pause := dependencyBackoff.Delay(n)
		logger.Warn("waiting for a dependency", "dependency", d.name, "where", d.where, "err", cli.OneLine(err), "do", d.hint, "retry_in", pause.Round(time.Millisecond))
		_ = retry.Sleep(ctx, pause) // the next try sees that ctx ended
	}
}

// checkHostPort reports why s is not host:port, or nil. The host may be empty.
func checkHostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: the port is not a number from 0 to 65535", s)
	}
	return nil
}
