package activities

import (
	"context"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Signaller is the part of a Temporal client that Supersede uses.
type Signaller interface {
	SignalWithStartWorkflow(ctx context.Context, workflowID, signalName string, signalArg any,
		options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error)
}

// Supersede signals the older sessions of a device to close, and does not wait for
// them. A session that is not running is started by the signal. One that is closed
// already stays as it is, so the signal may be sent again.
func (a *Activities) Supersede(ctx context.Context, in workflows.SupersedeRequest) error {
	if a.temporal == nil {
		return nil
	}
	queue := activity.GetInfo(ctx).TaskQueue
	for _, older := range in.OlderSessions {
		options := workflows.StartOptions(queue, in.RAE, older)
		_, err := a.temporal.SignalWithStartWorkflow(ctx, options.ID, workflows.SignalClose, workflows.SupersededCloseRequest(in.Session),
			options, workflows.DeviceSessionName, workflows.Input{RAE: in.RAE, Session: older})
		if err != nil {
			return a.describeFailure(ctx, "supersede", older, err)
		}
	}
	return nil
}

// loadRivals loads the sessions that the session supersedes, and the one that
// supersedes it: none without Temporal, because they could not be told.
func (a *Activities) loadRivals(ctx context.Context, session string) (store.Rivals, error) {
	if a.temporal == nil {
		return store.Rivals{}, nil
	}
	if err := device.CheckSession(session); err != nil {
		return store.Rivals{}, err
	}
	return a.loader.Rivals(ctx, session)
}
