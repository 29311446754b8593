package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Undone says what the session's workflow has been given and has not done, or
// nothing. The server answers it alone, so that it is known while every worker is
// down.
func (c Client) Undone(ctx context.Context, session string) (string, error) {
	d, err := c.Temporal.DescribeWorkflowExecution(ctx, device.WorkflowID(session), "")
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return "", nil // it has never run, or was idle for so long that it is forgotten
	}
	if err != nil {
		return "", fmt.Errorf("session %s: %w", session, err)
	}
	if task := d.GetPendingWorkflowTask(); task != nil {
		return fmt.Sprintf("the workflow has had a task since %s that no worker has ended", task.GetOriginalScheduledTime().AsTime().UTC().Format(time.RFC3339)), nil
	}
	for _, activity := range d.GetPendingActivities() {
		return fmt.Sprintf("activity %s is at its attempt %d, last failure %q", activity.GetActivityType().GetName(), activity.GetAttempt(), activity.GetLastFailure().GetMessage()), nil
	}
	return "", nil
}
