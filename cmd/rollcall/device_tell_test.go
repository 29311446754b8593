package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/session/control"
	"github.com/rollcall-platform/rollcall/workflows"
)

// signals answers by workflow.
type signals struct {
	control.Temporal
	errs map[string]error
	sent []string
}

func (s *signals) SignalWorkflow(_ context.Context, id, run, signal string, arg any) error {
	if run != "" || signal != workflows.SignalTestState || arg != nil {
		return errors.New("what is this?")
	}
	s.sent = append(s.sent, id)
	return s.errs[id]
}

// Every session is told, whatever became of the one before; what does not work is
// said, with what it means.
func TestTellSessions(t *testing.T) {
	const third = "33333333-3333-4333-8333-333333333333"
	var stderr bytes.Buffer
	env := cli.Env{Stderr: &stderr, Logger: slog.New(slog.DiscardHandler)}
	s := &signals{errs: map[string]error{
		device.WorkflowID(tv):     serviceerror.NewNotFound("workflow execution already completed"),
		device.WorkflowID(server): errors.New("deadline exceeded"),
	}}
	tellSessions(t.Context(), env, control.Client{Temporal: s}, []store.Summary{{Session: tv}, {Session: server}, {Session: third}})
	require.Equal(t, []string{device.WorkflowID(tv), device.WorkflowID(server), device.WorkflowID(third)}, s.sent)
	require.Equal(t, "rollcall: warning: session "+tv+" has no workflow that runs: Temporal shows the new state when its next event starts it\n"+
		"rollcall: warning: the database has it, but session "+server+" was not told of the test state, and Temporal may show an older one: deadline exceeded. "+
		"To have it look: temporal workflow signal --name test-state --workflow-id device-session-"+server+"\n", stderr.String())
}

// A reservation holds though Temporal is away; a device without an open session
// has nobody to tell.
func TestReservationHoldsWithoutTemporal(t *testing.T) {
	url := seeded(t)
	reserve := func(device string) (int, string, string) {
		return run(t, "device", "reserve", device, "--holder=jana", "--for=2h", "--database-url="+url, "--temporal-address=127.0.0.1:1")
	}
	code, stdout, stderr := reserve("living-room-tv")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, stdout, "in_test")
	require.Equal(t, 1, strings.Count(stderr, "rollcall: warning: the database has it, but session "+tv+" was not told of the test state"), stderr)
	code, _, stderr = reserve("living-room-tv")
	require.Equal(t, cli.ExitFailed, code)
	require.NotContains(t, stderr, "warning", "nothing changed")

	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	defer db.Close()
	at := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	require.NoError(t, db.Apply(t.Context(), []store.Update{{
		RAE: "RAE-1", Session: server, AsOf: 2, Closed: 2, Seen: device.SeqSet{{From: 1, To: 2}}, First: at, Last: at, Received: at,
	}}))
	code, _, stderr = reserve(server)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "closed")
	require.NotContains(t, stderr, "warning", "nothing changed")
}
