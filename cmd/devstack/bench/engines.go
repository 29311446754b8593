package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"github.com/rollcall-platform/rollcall/cmd/devstack/bench/plain"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/kafka"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/temporal"
	"github.com/rollcall-platform/rollcall/internal/cli"
)

// The engines and the plain consumer are this binary again, each in a process
// of its own: so memory and processor time of each can be told apart, and the
// benchmark's own garbage collection delays none of them.

type temporalCmd struct {
	DataDir string `required:""`
}

// Run serves Temporal and prints where, when it answers.
func (c *temporalCmd) Run(ctx context.Context, env cli.Env) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	server, err := temporal.Start(ctx, temporal.Options{DataDir: c.DataDir, FrontendAddr: addr, Logger: env.Logger})
	if err != nil {
		return err
	}
	return serve(ctx, env, server)
}

type kafkaCmd struct {
	DataDir string `required:""`
}

// Run serves Kafka's protocol and prints where.
func (c *kafkaCmd) Run(ctx context.Context, env cli.Env) error {
	broker, err := kafka.Start(ctx, kafka.Options{DataDir: c.DataDir, Addr: "127.0.0.1:0", Topics: []kafka.Topic{}, Logger: env.Logger})
	if err != nil {
		return err
	}
	return serve(ctx, env, broker)
}

// serve prints where e answers, and closes it when ctx ends.
func serve(ctx context.Context, env cli.Env, e interface {
	Addr() string
	Close(context.Context) error
}) error {
	_, _ = fmt.Fprintln(env.Stdout, e.Addr())
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return e.Close(stopping)
}

type plainCmd struct {
	Brokers     []string `required:""`
	Topic       string   `required:""`
	Group       string   `required:""`
	DatabaseURL cli.URL  `required:"" env:"DATABASE_URL"`
	Batched     bool
}

// Run consumes until it is told to stop.
func (c *plainCmd) Run(ctx context.Context, env cli.Env) error {
	return plain.Run(ctx, plain.Options{
		Brokers: c.Brokers, Topic: c.Topic, Group: c.Group, DatabaseURL: c.DatabaseURL.Reveal(), Batched: c.Batched, Logger: env.Logger,
	})
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// self starts this binary again under the name of an engine and returns what
// it prints first.
func self(ctx context.Context, dir, engine string, env []string, args ...string) (*process, string, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	all := append([]string{path, engine, "--log-level", "warn", "--data-dir", filepath.Join(dir, engine)}, args...)
	return spawn(ctx, engine, filepath.Join(dir, engine+".log"), env, true, all...)
}

// startTemporal starts a Temporal Server with nothing in it. It gets GOGC=400,
// which is worth a seventh of its throughput; floor and platform are measured
// with the same.
func startTemporal(ctx context.Context, dir string) (*process, string, error) {
	return self(ctx, dir, "temporal", []string{"GOGC=400"})
}

func dialTemporal(ctx context.Context, addr string) (client.Client, error) {
	c, err := client.DialContext(ctx, client.Options{
		HostPort: addr, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
		ConnectionOptions: client.ConnectionOptions{GrpcCompression: &client.GrpcCompressionNone{}}, // as cmd/rollcall does
	})
	if err != nil {
		return nil, fmt.Errorf("dial Temporal: %w", err)
	}
	return c, nil
}

var errEnded = errors.New("a process that is measured has ended by itself")
