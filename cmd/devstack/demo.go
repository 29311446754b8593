package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/check"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/view"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// run is the whole demonstration: start, replay, show; with --once wait, check
// and report; stop.
func (c *demoCmd) run(ctx context.Context, env cli.Env) (err error) {
	log, closeLog, err := c.open()
	if err != nil {
		return err
	}
	defer func() { _ = closeLog() }()
	begun := time.Now()
	say := func(format string, args ...any) { fmt.Fprintf(env.Stderr, format+"\n", args...) }

	s, err := startStack(ctx, c.stackFlags, log, func(what string) { say("%6.1fs  %s", time.Since(begun).Seconds(), what) })
	if err != nil {
		return err
	}
	defer func() {
		say("stopping: draining the poller, then the rest")
		err = errors.Join(err, s.stop())
	}()
	raes, err := s.startRAEs(c)
	if err != nil {
		return err
	}
	w := newWatch(s, raes, begun)
	if !c.live() {
		for _, l := range w.links() {
			say("        %s: %s", l.Name, l.URL)
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go w.run(ctx)
	go func() {
		select {
		case err := <-s.failed:
			stop(err)
		case <-ctx.Done():
		}
	}()
	applied := make(chan error, 1)
	if c.Once {
		go func() {
			applied <- w.awaitApplied(ctx, c.Timeout)
			stop(errApplied)
		}()
	}
	if err := c.show(ctx, env.Stdout, w); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errApplied) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if !c.Once {
		return nil
	}
	select {
	case err = <-applied:
	default:
		return errors.New("stopped before all was applied: nothing was compared")
	}
	if err != nil {
		return err
	}
	return c.verdict(context.WithoutCancel(ctx), env.Stdout, s, raes)
}

var errApplied = errors.New("all is applied")

// show shows the stack until ctx is cancelled or the person quits.
func (c *demoCmd) show(ctx context.Context, out io.Writer, w *watch) error {
	if c.live() {
		return view.Screen(ctx, os.Stdout, w.status)
	}
	return view.Lines(ctx, out, w.status)
}

// verdict compares, prints and reports. An unequal comparison is an error.
func (c *demoCmd) verdict(ctx context.Context, out io.Writer, s *stack, raes []*rae) error {
	db, err := pgx.Connect(ctx, s.databaseURL)
	if err != nil {
		return fmt.Errorf("connect for the comparison: %w", err)
	}
	defer func() { _ = db.Close(ctx) }()
	var serials []string
	var records []check.Record
	for _, r := range raes {
		serials = append(serials, r.serial)
		records = append(records, r.records()...)
	}
	cloud := check.Stack{DB: db, Temporal: s.temporal, Kafka: s.kafka, DeadLetterTopic: device.KafkaDeadLetters}
	report, err := check.Run(ctx, serials, records, cloud)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	for _, r := range raes {
		if err := report.CompareTruth(r.capture, r.serial); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, report)
	if c.Report != "" {
		b, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		if err := os.WriteFile(c.Report, append(b, '\n'), 0o644); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		fmt.Fprintf(out, "The report is in %s.\n", c.Report)
	}
	if !report.OK {
		return errors.New("edge, workflows and tables are not equal")
	}
	return nil
}

// serialOf makes a RAE's serial from its capture's path: the file's name, with
// its folder's where the name alone says little.
func serialOf(capture string) string {
	name := strings.TrimSuffix(filepath.Base(capture), filepath.Ext(capture))
	if dir := filepath.Base(filepath.Dir(capture)); dir != "." && dir != "/" && dir != name {
		name = dir + "-" + name
	}
	return "demo-" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, name)
}
