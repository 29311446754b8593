package workflows_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Whoever starts a session's workflow finds the one that runs: a second one would
// apply beside it. One that has ended is followed by a new run; one that was
// retried would have lost the signal that started it.
func TestEverybodyStartsTheOneWorkflowOfASession(t *testing.T) {
	o := workflows.StartOptions("", rae, session)
	require.Equal(t, device.WorkflowID(session), o.ID)
	require.Equal(t, workflows.TaskQueue, o.TaskQueue)
	require.Equal(t, enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING, o.WorkflowIDConflictPolicy)
	require.Equal(t, enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE, o.WorkflowIDReusePolicy)
	require.False(t, o.WorkflowExecutionErrorWhenAlreadyStarted)
	require.Nil(t, o.RetryPolicy)
	require.Zero(t, o.WorkflowExecutionTimeout)
	require.Zero(t, o.WorkflowRunTimeout)
	require.Equal(t, "own", workflows.StartOptions("own", rae, session).TaskQueue)
}

// What imports no client of an engine does no I/O by one.
func TestImportsNoEngine(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for path := range strings.FieldsSeq(string(out)) {
		for _, engine := range []string{"github.com/twmb", "github.com/jackc", "github.com/eclipse/paho.golang", "github.com/mochi-mqtt", "go.etcd.io/bbolt"} {
			require.False(t, strings.HasPrefix(path, engine), path)
		}
	}
}
