package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/broker"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/kafka"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/ports"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/temporal"
	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/groupcommit"
	"github.com/rollcall-platform/rollcall/internal/health"
	kafkaclient "github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/postgres"
	"github.com/rollcall-platform/rollcall/internal/request"
	"github.com/rollcall-platform/rollcall/internal/sdkmetrics"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/bridge"
	"github.com/rollcall-platform/rollcall/workers/poller"
	"github.com/rollcall-platform/rollcall/workers/session"
)

// stack is everything but the RAEs. What was started last is stopped first.
type stack struct {
	flags    stackFlags
	log      *slog.Logger
	registry *prometheus.Registry

	databaseURL string
	kafkaAddr   string
	store       *store.Store
	temporal    client.Client
	kafka       *kgo.Client
	checks      map[string]func() error
	watched     []health.Dependency
	polls       *session.Polls
	admin       *admin.Server
	failed      chan error // a component that ended by itself

	stops []func(context.Context) error
}

// stopTimeout bounds the stop of the whole stack.
const stopTimeout = 45 * time.Second

// startStack starts everything in the order of dependence. step is told what
// comes next. On an error, what was started is stopped.
func startStack(ctx context.Context, flags stackFlags, log *slog.Logger, step func(string)) (_ *stack, err error) {
	s := &stack{flags: flags, log: log, registry: prometheus.NewRegistry(), checks: map[string]func() error{}, polls: session.NewPolls(), failed: make(chan error, 8)}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if err := s.own(); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name  string
		start func(context.Context) error
		skip  bool
	}{
		{"PostgreSQL", s.startPostgres, false},
		{"the Kafka-protocol broker", s.startKafka, false},
		{"the Temporal Server", s.startTemporal, false},
		{"the MQTT broker with the bridge", s.startBroker, false},
		{"the session worker", s.startWorker, flags.bare},
		{"the poller", s.startPoller, flags.bare},
		{"the admin listener", s.startAdmin, false},
	} {
		if part.skip {
			continue
		}
		step("starting " + part.name)
		if err := part.start(ctx); err != nil {
			return nil, fmt.Errorf("start %s: %w", part.name, err)
		}
	}
	return s, nil
}

func (s *stack) onStop(stop func(context.Context) error) { s.stops = append(s.stops, stop) }

// stop stops what runs, last started first, within stopTimeout.
func (s *stack) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	for i := len(s.stops) - 1; i >= 0; i-- {
		errs = append(errs, s.stops[i](ctx))
	}
	s.stops = nil
	return errors.Join(errs...)
}

// run keeps a component running until stop, or until the returned function is
// called.
func (s *stack) run(name string, component func(context.Context) error) (halt func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := component(ctx); err != nil && ctx.Err() == nil {
			s.failed <- fmt.Errorf("%s: %w", name, err)
		}
	}()
	halt = func(stop context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-stop.Done():
			return fmt.Errorf("%s did not stop in time", name)
		}
	}
	s.onStop(halt)
	return halt
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// own checks the ports and takes the data directory.
func (s *stack) own() error {
	lock, err := ports.LockDir(s.flags.DataDir)
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { return lock.Release() })
	wanted := []ports.Port{
		{Flag: "--temporal-port", Addr: loopback(s.flags.TemporalPort)},
		{Flag: "--ui-port", Addr: loopback(s.flags.UIPort)},
		{Flag: "--kafka-port", Addr: loopback(s.flags.KafkaPort)},
		{Flag: "--mqtt-port", Addr: loopback(s.flags.MQTTPort)},
		{Flag: "--admin-port", Addr: loopback(s.flags.AdminPort)},
	}
	if s.flags.PostgresPort != 0 {
		wanted = append(wanted, ports.Port{Flag: "--postgres-port", Addr: loopback(s.flags.PostgresPort)})
	}
	if err := ports.Check(wanted...); err != nil {
		return err
	}
	if !s.flags.Reset {
		return nil
	}
	for _, name := range stateDirs {
		if err := os.RemoveAll(s.dir(name)); err != nil {
			return fmt.Errorf("--reset: %w", err)
		}
	}
	return nil
}

// stateDirs are what the data directory holds, beside the log and the lock.
var stateDirs = []string{"postgres", "kafka", "temporal", "rae", recordingDir}

// recordingDir has the capture that is replayed where none is given. Its name is
// in the serial of the RAE.
const recordingDir = "lan"

func (s *stack) dir(name string) string { return filepath.Join(s.flags.DataDir, name) }

// databaseURLFile holds the URL, password included, for the rollcall CLI.
const databaseURLFile = "database-url"

func (s *stack) startPostgres(ctx context.Context) error {
	s.databaseURL = s.flags.DatabaseURL.Reveal()
	if s.databaseURL == "" {
		server, err := postgres.Start(ctx, postgres.Options{DataDir: s.dir("postgres"), Port: s.flags.PostgresPort, Logger: s.log})
		if err != nil {
			return err
		}
		s.onStop(func(context.Context) error { server.Stop(); return nil })
		s.databaseURL = server.URL()
	}
	if err := os.WriteFile(s.dir(databaseURLFile), []byte(s.databaseURL+"\n"), 0o600); err != nil {
		return err
	}
	if _, err := store.Migrate(ctx, s.databaseURL, s.log); err != nil {
		return err
	}
	var err error
	s.store, err = store.Open(ctx, store.Options{URL: s.databaseURL, Logger: s.log, Registerer: s.registry})
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { s.store.Close(); return nil })
	s.watched = append(s.watched, health.Dependency{Name: "database", Ask: s.store.Ping})
	return nil
}

func (s *stack) startKafka(ctx context.Context) error {
	b, err := kafka.Start(ctx, kafka.Options{DataDir: s.dir("kafka"), Addr: loopback(s.flags.KafkaPort), Logger: s.log})
	if err != nil {
		return err
	}
	s.onStop(b.Close)
	s.kafkaAddr = b.Addr()
	if s.kafka, err = kgo.NewClient(kgo.SeedBrokers(s.kafkaAddr)); err != nil {
		return err
	}
	s.onStop(func(context.Context) error { s.kafka.Close(); return nil })
	return nil
}

func (s *stack) startTemporal(ctx context.Context) error {
	server, err := temporal.Start(ctx, temporal.Options{
		DataDir: s.dir("temporal"), Logger: s.log,
		FrontendAddr: loopback(s.flags.TemporalPort), UIAddr: loopback(s.flags.UIPort),
	})
	if err != nil {
		return err
	}
	s.onStop(server.Close)
	metrics, err := sdkmetrics.New(s.registry)
	if err != nil {
		return err
	}
	s.temporal, err = client.DialContext(ctx, client.Options{
		HostPort: server.Addr(), Logger: sdklog.NewStructuredLogger(s.log), MetricsHandler: metrics,
		ConnectionOptions: client.ConnectionOptions{
			GrpcCompression: &client.GrpcCompressionNone{}, // it stays in the process
			DialOptions:     []grpc.DialOption{grpc.WithChainUnaryInterceptor(s.polls.Intercept)},
		},
	})
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { s.temporal.Close(); return nil })
	s.watched = append(s.watched, health.Dependency{Name: "temporal", Ask: func(ctx context.Context) error {
		_, err := s.temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	}})
	return nil
}

func (s *stack) kafkaOptions() kafkaclient.Options {
	return kafkaclient.Options{Brokers: []string{s.kafkaAddr}}
}

func (s *stack) startBroker(ctx context.Context) error {
	forwarder, err := bridge.NewForwarder(bridge.ForwarderOptions{Kafka: s.kafkaOptions(), Logger: s.log, Registerer: s.registry})
	if err != nil {
		return err
	}
	s.onStop(func(ctx context.Context) error { return forwarder.Close(ctx) })
	s.watched = append(s.watched, health.Dependency{Name: "kafka", Ask: forwarder.Ping})
	b, err := broker.Start(ctx, broker.Options{
		Addr: loopback(s.flags.MQTTPort), Forwarder: forwarder, AllowAnyOnLoopback: true, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.onStop(b.Close)
	return s.startDownlink(b)
}

// startDownlink carries commands from Kafka to the broker in this process.
func (s *stack) startDownlink(b *broker.Broker) error {
	d, err := bridge.NewDownlink(bridge.DownlinkOptions{Kafka: s.kafkaOptions(), Publisher: inProcess{b}, Logger: s.log, Registerer: s.registry})
	if err != nil {
		return err
	}
	s.checks["commands"] = d.Ready
	s.run("downlink", d.Run)
	return nil
}

// inProcess publishes to the broker in this process. That has no use for the
// properties of MQTT 5: the edge reads the expiry in the payload.
type inProcess struct{ broker *broker.Broker }

// Publish implements bridge.Publisher.
func (p inProcess) Publish(_ context.Context, m bridge.Message) error {
	err := p.broker.Publish(m.Topic, m.Payload)
	if errors.Is(err, broker.ErrNoSubscriber) {
		return bridge.ErrUnheard
	}
	return err
}

func (s *stack) startWorker(context.Context) error {
	commits, err := groupcommit.New(groupcommit.Options{Store: s.store, Registerer: s.registry})
	if err != nil {
		return err
	}
	s.onStop(commits.Close)
	commands, err := request.NewSender(s.kafkaOptions(), "", nil)
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { commands.Close(); return nil })
	w, err := session.New(session.Options{
		Client: s.temporal, Store: s.store, Claims: s.store, Applier: commits, Commands: commands, Polls: s.polls, Logger: s.log, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.checks["worker"] = w.Ready
	s.run("session worker", w.Run)
	return nil
}

func (s *stack) startPoller(context.Context) error {
	p, err := poller.New(poller.Options{
		Kafka: s.kafkaOptions(), Temporal: s.temporal, Acks: s.store, Logger: s.log, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.checks["poller"] = p.Ready
	s.run("poller", p.Run)
	return nil
}

func (s *stack) startAdmin(context.Context) error {
	o := s.flags.AccessFlags.Options()
	o.Addr, o.Flag, o.Registry, o.Logger = loopback(s.flags.AdminPort), "--admin-port", s.registry, s.log
	server, err := admin.New(o)
	if err != nil {
		return err
	}
	for name, ready := range s.checks {
		server.AddCheck(name, ready)
	}
	for _, d := range s.watched {
		s.run("check of "+d.Name, func(ctx context.Context) error { server.Watch(ctx, d); return nil })
	}
	s.admin = server
	s.run("admin listener", server.Run)
	return nil
}
