package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/printable"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/session/control"
	"github.com/rollcall-platform/rollcall/workflows"
)

// tellFlags say how to reach the sessions of a device whose test state changed.
type tellFlags struct {
	Temporal temporalFlags `embed:"" group:"temporal"`
	Tell     bool          `help:"Tell the device's open sessions, so that Temporal shows the new state." default:"true" negatable:""`
}

func (f *tellFlags) validate() error {
	if !f.Tell {
		return nil
	}
	return f.Temporal.validate()
}

// tellFor limits how long sessions are told: the change itself is in the database.
const tellFor = 5 * time.Second

// openSessions are those of a device that are to be told.
func openSessions(ctx context.Context, env cli.Env, db *store.Store, id string) []store.Summary {
	d, err := db.GetDevice(ctx, id)
	if err != nil {
		warn(env, "no session was told of the test state: %s", cli.OneLine(err))
	}
	return slices.DeleteFunc(d.Sessions, func(s store.Summary) bool { return s.Closed > 0 })
}

// tell has the sessions read the test state that the database has. A failure is
// only a warning: the change itself is in the database.
func (f *tellFlags) tell(ctx context.Context, env cli.Env, open []store.Summary) {
	if !f.Tell || len(open) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellFor)
	defer cancel()
	temporal, _, err := f.Temporal.dial(ctx, env.Logger)
	if err != nil {
		for _, s := range open {
			notTold(env, s.Session, err)
		}
		return
	}
	defer temporal.Close()
	tellSessions(ctx, env, control.Client{Temporal: temporal}, open)
}

// tellSessions tells each, whatever became of the one before.
func tellSessions(ctx context.Context, env cli.Env, client control.Client, open []store.Summary) {
	for _, s := range open {
		if err := client.TellTestState(ctx, s.Session); err != nil {
			notTold(env, s.Session, err)
		}
	}
}

func notTold(env cli.Env, session string, err error) {
	if errors.Is(err, control.ErrNotRunning) {
		warn(env, "session %s has no workflow that runs: Temporal shows the new state when its next event starts it", session)
		return
	}
	warn(env, "the database has it, but session %s was not told of the test state, and Temporal may show an older one: %s. "+
		"To have it look: temporal workflow signal --name %s --workflow-id %s", session, cli.OneLine(err), workflows.SignalTestState, device.WorkflowID(session))
}

func warn(env cli.Env, format string, args ...any) {
	_, _ = fmt.Fprintf(env.Stderr, "rollcall: warning: %s\n", printable.Text(fmt.Sprintf(format, args...)))
}
