package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/printable"
	"github.com/rollcall-platform/rollcall/workers/session"
	"github.com/rollcall-platform/rollcall/workers/session/rollout"
)

type deploymentCmd struct {
	Status deploymentStatusCmd `cmd:"" help:"Show a deployment's versions, and where the sessions are."`
	Roll   deploymentRollCmd   `cmd:"" help:"Move the running sessions to a new version."`
}

// Help is printed by deployment --help.
func (*deploymentCmd) Help() string {
	return `Workers that run with --deployment and --build-id are versions of a Worker Deployment. A session stays on the version that it runs on, until it continues as new on the one that is current then: so workflow code may change without breaking a session that runs.

Example:

    rollcall deployment status --deployment rollcall`
}

// deploymentFlags say which deployment, and where.
type deploymentFlags struct {
	Temporal   temporalFlags `embed:"" group:"temporal"`
	Deployment string        `help:"The Worker Deployment." required:"" env:"ROLLCALL_DEPLOYMENT,TEMPORAL_DEPLOYMENT_NAME" placeholder:"NAME"`
	TaskQueue  string        `help:"Task queue of the workers." default:"rollcall-sessions" env:"ROLLCALL_TASK_QUEUE"`
}

type deploymentStatusCmd struct {
	deploymentFlags `embed:""`
	Output          outputFlag `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
}

// Help is printed by deployment status --help.
func (*deploymentStatusCmd) Help() string {
	return `Shows each version, newest first: whether it is current, ramping, draining, drained or inactive, how many workers poll for it, and how many sessions run on it. The sessions of no version are those of unversioned workers, and those that have continued as new just now. Exits 3 when there is no such deployment.

Example:

    rollcall deployment status --deployment rollcall`
}

// Validate is called by kong before anything starts.
func (c *deploymentStatusCmd) Validate() error { return c.Temporal.validate() }

// Run looks.
func (c *deploymentStatusCmd) Run(ctx context.Context, env cli.Env) error {
	temporal, namespace, err := c.Temporal.dial(ctx, env.Logger)
	if err != nil {
		return err
	}
	defer temporal.Close()
	s, err := rollout.Look(ctx, temporal, namespace, c.TaskQueue, c.Deployment)
	if errors.Is(err, rollout.ErrNoDeployment) {
		return &cli.Error{Code: cli.ExitNotFound, Err: err}
	}
	if err != nil {
		return err
	}
	return c.Output.write(env.Stdout, s, func(w *tabwriter.Writer) {
		row(w, "VERSION", "STATE", "SESSIONS", "WORKERS", "SINCE")
		for _, v := range s.Versions {
			state := v.State
			if v.BuildID == s.Ramping {
				state = fmt.Sprintf("ramping, %g %%", s.RampPercent)
			}
			row(w, v.BuildID, state, v.Sessions, v.Workers, stamp(v.Created))
		}
		row(w, "-", session.Unversioned, s.Unversioned.Sessions, s.Unversioned.Workers, "-")
		if s.Failing > 0 {
			section(w, fmt.Sprintf("The workflow tasks of %d sessions fail: temporal workflow list --query 'TemporalReportedProblems IS NOT NULL'", s.Failing))
		}
	})
}

type deploymentRollCmd struct {
	deploymentFlags `embed:""`
	BuildID         string        `name:"build-id" help:"The version to roll to. Its workers must be running." required:"" env:"ROLLCALL_BUILD_ID,TEMPORAL_WORKER_BUILD_ID" placeholder:"ID"`
	Ramp            []float64     `help:"Percentages of the sessions to move first. None: --ramp=\"\"." default:"10,50" placeholder:"PERCENT"`
	Hold            time.Duration `help:"How long to watch each of them for failing workflow tasks; then the ramp goes back to 0." default:"30s"`
	WorkerTimeout   time.Duration `help:"How long to wait for workers of the version." default:"2m"`
	DrainTimeout    time.Duration `help:"How long to wait until all sessions have moved and the server counts the old version as drained. It looks every few minutes." default:"10m"`
	NudgeRate       float64       `help:"Idle sessions a second that are told to move." default:"100"`

	Prove    bool          `help:"Compare what Kafka holds with what the database has, event by event." default:"true" negatable:""`
	Settle   time.Duration `help:"How long the database may lag behind Kafka before what it lacks counts as lost." default:"2m"`
	Kafka    kafkaFlags    `embed:"" group:"kafka"`
	Topic    string        `help:"Kafka topic of the devices' events." default:"rollcall.device-events" env:"ROLLCALL_TOPIC"`
	Group    string        `help:"Consumer group of the pollers." default:"rollcall-poller" env:"ROLLCALL_GROUP"`
	Database databaseFlags `embed:"" group:"database"`
}

// Help is printed by deployment roll --help.
func (*deploymentRollCmd) Help() string {
	return `Waits for workers of the version, ramps to it in steps and watches, makes it current, and tells the sessions that are idle to move; busy ones move by themselves. Then it waits until the old version is drained: its workers can be stopped after that, not before.

The report on stdout says how many sessions moved and how many are still pinned, how many events each version has applied, and what is lost: each event that was in Kafka and not committed when the roll began, or came before the last session had moved, must be in the database. Exit code 0 is for all moved, nothing lost and the old version drained. Killed at any point, it can be run again. To go back, roll to the old version.

Examples:

    rollcall worker --deployment rollcall --build-id v2 &

    rollcall deployment roll --deployment rollcall --build-id v2 --ramp 10,50 --hold 1m

    rollcall deployment roll --deployment rollcall --build-id v1 --ramp "" --no-prove`
}

// Validate is called by kong before anything starts.
func (c *deploymentRollCmd) Validate() error {
	v := session.Version{Deployment: c.Deployment, BuildID: c.BuildID}
	if err := errors.Join(v.Check(), c.Temporal.validate()); err != nil {
		return err
	}
	if c.Hold < 0 || c.WorkerTimeout <= 0 || c.DrainTimeout <= 0 || c.NudgeRate <= 0 || c.Settle <= 0 {
		return errors.New("--worker-timeout, --drain-timeout, --nudge-rate and --settle must be more than 0, --hold not negative")
	}
	for i, percent := range c.Ramp {
		if percent <= 0 || percent > 100 || i > 0 && percent <= c.Ramp[i-1] {
			return errors.New("--ramp: percentages above 0 and up to 100, each more than the one before")
		}
	}
	if !c.Prove {
		return nil
	}
	if err := errors.Join(c.Kafka.validate(), c.Database.validate()); err != nil {
		return fmt.Errorf("%w; or roll without proof: --no-prove", err)
	}
	return nil
}

// Run rolls and prints the report.
func (c *deploymentRollCmd) Run(ctx context.Context, env cli.Env) error {
	temporal, namespace, err := c.Temporal.dial(ctx, env.Logger)
	if err != nil {
		return err
	}
	defer temporal.Close()
	o := rollout.Options{
		Client: temporal, Namespace: namespace, TaskQueue: c.TaskQueue,
		To:   session.Version{Deployment: c.Deployment, BuildID: c.BuildID},
		Ramp: c.Ramp, Hold: c.Hold, PollerTimeout: c.WorkerTimeout, DrainTimeout: c.DrainTimeout, NudgeRate: c.NudgeRate,
		Say: func(format string, args ...any) {
			_, _ = fmt.Fprintln(env.Stderr, printable.Text(fmt.Sprintf(format, args...)))
		},
	}
	if c.Prove {
		db, err := c.Database.open(ctx, env.Logger)
		if err != nil {
			return err
		}
		defer db.Close()
		o.Ledger = &rollout.Ledger{
			Kafka: c.Kafka.options("deployment"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{env.Logger})},
			Topic: c.Topic, Group: c.Group, Database: db, Patience: c.Settle,
		}
	}
	report, err := rollout.Roll(ctx, o)
	return errors.Join(err, cli.WriteJSON(env.Stdout, report))
}
