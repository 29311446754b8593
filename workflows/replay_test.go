package workflows_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// What ran must replay: each recorded history is one of a session that a real server
// may still have. See TestRecord for how they are made.
func TestReplay(t *testing.T) {
	replayAll(t, workflows.Register)
}

// A later level leaves the histories of this one as they are.
func TestReplayByCodeOfALaterLevel(t *testing.T) {
	replayAll(t, func(r worker.WorkflowRegistry) { workflows.RegisterAtLevel(r, workflows.Level+1) })
}

func replayAll(t *testing.T, register func(worker.WorkflowRegistry)) {
	files, err := filepath.Glob(historyFile("*"))
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".json"))
	}
	slices.Sort(names)
	require.Equal(t, recorded(), names, "a history is missing, or nothing records it")
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DisableDeadlockDetection: true})
			require.NoError(t, err)
			register(r)
			h := history(t, name)
			require.NoError(t, r.ReplayWorkflowHistoryWithOptions(quiet{}, h, worker.ReplayWorkflowHistoryOptions{
				OriginalExecution: workflow.Execution{ID: device.WorkflowID(sessionOf(t, h))},
			}))
		})
	}
}

// sessionOf reads the session from the input: without the workflow ID that a
// session must have, the replayer would replay a refusal to start.
func sessionOf(t *testing.T, h *historypb.History) string {
	t.Helper()
	var in workflows.Input
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(h.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetInput(), &in))
	return in.Session
}

// What an operator reads down the history in the Web UI.
func TestHistoriesReadLikeAStory(t *testing.T) {
	for name, want := range map[string][]string{
		"gap": {
			"apply seq 1 (1 event, 1 attribute)",
			"apply seq 4–5 (2 events, 2 attributes)",
			"apply seq 6 (1 event, 1 attribute)", // the snapshot: one was missed
		},
		"mismatch": {
			"apply seq 1 (1 event, 1 attribute)",
			"apply seq 2 (1 event, 1 attribute)", // the database loses it
			"apply seq 3 (1 event, 1 attribute)",
			"apply seq 3 (1 event, 1 attribute), anew: the database lacked seq 2",
			"apply seq 2 (1 event, 1 attribute)",  // the poller did not see it applied
			"reload: what was applied came again", // and the database has it
			"reload: verify",
			"request a snapshot: verify",
		},
		"outage": {
			"apply seq 1 (1 event, 1 attribute)",
			"apply seq 2–3 (2 events, 2 attributes)", // the local activity
			"apply seq 2–3 (2 events, 2 attributes)", // the regular one
			"apply seq 4 (1 event, 1 attribute)",
		},
		"resync": {
			"apply seq 1 (1 event, 1 attribute)",
			"apply seq 4–5 (2 events, 2 attributes)",
			"request a snapshot: seq 2–3 missing",
			"apply seq 6 (1 event, 1 attribute)",
		},
		"updates": {
			"apply seq 1 (1 event, 1 attribute)",
			"request a snapshot: I wonder",
			"apply seq 2 (1 event, 1 attribute)",
			"close after seq 2: sold",
		},
		"superseding": {
			"apply seq 1 (1 event, 1 attribute)",
			"supersede 11111111-3c6e-4f4e-9f3a-0c0f3f0a9b11",
		},
		"corrected": {
			"apply seq 1 (1 event, 1 attribute)",
			"apply seq 2 (1 event, 1 attribute)", // a snapshot, whose word is taken
		},
		"gives-way": {
			"apply seq 1 (1 event, 1 attribute)",
			"apply seq 2 (1 event, 1 attribute)", // its tail
			"close after seq 2: superseded by 99999999-3c6e-4f4e-9f3a-0c0f3f0a9b11",
		},
		"reserved": {
			"apply seq 1 (1 event, 1 attribute)",
			"read the device's test state", // it was told
			"read the device's test state", // the lease has ended
			"apply seq 2 (1 event, 1 attribute)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, e := range history(t, name).GetEvents() {
				var summary string
				if p := e.GetUserMetadata().GetSummary(); p != nil {
					require.NoError(t, converter.GetDefaultDataConverter().FromPayload(p, &summary))
				}
				if summary != "" && !strings.HasPrefix(summary, "session ") && !strings.HasPrefix(summary, "check deadlines") {
					got = append(got, summary)
				}
			}
			require.Equal(t, want, got)
		})
	}
}

func history(t *testing.T, name string) *historypb.History {
	t.Helper()
	f, err := os.Open(historyFile(name))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	h, err := client.HistoryFromJSON(f, client.HistoryJSONOptions{})
	require.NoError(t, err)
	return h
}
