// Command devstack is the whole platform in one process, on real engines: the
// Temporal Server with its Web UI, a Kafka-protocol broker and an MQTT broker in
// the process, PostgreSQL as its child, and between them the bridge, the poller,
// the session worker and RAEs that replay captures.
//
// It is for development and demonstration. Everything listens on loopback, and
// any RAE is let in.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/cli"
)

type grammar struct {
	cli.Flags

	Demo demoCmd `cmd:"" default:"withargs" help:"Start the stack, replay captures of LANs into it, and show what becomes of them."`
	Up   upCmd   `cmd:"" help:"Start the stack and wait: for your own edge, poller or worker."`
}

const description = `The whole Rollcall platform in one process, on real engines, for development.

Its state lives in one directory and survives a restart and kill -9.`

func main() {
	cli.Main(cli.App{Name: "devstack", Description: description, Grammar: &grammar{}})
}

// stackFlags are common to both commands.
type stackFlags struct {
	DataDir string `help:"Where all state lives." default:".rollcall" placeholder:"DIR" env:"DEVSTACK_DATA_DIR"`
	Reset   bool   `help:"Delete the state first: databases, topics, histories, registries."`

	DatabaseURL  cli.URL `help:"Use this PostgreSQL instead of starting one." placeholder:"URL" env:"DATABASE_URL"`
	TemporalPort int     `help:"Temporal's gRPC frontend." default:"7233"`
	UIPort       int     `help:"Temporal's Web UI." default:"8233"`
	KafkaPort    int     `help:"Kafka-protocol broker." default:"9092"`
	MQTTPort     int     `help:"MQTT broker." default:"1883"`
	PostgresPort int     `help:"PostgreSQL; 0 takes a free port." default:"0"`
	AdminPort    int     `help:"Metrics and readiness of the stack." default:"9464"`
	admin.AccessFlags
	Plain bool `help:"Print lines even if this is a terminal."`

	bare  bool // without poller and worker
	noRAE bool // nothing is replayed
}

// open prepares the data directory and a logger that writes into it: the
// terminal is for the view.
func (f stackFlags) open() (*slog.Logger, func() error, error) {
	if err := os.MkdirAll(f.DataDir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("--data-dir: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(f.DataDir, "devstack.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("--data-dir: %w", err)
	}
	return slog.New(slog.NewTextHandler(file, &slog.HandlerOptions{Level: slog.LevelInfo})), file.Close, nil
}

// live reports whether the view is drawn on a terminal.
func (f stackFlags) live() bool {
	return !f.Plain && term.IsTerminal(int(os.Stdout.Fd())) && term.IsTerminal(int(os.Stdin.Fd()))
}

type upCmd struct {
	stackFlags
	Bare bool `help:"Without the poller and the session worker: run your own."`
}

// Help is shown by up --help.
func (upCmd) Help() string {
	return `Starts Temporal, Kafka, MQTT, PostgreSQL, the bridge, the poller and the session worker, and prints where they answer. With --bare you start your own poller and worker, from a debugger for example. Point an edge at it:

  rollcall-edge run --rae my-rae --interface br-lan --mqtt-url mqtt://127.0.0.1:1883 --data-dir /var/lib/rollcall-edge

and look with the rollcall CLI:

  rollcall device list --database-url "$(cat .rollcall/database-url)"`
}

// Run implements the command.
func (c *upCmd) Run(ctx context.Context, env cli.Env) error {
	d := demoCmd{stackFlags: c.stackFlags}
	d.bare, d.noRAE = c.Bare, true
	return d.run(ctx, env)
}

type demoCmd struct {
	stackFlags
	Capture []string `help:"Capture file to replay (pcap or pcapng), each as a RAE of its own. Default: the recorded LAN that this binary brings." placeholder:"FILE" env:"CAPTURE"`
	Speed   *float64 `help:"Replay speed: 1 as recorded (the default), 10 ten times as fast, 0 as fast as it goes (the default with --once)." placeholder:"N" env:"SPEED"`
	Once    bool     `help:"Replay, wait until all is applied, compare edge, workflows and tables, and exit 0 if they are equal, else 1."`
	Report  string   `help:"With --once: write the verdict and the devices to this JSON file." placeholder:"FILE" env:"REPORT"`

	SnapshotInterval time.Duration `help:"Time between two snapshots of a session." default:"3h"`
	Timeout          time.Duration `help:"With --once: how long to wait until all is applied." default:"10m"`
}

// Help is shown by demo --help.
func (demoCmd) Help() string {
	return `Each capture is the LAN of one RAE. Its devices are recognised from DHCP, ARP, SSDP and mDNS, recorded by the edge, published over MQTT, carried through Kafka to one workflow for each device session, and written to PostgreSQL.

  devstack demo                                   replay the recorded LAN at its own speed
  devstack demo --capture my-lan.pcap --speed 10  another one, ten times as fast
  devstack demo --once --report out.json          replay, compare, and exit with the verdict

Killed at any point and started again, it goes on where it was.`
}

// Validate is called before anything starts.
func (c *demoCmd) Validate() error {
	if c.Speed != nil && *c.Speed < 0 {
		return fmt.Errorf("--speed %v is negative", *c.Speed)
	}
	if c.Report != "" && !c.Once {
		return errors.New("--report is written after the comparison, which only --once makes")
	}
	for _, capture := range c.Capture {
		if _, err := os.Stat(capture); err != nil {
			return fmt.Errorf("--capture: %w", err)
		}
	}
	return nil
}

func (c *demoCmd) replaySpeed() float64 {
	switch {
	case c.Speed != nil:
		return *c.Speed
	case c.Once:
		return 0
	}
	return 1
}

// Run implements the command.
func (c *demoCmd) Run(ctx context.Context, env cli.Env) error { return c.run(ctx, env) }
