package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

type sessionCmd struct {
	Progress sessionProgressCmd `cmd:"" help:"Say what a session's workflow is doing."`
	Drain    sessionDrainCmd    `cmd:"" help:"Wait until the database has all that a session was sent."`
	Close    sessionCloseCmd    `cmd:"" help:"Close a session for good."`
}

// workflowFlags are what every question to one session's workflow takes.
type workflowFlags struct {
	Temporal temporalFlags `embed:"" group:"temporal"`
	Output   outputFlag    `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
	Timeout  time.Duration `help:"Give up after this long. What was asked for goes on." default:"1m"`
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
func (f *workflowFlags) ask(ctx context.Context, env cli.Env, session string, question func(context.Context, client.Client) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.Timeout, fmt.Errorf("no answer within %s: is a worker running?", f.Timeout))
	defer cancel()
	temporal, _, err := f.Temporal.dial(ctx, env.Logger)
	if err != nil {
		return err
	}
	defer temporal.Close()
	err = question(ctx, temporal)
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return &cli.Error{Code: cli.ExitNotFound, Err: fmt.Errorf("session %s has no workflow that runs: it is closed, idle or unknown, and nothing waits for it", session)}
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
	return `Shows whether the session is whole, what waits to be applied, what is in flight and since when, the last error, and when the session next asks for a snapshot or looks at the clock. A workflow that is Completed was closed, or went idle and runs again from the session's next event on. Exits 3 when there has been none.

Example:

    rollcall session progress $(rollcall device get living-room-tv -o json | jq -r .session_id)`
}

// Validate is called by kong before anything starts.
func (c *sessionProgressCmd) Validate() error { return errors.Join(c.check(), c.validate()) }

// Run asks and prints.
func (c *sessionProgressCmd) Run(ctx context.Context, env cli.Env) error {
	var p struct {
		Workflow string `json:"workflow"` // Running, Completed, …
		workflows.Progress
	}
	err := c.ask(ctx, env, c.Session, func(ctx context.Context, temporal client.Client) error {
		id := device.WorkflowID(c.Session)
		d, err := temporal.DescribeWorkflowExecution(ctx, id, "")
		if err != nil {
			return err
		}
		p.Workflow = d.GetWorkflowExecutionInfo().GetStatus().String()
		v, err := temporal.QueryWorkflow(ctx, id, "", workflows.QueryProgress)
		if err != nil {
			return err
		}
		return v.Get(&p.Progress)
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
	return `Waits until the database has all that the session was sent before, and prints a receipt: up to which seq and which Kafka offsets. It holds nothing up. Exits 3 when the session has no workflow that runs: then nothing waits.

Example:

    rollcall session drain $(rollcall device get living-room-tv -o json | jq -r .session_id) --timeout 10s`
}

// Validate is called by kong before anything starts.
func (c *sessionDrainCmd) Validate() error { return errors.Join(c.check(), c.validate()) }

// Run waits and prints.
func (c *sessionDrainCmd) Run(ctx context.Context, env cli.Env) error {
	var receipt workflows.AppliedState
	err := c.ask(ctx, env, c.Session, func(ctx context.Context, temporal client.Client) error {
		h, err := temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: device.WorkflowID(c.Session), UpdateName: workflows.UpdateDrain, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err != nil {
			return err
		}
		return h.Get(ctx, &receipt)
	})
	if err != nil {
		return err
	}
	return c.Output.write(env.Stdout, receipt, func(w *tabwriter.Writer) { receiptTable(w, receipt) })
}

type sessionCloseCmd struct {
	workflowFlags `embed:""`
	Database      databaseFlags `embed:"" group:"database"`
	TaskQueue     string        `help:"Task queue of the workers." default:"rollcall-sessions" env:"ROLLCALL_TASK_QUEUE"`
	Device        string        `arg:"" help:"Which session, or the current one of which device."`
	Reason        string        `help:"Why. It is kept with the session." required:"" placeholder:"TEXT"`
}

// Help is printed by session close --help.
func (*sessionCloseCmd) Help() string {
	return `Closes a session after its newest event, for good: what its RAE sends for it later is refused and counted. It is for sessions that no RAE will ever close, such as those of a RAE that is gone. A device that is still there comes back with a new session only if its RAE forgets it.

One that is closed already stays as it was, and its receipt is printed. Exits 3 when there is no such session or device.

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
func (c *sessionCloseCmd) Run(ctx context.Context, env cli.Env) error {
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
	var receipt workflows.AppliedState
	err = c.ask(ctx, env, found.Session, func(ctx context.Context, temporal client.Client) error {
		options := workflows.StartOptions(c.TaskQueue, found.RAE, found.Session)
		h, err := temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
			StartWorkflowOperation: temporal.NewWithStartWorkflowOperation(options, workflows.DeviceSessionName,
				workflows.Input{RAE: found.RAE, Session: found.Session}),
			UpdateOptions: client.UpdateWorkflowOptions{
				WorkflowID: options.ID, UpdateName: workflows.UpdateClose, Args: []any{workflows.CloseRequest{Reason: c.Reason}},
				WaitForStage: client.WorkflowUpdateStageCompleted,
			},
		})
		if err != nil {
			return err
		}
		return h.Get(ctx, &receipt)
	})
	if err != nil {
		return err
	}
	return c.Output.write(env.Stdout, receipt, func(w *tabwriter.Writer) { receiptTable(w, receipt) })
}

func receiptTable(w *tabwriter.Writer, r workflows.AppliedState) {
	row(w, "as of seq", r.AsOf)
	if r.Closed > 0 {
		row(w, "closed", fmt.Sprintf("at seq %d: %s", r.Closed, r.Reason))
	}
	for _, p := range r.Positions {
		row(w, "ingested", fmt.Sprintf("%s/%d up to offset %d", p.Topic, p.Partition, p.Next-1))
	}
	row(w, "events", r.Events)
	row(w, "signals", r.Signals)
}
