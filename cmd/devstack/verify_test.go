package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/verify"
)

// What a person reserves is what Temporal lists, for as long as it is reserved.
func reservations(t *testing.T, s *stack, session string, command func(...string) (int, string, string)) {
	t.Helper()
	listed := func(want ...string) {
		t.Helper()
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			r, err := s.temporal.ListWorkflow(context.Background(), &workflowservice.ListWorkflowExecutionsRequest{Query: "TestState='in_test'"})
			require.NoError(t, err)
			var got []string
			for _, e := range r.GetExecutions() {
				got = append(got, e.GetExecution().GetWorkflowId())
			}
			require.Equal(t, want, got)
		}, patience, 100*time.Millisecond)
	}
	do := func(args ...string) {
		t.Helper()
		code, _, errs := command(append([]string{"device"}, args...)...)
		require.Zero(t, code, errs)
		require.Empty(t, errs)
	}
	listed()
	do("reserve", session, "--holder", "ci-1", "--for", "2h")
	listed(device.WorkflowID(session))
	do("release", session, "--holder", "ci-1")
	listed()
	do("reserve", session, "--holder", "ci-1", "--for", "2h")
	listed(device.WorkflowID(session))
	do("renew", session, "--holder", "ci-1", "--for", "2s")
	listed() // the lease ends by itself
}

// Every session of the demo is the same at the edge, in its workflow and in the
// database; an attribute that a person changed in the database is named, and
// nothing else.
func TestVerifyEndToEnd(t *testing.T) {
	rollcall := build(t, "../..", "./cmd/rollcall")
	log := testLog(t)
	flags := testFlags(t, t.TempDir())
	s := testStack(t, flags, log)
	raes, err := s.startRAEs(&demoCmd{stackFlags: flags, Capture: []string{lan}, Once: true, SnapshotInterval: -1})
	require.NoError(t, err)
	replayed(t, raes[0].edge)
	require.NoError(t, newWatch(s, raes, time.Now()).awaitApplied(t.Context(), patience))

	command := func(args ...string) (code int, stdout, stderr string) {
		cmd := exec.CommandContext(t.Context(), rollcall, args...)
		cmd.Env = append(os.Environ(), "ROLLCALL_DATABASE_URL="+s.databaseURL, "ROLLCALL_KAFKA_BROKERS="+s.kafkaAddr, "TEMPORAL_ADDRESS="+loopback(flags.TemporalPort))
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run()
		t.Logf("%q\n%s%s", args, &out, &errs)
		return cmd.ProcessState.ExitCode(), out.String(), errs.String()
	}
	run := func(args ...string) (code int, stdout, stderr string) {
		return command(append([]string{"verify"}, args...)...)
	}
	reservations(t, s, raes[0].edge.Devices()[1].Session, command)
	code, text, errs := run()
	require.Zero(t, code, errs)
	require.Contains(t, errs, "verifying 17 sessions on 1 RAE\n")
	require.Contains(t, text, "\n17 sessions: 17 equal\n")
	require.Regexp(t, `(?m)^equal        [0-9a-f-]{36}  demo-lan  seq \d+: edge ([0-9a-f]{12}) = workflow [0-9a-f]{12} = database [0-9a-f]{12}$`, text)

	db, err := pgx.Connect(t.Context(), s.databaseURL)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.Background()) }()
	changed := raes[0].edge.Devices()[0]
	tag, err := db.Exec(t.Context(), `UPDATE device_attribute SET value = '"by-hand"' WHERE session_id = $1 AND name = 'network.mac'`, changed.Session)
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected())

	for _, args := range [][]string{{"-o", "json"}, {"-o", "json", "--no-edge", "--rae", "demo-lan"}} {
		code, text, errs = run(args...)
		require.Equal(t, 1, code)
		require.Contains(t, errs, "rollcall: 1 of 17 sessions are not known to be equal\n")
		var got struct {
			verify.Summary
			Results []verify.Result `json:"results"`
		}
		require.NoError(t, json.Unmarshal([]byte(text), &got))
		require.Equal(t, verify.Summary{Sessions: 17, Equal: 16, Drift: 1}, got.Summary)
		for _, r := range got.Results {
			if r.Session != changed.Session {
				require.Equal(t, verify.Equal, r.Verdict, "%+v", r)
				continue
			}
			require.Equal(t, verify.Drift, r.Verdict)
			require.Len(t, r.Differences, 1)
			d := r.Differences[0]
			require.Equal(t, "network.mac", d.Attribute)
			require.Equal(t, `"by-hand"`, string(d.Values[verify.InDatabase].Value))
			require.Equal(t, `"`+changed.MAC+`"`, string(d.Values[verify.InWorkflow].Value))
			if len(args) == 2 {
				require.Equal(t, d.Values[verify.InWorkflow], d.Values[verify.AtEdge])
			}
			require.Empty(t, r.Corrected)
			require.Empty(t, r.Findings)
		}
	}

	// Begun again from the rows, the session has the snapshot correct them.
	require.NoError(t, s.temporal.TerminateWorkflow(t.Context(), device.WorkflowID(changed.Session), "", "the rows were changed by hand"))
	code, text, _ = run("--session", changed.Session)
	require.Equal(t, 1, code)
	require.Contains(t, text, "the snapshot has corrected it")
	code, text, _ = run("--session", changed.Session)
	require.Zero(t, code, text)

	// A session that is not in the database at all is missed there.
	lost := raes[0].edge.Devices()[2].Session
	_, err = db.Exec(t.Context(), `DELETE FROM device_session WHERE session_id = $1`, lost)
	require.NoError(t, err)
	code, text, _ = run("--no-edge")
	require.Equal(t, 1, code)
	require.Contains(t, text, "\n17 sessions: 16 equal, 1 drift\n")
	require.Contains(t, text, lost+"  demo-lan\n    the database has no such session\n")

	// The RAE is gone: that is no equality.
	require.NoError(t, raes[0].stop(t.Context()))
	code, text, _ = run("--session", raes[0].edge.Devices()[1].Session, "--timeout", "2s")
	require.Equal(t, 1, code)
	require.Contains(t, text, "unreachable: edge: no snapshot within 2s")
	require.Contains(t, text, "1 session: 0 equal, 1 unreachable\n")

	code, _, errs = run("--rae", "nobody")
	require.Equal(t, 3, code)
	require.Contains(t, errs, `no open session to verify on RAE ["nobody"]`)
}
