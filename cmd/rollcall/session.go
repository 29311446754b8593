package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/session/control"
	"github.com/rollcall-platform/rollcall/workflows"
)

type sessionCmd struct {
	Progress sessionProgressCmd `cmd:"" help:"Show what a session's workflow is doing."`
	Drain    sessionDrainCmd    `cmd:"" help:"Wait until the database has all that a session was sent."`
	Close    sessionCloseCmd    `cmd:"" help:"Close a session that no RAE will close."`
}

// Help is printed by session --help.
func (*sessionCmd) Help() string {
	return `Speaks with the workflow of one device session.

Example:

    rollcall session progress $(rollcall device get living-room-tv -o json | jq -r .session_id)`
}

// workflowFlags are what every question to one session's workflow takes.
type workflowFlags struct {
	Temporal temporalFlags `embed:"" group:"temporal"`
	Output   outputFlag    `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
	Timeout  time.Duration `help:"Stop waiting after this long. The workflow goes on with what was asked." default:"1m"`
}

func (f *workflowFlags) validate() error {
	if f.Timeout <= 0 {
		return errors.New("--timeout must be more than 0")
	}
	return f.Temporal.validate()
}

// sessionArg is a session, by its UUID alone: its workflow has no other name.
type sessionArg struct {
	Session string `arg:"" help:"The session's UUID."`
}

func (a *sessionArg) check() error {
	a.Session = strings.ToLower(a.Session)
	if err := device.CheckSession(a.Session); err != nil {
		return fmt.Errorf("%w: rollcall device get DEVICE says which its session is", err)
	}
	return nil
}

// ask asks one question of a session's workflow.
func (f *workflowFlags) ask(ctx context.Context, env cli.Env, taskQueue string, question func(context.Context, control.Client) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.Timeout, fmt.Errorf("no answer within %s: is a worker running?", f.Timeout))
	defer cancel()
	temporal, _, err := f.Temporal.dial(ctx, env.Logger)
	if err != nil {
		return err
	}
	defer temporal.Close()
	err = question(ctx, control.Client{Temporal: temporal, TaskQueue: taskQueue})
	if errors.Is(err, control.ErrNotRunning) {
		return &cli.Error{Code: cli.ExitNotFound, Err: err}
	}
	if err != nil && ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

type sessionProgressCmd struct {
	workflowFlags `embed:""`
	sessionArg    `embed:""`
}

// Help is printed by session progress --help.
func (*sessionProgressCmd) Help() string {
	return `Shows whether events are missing, what waits to be applied, what is in flight and since when, the last error, and when the session next asks for a snapshot, and when its timer fires. A workflow that is Completed was closed, or went idle and starts again with the session's next event. Exits 3 when there has been none.

Example:

    rollcall session progress $(rollcall device get living-room-tv -o json | jq -r .session_id)`
}

// Validate is called by kong before anything starts.
func (c *sessionProgressCmd) Validate() error { return errors.Join(c.check(), c.validate()) }

// Run asks and prints.
func (c *sessionProgressCmd) Run(ctx context.Context, env cli.Env) error {
	var p control.Progress
	err := c.ask(ctx, env, "", func(ctx context.Context, client control.Client) (err error) {
		p, err = client.Progress(ctx, c.Session)
		return err
	})
	if err != nil {
		return err
	}
	return c.Output.write(env.Stdout, p, func(w *tabwriter.Writer) {
		row(w, "workflow", p.Workflow)
		row(w, "sync", p.Sync)
		row(w, "pending", fmt.Sprintf("%d batches, %d bytes", p.PendingBatches, p.PendingBytes))
		row(w, "in flight", orElse(p.InFlight, "-"), stamp(p.InFlightSince))
		row(w, "escalated", p.Escalated)
		row(w, "last error", orElse(p.LastError, "-"), stamp(p.LastErrorAt))
		row(w, "snapshots asked for", p.Requests, p.LastRequest, stamp(p.LastRequestAt))
		row(w, "next request", orElse(stamp(p.NextRequest), "-"))
		row(w, "next timer", orElse(stamp(p.NextTimer), "-"))
		row(w, "runs", p.Runs)
		row(w, "signals in run", p.Signals)
	})
}

type sessionDrainCmd struct {
	workflowFlags `embed:""`
	sessionArg    `embed:""`
}

// Help is printed by session drain --help.
func (*sessionDrainCmd) Help() string {
	return `Waits until the database has all that the session was sent before, and prints how far that is: up to which seq and which Kafka offsets. The session goes on applying meanwhile. Exits 3 when the session has no workflow that runs: then nothing waits.

Example:

    rollcall session drain $(rollcall device get living-room-tv -o json | jq -r .session_id) --timeout 10s`
}

// Validate is called by kong before anything starts.
func (c *sessionDrainCmd) Validate() error { return errors.Join(c.check(), c.validate()) }

// Run waits and prints.
func (c *sessionDrainCmd) Run(ctx context.Context, env cli.Env) error {
	var applied workflows.AppliedState
	err := c.ask(ctx, env, "", func(ctx context.Context, client control.Client) (err error) {
		applied, err = client.Drain(ctx, c.Session)
		return err
	})
	if err != nil {
		return err
	}
	return c.Output.write(env.Stdout, applied, func(w *tabwriter.Writer) { appliedRows(w, applied) })
}

type sessionCloseCmd struct {
	workflowFlags `embed:""`
	Database      databaseFlags `embed:"" group:"database"`
	TaskQueue     string        `help:"Task queue of the workers." default:"rollcall-sessions" env:"ROLLCALL_TASK_QUEUE"`
	Device        string        `arg:"" help:"Which session, or the current one of which device."`
	Reason        string        `help:"Why. It is kept with the session." required:"" placeholder:"TEXT"`
	Yes           bool          `short:"y" help:"Do not ask."`
}

// Help is printed by session close --help.
func (*sessionCloseCmd) Help() string {
	return `Closes a session behind its newest event. It is for sessions that no RAE will ever close, such as those of a RAE that was scrapped. The close is provisional, because no RAE sent it: a later event reopens the session, which the session's history and its status card tell.

It asks before it closes; without a terminal it wants --yes. A session that is closed already stays as it was, and how far it came is printed. Exits 3 when there is no such session or device.

` + refHelp + `

Example:

    rollcall session close 7d6bd6a0-3c6e-4f4e-9f3a-0c0f3f0a9b11 --reason "its RAE was scrapped"`
}

// Validate is called by kong before anything starts.
func (c *sessionCloseCmd) Validate() error {
	if strings.TrimSpace(c.Reason) == "" {
		return errors.New("--reason must say why: it is kept with the session")
	}
	return errors.Join(c.validate(), c.Database.validate())
}

// Run closes the session, whether its workflow runs or not, and prints.
func (c *sessionCloseCmd) Run(ctx context.Context, env cli.Env, who *cli.Terminal) error {
	var found store.Summary
	query := queryFlags{Database: c.Database, Timeout: c.Timeout}
	err := query.ask(ctx, func(ctx context.Context, db *store.Store) error {
		d, err := db.GetDevice(ctx, c.Device)
		found = d.Summary
		return err
	})
	if err != nil {
		return err
	}
	if found.Closed == 0 {
		if err := who.Ask(env, c.Yes, closeQuestion(found), ""); err != nil {
			return err
		}
	}
	var applied workflows.AppliedState
	err = c.ask(ctx, env, c.TaskQueue, func(ctx context.Context, client control.Client) (err error) {
		applied, err = client.Close(ctx, found.RAE, found.Session, c.Reason)
		return err
	})
	if err != nil {
		return err
	}
	return c.Output.write(env.Stdout, applied, func(w *tabwriter.Writer) { appliedRows(w, applied) })
}

// closeQuestion is what is asked before a session is closed.
func closeQuestion(s store.Summary) string {
	return fmt.Sprintf("close session %s for good, of %q (%s) on RAE %q?", s.Session, orElse(clip(s.Name), s.MAC), orElse(s.Status, "no status"), s.RAE)
}

func appliedRows(w *tabwriter.Writer, a workflows.AppliedState) {
	row(w, "as of seq", a.AsOf)
	if a.Closed > 0 {
		row(w, "closed", fmt.Sprintf("at seq %d: %s", a.Closed, a.Reason))
	}
	for _, p := range a.Positions {
		row(w, "ingested", fmt.Sprintf("%s/%d up to offset %d", p.Topic, p.Partition, p.Next-1))
	}
	row(w, "events", a.Events)
	row(w, "signals", a.Signals)
}
