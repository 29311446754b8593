package activities

import (
	"context"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Signaller is what of a client.Client Supersede uses.
type Signaller interface {
	SignalWithStartWorkflow(ctx context.Context, workflowID, signalName string, signalArg any,
		options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error)
}

// Supersede tells sessions that a newer one of their device is open. It does
// not wait for them to close: that is theirs to do, as soon as they can. One
// that is not running is started for it, and one that is closed already does
// nothing: telling it again changes nothing.
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
			return a.failed(ctx, "supersede", older, err)
		}
	}
	return nil
}

// rivals finds the sessions that the session has taken the place of, and the
// one that has taken its own. Nobody is asked for what nobody could be told.
func (a *Activities) rivals(ctx context.Context, session string) (store.Rivals, error) {
	if a.temporal == nil {
		return store.Rivals{}, nil
	}
	if err := device.CheckSession(session); err != nil {
		return store.Rivals{}, err
	}
	return a.loader.Rivals(ctx, session)
}
