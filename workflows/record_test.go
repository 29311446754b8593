package workflows_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/temporalproto"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

var record = flag.Bool("record", false, "write "+histories+" anew from runs on the server of "+addressVariable)

// histories is the directory of the recorded histories.
const histories = "testdata/histories"

// recordings are the scenarios, each a session on a real server, and the histories
// that each saves.
var recordings = []struct {
	saves []string
	play  func(t *testing.T, in workflows.Input)
}{
	{[]string{"life", "late"}, recordLife},
	{[]string{"gap"}, recordGap},
	{[]string{"outage"}, recordOutage},
	{[]string{"refused"}, recordRefused},
	{[]string{"runs-first", "runs-second"}, recordRuns},
	{[]string{"resync", "resync-carried"}, recordResync},
	{[]string{"updates"}, recordUpdates},
	{[]string{"superseding"}, recordSuperseding},
	{[]string{"superseded"}, recordSuperseded},
	{[]string{"gives-way"}, recordGivesWay},
	{[]string{"idle"}, recordIdle},
	{[]string{"corrected"}, recordCorrected},
	{[]string{"reserved"}, recordReserved},
	{[]string{"mismatch"}, recordMismatch},
	{[]string{"upgrade"}, recordUpgrade},
	{[]string{"upgrade-closing"}, recordUpgradeClosing},
	{[]string{"upgrade-test-state"}, recordUpgradeTestState},
}

// recorded are the names of all histories, sorted.
func recorded() []string {
	var names []string
	for _, r := range recordings {
		names = append(names, r.saves...)
	}
	slices.Sort(names)
	return names
}

// TestRecord writes the histories that TestReplay replays. Run it when a history of
// a new path is wanted, on a server of the version in use (bin/devstack up --bare):
//
//	ROLLCALL_TEST_TEMPORAL_ADDRESS=127.0.0.1:7233 go test ./workflows -run TestRecord -record
//
// TestRecord/NAME records one scenario alone.
//
// Do not record to make a failing TestReplay pass: the histories there are are those
// of sessions that run. A change of commands needs a higher workflows.Level.
func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("records histories: set ROLLCALL_TEST_TEMPORAL_ADDRESS and run with -record")
	}
	require.NoError(t, os.MkdirAll(histories, 0o755))
	for _, r := range recordings {
		t.Run(r.saves[0], func(t *testing.T) {
			in := input()
			in.Session = uuid.NewString()
			r.play(t, in)
			for _, name := range r.saves {
				require.FileExists(t, historyFile(name))
			}
		})
	}
}

func historyFile(name string) string { return filepath.Join(histories, name+".json") }

// save writes a run's history; an empty run is the newest.
func (s *server) save(name string, in workflows.Input, run string) {
	s.t.Helper()
	h := s.history(in, run)
	for _, e := range h.GetEvents() { // the sticky queue is named after the machine
		if q := e.GetWorkflowTaskScheduledEventAttributes().GetTaskQueue(); q.GetKind() == enumspb.TASK_QUEUE_KIND_STICKY {
			q.Name = "sticky"
		}
	}
	b, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(h)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(historyFile(name), append(b, '\n'), 0o644))
}

func recordLife(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{search: true})
	run := s.signal(in, batch(1, delta(1, "a"), delta(2, "b")))
	s.asOf(in, 2)
	s.signal(in, batch(1, delta(1, "a"), delta(2, "b")))
	s.signal(in, batch(3, delta(3, "a"), snapshot(4, map[string]device.Attribute{"a": attributeAt(3), "b": attributeAt(2)})))
	s.asOf(in, 4)
	s.signal(in, batch(5, closed(5)))
	s.result(in, run)
	s.save("life", in, run)
	late := s.signal(in, batch(6, delta(6, "a")))
	require.NotEqual(t, run, late)
	s.result(in, late)
	s.save("late", in, late)
}

func recordGap(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{search: true})
	s.signal(in, batch(1, delta(1, "a")))
	s.asOf(in, 1)
	s.signal(in, batch(2, delta(4, "a"), delta(5, "b")))
	v := s.asOf(in, 5)
	require.Equal(t, workflows.SyncGap, v.Sync)
	s.signal(in, batch(4, healing(6)))
	v = s.asOf(in, 6)
	require.Equal(t, workflows.SyncLive, v.Sync)
	require.EqualValues(t, 1, v.Counters.Repaired)
	s.save("gap", in, "")
	s.end(in)
}

// healing is a snapshot after the events 1, 4 and 5 of recordGap and recordResync.
func healing(seq int64) device.Event {
	return snapshot(seq, map[string]device.Attribute{
		"a": attributeAt(4), "b": attributeAt(5), "c": attributeAt(2),
	})
}

func recordOutage(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{})
	s.signal(in, batch(1, delta(1, "a")))
	s.asOf(in, 1)
	s.db.down.Store(true)
	s.signal(in, batch(2, delta(2, "a"), delta(3, "b")))
	require.Eventually(t, func() bool {
		d, err := s.DescribeWorkflowExecution(t.Context(), device.WorkflowID(in.Session), "")
		return err == nil && len(d.GetPendingActivities()) == 1 && d.GetPendingActivities()[0].GetLastFailure().GetMessage() != ""
	}, patience, 100*time.Millisecond, "a pending activity with its last failure")
	s.signal(in, batch(4, delta(4, "c")))
	s.db.down.Store(false)
	s.asOf(in, 4)
	s.save("outage", in, "")
	s.end(in)
}

func recordRefused(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{fail: func(_ context.Context, _ string, r *workflows.ApplyRequest) error {
		if r != nil && r.Write["bad"].Seq > 0 {
			return databaseRefusal()
		}
		return nil
	}})
	s.signal(in, batch(1, delta(1, "a")))
	s.signal(in, batch(2, delta(2, "bad")))
	s.until(in, "the database's refusal", func(v workflows.StateView) bool { return v.Counters.Refused == 1 })
	newer := batch(3, delta(3, "a"))
	newer.Version = 2
	s.signal(in, newer)
	s.signal(in, "not a batch")
	s.signal(in, batch(4, delta(4, "a")))
	v := s.asOf(in, 4)
	require.EqualValues(t, 3, v.Counters.Refused)
	require.Equal(t, position(5), s.db.positions)
	s.save("refused", in, "")
	s.end(in)
}

func recordRuns(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{search: true})
	in.Options.SignalsPerRun = 4
	var runs []string
	for seq := int64(1); seq <= 30; seq++ {
		run := s.signal(in, batch(seq, delta(seq, "a", fmt.Sprint("n", seq))))
		if len(runs) == 0 || runs[len(runs)-1] != run {
			runs = append(runs, run)
		}
	}
	v := s.asOf(in, 30)
	require.Greater(t, v.Runs, 2)
	require.Len(t, v.Attributes, 31)
	require.Greater(t, len(runs), 2)
	s.save("runs-first", in, runs[0])
	s.save("runs-second", in, runs[1])
	s.end(in)
}

func recordResync(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{search: true})
	in.Options.SignalsPerRun = 4
	run := s.signal(in, batch(1, delta(1, "a")))
	s.asOf(in, 1)
	s.signal(in, batch(2, delta(4, "a"), delta(5, "b")))
	s.until(in, "a request", func(v workflows.StateView) bool { return v.Sync == workflows.SyncResync })
	s.signal(in, batch(4, healing(6)))
	require.Equal(t, workflows.SyncLive, s.asOf(in, 6).Sync)
	s.save("resync", in, run)
	s.signal(in, batch(5, delta(8, "a"))) // a gap to carry
	s.until(in, "a new run", func(v workflows.StateView) bool { return v.AsOf == 8 && v.Runs == 2 })
	s.until(in, "another request", func(v workflows.StateView) bool {
		return v.Sync == workflows.SyncResync && v.Counters.Requests == 2
	})
	s.save("resync-carried", in, "")
	s.end(in)
}

func recordUpdates(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{})
	run := s.signal(in, batch(1, delta(1, "a")))
	var requested workflows.SnapshotRequestResult
	s.update(in, workflows.UpdateRequestSnapshot, &requested, workflows.SnapshotRequestArgs{Reason: "I wonder"})
	require.Equal(t, workflows.RequestSent, requested.Outcome)
	s.signal(in, batch(2, delta(2, "b")))
	var applied workflows.AppliedState
	s.update(in, workflows.UpdateDrain, &applied)
	require.EqualValues(t, 2, applied.AsOf)
	s.update(in, workflows.UpdateClose, &applied, workflows.CloseRequest{Reason: "sold"})
	require.EqualValues(t, 2, applied.Closed)
	s.result(in, run)
	s.save("updates", in, run)
}

func recordSuperseding(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{older: []string{"11111111-3c6e-4f4e-9f3a-0c0f3f0a9b11"}})
	s.signal(in, batch(1, withMAC(delta(1))))
	s.asOf(in, 1)
	require.Len(t, s.db.superseded, 1)
	s.save("superseding", in, "")
	s.end(in)
}

func recordSuperseded(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{})
	run := s.signal(in, batch(1, delta(1, "a")))
	s.asOf(in, 1)
	require.NoError(t, s.SignalWorkflow(t.Context(), device.WorkflowID(in.Session), "", workflows.SignalClose, workflows.CloseRequest{Reason: "superseded by " + session}))
	s.result(in, run)
	s.save("superseded", in, run)
}

func recordGivesWay(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{newer: "99999999-3c6e-4f4e-9f3a-0c0f3f0a9b11"})
	in.Options.IdleTimeout = 4 * time.Second // a close waits for quiet no longer than that
	run := s.signal(in, batch(1, withMAC(delta(1))))
	s.asOf(in, 1)
	s.signal(in, batch(2, delta(2, "a")))
	result := s.result(in, run)
	require.EqualValues(t, 2, result.Closed)
	require.Contains(t, result.Reason, "superseded by")
	s.save("gives-way", in, run)
}

func recordIdle(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{})
	in.Options = workflows.Options{IdleTimeout: 8 * time.Second, SnapshotInterval: time.Second} // a snapshot is overdue before
	run := s.signal(in, batch(1, delta(1, "a")))
	result := s.result(in, run)
	require.True(t, result.Idle)
	require.Equal(t, workflows.SyncResync, result.Sync)
	s.save("idle", in, run)
}

func recordCorrected(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{search: true})
	status := func(seq int64, value string) map[string]device.Attribute {
		return map[string]device.Attribute{device.AttrConnectionStatus: {Value: json.RawMessage(value), Seq: seq, At: epoch}}
	}
	e := delta(1)
	e.Attributes = status(1, `"online"`)
	s.signal(in, batch(1, e))
	s.asOf(in, 1)
	s.signal(in, batch(2, snapshot(2, status(1, `"offline"`)))) // and so a search attribute
	v := s.asOf(in, 2)
	require.Equal(t, []string{device.AttrConnectionStatus}, v.Check.Drift)
	require.Equal(t, v.Check.Edge, v.Hash)
	s.save("corrected", in, "")
	s.end(in)
}

func recordReserved(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{search: true})
	s.signal(in, batch(1, delta(1, "a")))
	s.asOf(in, 1)
	s.reserve(in, held("ci-1", time.Now().Add(3*time.Second)))
	s.until(in, "the reservation", func(v workflows.StateView) bool { return v.TestState.State == "in_test" })
	s.until(in, "the end of the lease", func(v workflows.StateView) bool { return v.TestState.State == "available" })
	s.signal(in, batch(2, delta(2, "a")))
	s.asOf(in, 2)
	s.save("reserved", in, "")
	s.end(in)
}

func recordMismatch(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{})
	s.signal(in, batch(1, delta(1, "a")))
	s.asOf(in, 1)
	before := s.db.backUp()
	s.signal(in, batch(2, delta(2, "a")))
	s.asOf(in, 2)
	s.db.restore(before)
	s.signal(in, batch(3, delta(3, "b")))
	v := s.until(in, "the mismatch", func(v workflows.StateView) bool { return v.AsOf == 3 && v.Counters.Mismatches == 1 })
	require.Equal(t, device.SeqSet{{From: 2, To: 2}}, v.Lost)
	require.Contains(t, s.card(in), "the database had revision 1 of the session, not 2 (a fail-over or a restored backup?): lost seq 2")
	s.signal(in, batch(2, delta(2, "a"))) // the poller did not see it applied
	s.until(in, "no gap", func(v workflows.StateView) bool { return len(v.Missing) == 0 })
	s.signal(in, batch(2, delta(2, "a")))
	var reloaded workflows.ReloadResult
	s.update(in, workflows.UpdateReload, &reloaded, workflows.ReloadArgs{Reason: "verify"})
	require.Nil(t, reloaded.Mismatch)
	require.Equal(t, workflows.RequestSent, reloaded.Snapshot.Outcome)
	s.save("mismatch", in, "")
	s.end(in)
}

// recordUpgrade and those after it record sessions that code of a lower level
// carried. Their level is raised by a marker in the history.
func recordUpgrade(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{})
	in.Carried = carriedAt(0).Carried
	in.Carried.State.Session = in.Session
	in.Carried.Positions = position(3)
	s.signal(in, batch(3, delta(4, "a")))
	s.until(in, "a request", func(v workflows.StateView) bool { return v.Sync == workflows.SyncResync })
	s.save("upgrade", in, "")
	s.end(in)
}

func recordUpgradeClosing(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{newer: "99999999-3c6e-4f4e-9f3a-0c0f3f0a9b11"})
	in.Options.IdleTimeout = 4 * time.Second
	in.Carried = wholeAt(0, in.Session)
	run := s.signal(in, batch(4, delta(4, "a")))
	s.asOf(in, 4)
	require.NoError(t, s.SignalWorkflow(t.Context(), device.WorkflowID(in.Session), "", workflows.SignalClose, workflows.SupersededCloseRequest(session)))
	s.signal(in, batch(5, delta(5, "a"))) // of its tail
	result := s.result(in, run)
	require.EqualValues(t, 5, result.Closed)
	require.Zero(t, result.Counters.AfterClose)
	s.save("upgrade-closing", in, run)
}

func recordUpgradeTestState(t *testing.T, in workflows.Input) {
	s := newServer(t, &database{search: true, test: &workflows.TestState{State: "maintenance", Holder: "ops"}})
	in.Carried = wholeAt(0, in.Session)
	in.Carried.SearchAttributes = true
	s.signal(in, batch(4, delta(4, "a")))
	s.asOf(in, 4)
	s.until(in, "the test state", func(v workflows.StateView) bool { return v.TestState != nil && v.TestState.State == "maintenance" })
	s.save("upgrade-test-state", in, "")
	s.end(in)
}

// wholeAt is what code of a level carried of a session of which nothing is missing.
func wholeAt(level int, session string) *workflows.CarriedState {
	c := carriedAt(level).Carried
	c.Sync, c.SyncSince, c.LastReceived, c.Positions = workflows.SyncLive, epoch, epoch, position(4)
	c.State.Session, c.State.Seen = session, device.SeqSet{{From: 1, To: 3}}
	return c
}
