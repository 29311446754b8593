// Command bench measures the platform: the real poller and the real session
// worker, as processes, on a real Temporal Server, a real PostgreSQL that syncs
// every commit, and a Kafka-protocol broker on loopback. Every figure is a ratio
// to something measured in the same run, or stands beside its floor.
// docs/sizing.md says how to read it; "make bench" runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/postgres"
)

type grammar struct {
	cli.Flags

	Run      runCmd      `cmd:"" default:"withargs" help:"Measure, print progress, then a table."`
	Temporal temporalCmd `cmd:"" hidden:""`
	Kafka    kafkaCmd    `cmd:"" hidden:""`
	Plain    plainCmd    `cmd:"" hidden:""`
}

func main() {
	cli.Main(cli.App{Name: "bench", Description: "Measures the platform on this machine.", Grammar: &grammar{}})
}

type runCmd struct {
	Quick        bool     `help:"Smaller numbers: under 8 minutes."`
	Tiny         bool     `hidden:"" help:"Numbers that show only that the benchmark itself works."`
	Only         []string `help:"Run only these scenarios, and those that they are measured against." placeholder:"NAME,…"`
	Out          string   `help:"Write the figures to this file, as JSON." placeholder:"FILE"`
	Rollcall     string   `help:"The rollcall binary. Default: the one beside this binary." placeholder:"FILE"`
	Baseline     string   `help:"An older rollcall binary, for the scenario paired." placeholder:"FILE" env:"BENCH_BASELINE"`
	KafkaBrokers []string `help:"Use this Kafka. Default: the development broker, in a process of its own." placeholder:"HOST:PORT,…" env:"BENCH_KAFKA_BROKERS"`
	Dir          string   `help:"Keep data and logs below this directory while measuring. Default: the system's for temporary files." placeholder:"DIR"`
	Keep         bool     `help:"Leave data and logs where they are."`
}

// Help is shown by bench run --help.
func (runCmd) Help() string {
	names := make([]string, len(scenarios))
	for i, s := range scenarios {
		names[i] = s.name
	}
	return "Scenarios: " + strings.Join(names, ", ") + `.

Nothing else should run on the machine meanwhile. It exits 1 when a scenario could not be measured or left wrong tables; a goal that is not met is in the table and no failure.`
}

// Validate is called before anything starts.
func (c *runCmd) Validate() error {
	for _, name := range c.Only {
		if find(name) == nil {
			return fmt.Errorf("--only %s: no such scenario", name)
		}
	}
	return nil
}

// scenario measures something and adds its figures.
type scenario struct {
	name  string
	about string
	needs []string // are run first, also when they are not asked for
	run   func(*bench, context.Context) error
}

// scenarios in the order in which they run.
var scenarios = []scenario{
	{"floor", "what this machine's Temporal can do", nil, (*bench).measureFloor},
	{"plain", "the consumer that a team would write first", nil, (*bench).measurePlain},
	{"backlog", "records that wait in Kafka", []string{"plain"}, (*bench).measureBacklog},
	{"sessions", "every record from a different session", []string{"floor"}, (*bench).measureSessions},
	{"paired", "this binary and an older one (--baseline) by turns, as in sessions", nil, (*bench).measurePaired},
	{"group-commit", "many sessions in a transaction against one", nil, (*bench).measureGroupCommit},
	{"light", "50 records a second", nil, (*bench).measureLight},
	{"steady", "900 records a second; with it the bytes of offset commits", []string{"floor"}, (*bench).measureSteady},
	{"burst", "new sessions all at once, on top of steady", []string{"floor"}, (*bench).measureBurst},
	{"kill", "the poller killed in the burst", []string{"burst"}, (*bench).measureKill},
	{"outage", "the database stopped in steady load, then the worker", nil, (*bench).measureOutage},
}

func find(name string) *scenario {
	for i := range scenarios {
		if scenarios[i].name == name {
			return &scenarios[i]
		}
	}
	return nil
}

// selected are the scenarios to run, with what they need.
func selected(only []string) []scenario {
	wanted := map[string]bool{}
	var want func(string)
	want = func(name string) {
		wanted[name] = true
		for _, need := range find(name).needs {
			want(need)
		}
	}
	for _, name := range only {
		want(name)
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return len(only) > 0 && !wanted[s.name] })
}

// bench is one run.
type bench struct {
	*runCmd
	size     sizes
	id       string // in the names of topics, for a Kafka that outlives the run
	dir      string
	out      io.Writer
	begun    time.Time
	postgres *postgres.Server

	figures []figure

	// What later scenarios are measured against.
	floor, startFloor      float64 // sessions a second
	plainRate, batchedRate float64 // records a second
	waited                 float64 // records a second, of a backlog as deep as an outage leaves
	burstTime, plainBurst  float64 // seconds

	failed []string // scenarios that could not be measured, or left wrong tables
}

// say prints a line of progress.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, "%5.0fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

// add notes a figure.
func (b *bench) add(name string, value float64, unit, goal string) {
	f := newFigure(name, value, unit, goal)
	b.figures = append(b.figures, f)
	line := fmt.Sprintf("%s = %s %s", f.Name, f.value(), f.Unit)
	if goal != "" {
		line += fmt.Sprintf(" (goal %s, met: %s)", goal, f.verdict())
	}
	b.say("%s", line)
}

// tables compares the database with the model and notes how many sessions are
// wrong. If any is, that is an error, and no figure of the scenario counts.
func (b *bench) tables(ctx context.Context, w *world, fleets ...*fleet) error {
	wrong, err := w.wrong(ctx, fleets...)
	if err != nil {
		return fmt.Errorf("compare the tables: %w", err)
	}
	b.add(w.name+".wrong_sessions", float64(wrong), "sessions", "= 0")
	if wrong > 0 {
		return fmt.Errorf("%s: %d sessions have wrong rows", w.name, wrong)
	}
	return nil
}

// measure runs a scenario. One that fails meets none of its goals.
func (b *bench) measure(ctx context.Context, s scenario) {
	first := len(b.figures)
	b.say("%s: %s", s.name, s.about)
	err := s.run(b, ctx)
	if err == nil {
		return
	}
	b.say("%s: FAILED: %s", s.name, err)
	b.failed = append(b.failed, s.name)
	for i := first; i < len(b.figures); i++ {
		if b.figures[i].Met != nil {
			no := false
			b.figures[i].Met = &no
		}
	}
	b.add(s.name+".completed", 0, "", "= 1")
}

// Run measures.
func (c *runCmd) Run(ctx context.Context, env cli.Env) (err error) {
	b := &bench{runCmd: c, size: full, out: env.Stdout, begun: time.Now(), id: strconv.FormatInt(time.Now().UnixNano(), 36)}
	switch {
	case c.Tiny:
		b.size = tiny
	case c.Quick:
		b.size = quick
	}
	if err := b.prepare(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.cleanUp()) }()
	if err := b.startPostgres(ctx, 0); err != nil {
		return err
	}
	defer func() { b.postgres.Stop() }()
	for _, s := range selected(c.Only) {
		if b.measure(ctx, s); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	_, _ = fmt.Fprintln(b.out)
	printTable(b.out, b.figures)
	if c.Out != "" {
		if err := writeJSON(c.Out, b.figures); err != nil {
			return err
		}
	}
	if len(b.failed) > 0 {
		return fmt.Errorf("not measured, or wrong: %s", strings.Join(b.failed, ", "))
	}
	return nil
}

// prepare finds the binary and makes the directory.
func (b *bench) prepare() error {
	if b.Rollcall == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		b.Rollcall = filepath.Join(filepath.Dir(self), "rollcall")
	}
	if _, err := os.Stat(b.Rollcall); err != nil {
		return fmt.Errorf("the rollcall binary: %w; build it (make build), or name it with --rollcall", err)
	}
	var err error
	b.dir, err = os.MkdirTemp(b.Dir, "rollcall-bench-")
	return err
}

func (b *bench) cleanUp() error {
	if b.Keep {
		b.say("data and logs are in %s", b.dir)
		return nil
	}
	return os.RemoveAll(b.dir)
}

// startPostgres starts the database, or starts it again on the port it had.
func (b *bench) startPostgres(ctx context.Context, port int) error {
	server, err := postgres.Start(ctx, postgres.Options{
		DataDir: filepath.Join(b.dir, "postgres"), Port: port, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	b.postgres = server
	return nil
}
