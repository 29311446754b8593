package poller

import (
	"context"
	"errors"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// signalTimeout bounds one SignalWithStart, the SDK's own tries included.
const signalTimeout = 10 * time.Second

// signaller sends batches to the sessions' workflows.
type signaller struct {
	temporal  Temporal
	taskQueue string
}

// signal sends b to its session's workflow, and starts that if it is not
// running.
func (s signaller) signal(ctx context.Context, b device.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, signalTimeout)
	defer cancel()
	o := workflows.StartOptions(s.taskQueue, b.Fold.RAE, b.Fold.Session)
	_, err := s.temporal.SignalWithStartWorkflow(ctx, o.ID, device.SignalEvents, b, o,
		workflows.DeviceSessionName, workflows.Input{RAE: b.Fold.RAE, Session: b.Fold.Session})
	return err
}

// verdict is what an error of a signal means for its lane.
type verdict string

const (
	accepted verdict = "accepted"
	busy     verdict = "busy" // the sink has too much: try again, later
	// conflict: this workflow cannot take it just now, because it continues as
	// new. It says nothing about the sink.
	conflict verdict = "conflict"
	outage   verdict = "outage"  // the sink cannot be reached or does not work: try again
	refused  verdict = "refused" // this signal will not be taken as things are: stop the lane
)

// classify says what an error of a signal means. Only InvalidArgument stops a lane: it is how the server
// says that the execution has had all the signals it may have (and that a
// payload is too large, which the lanes prevent). Everything else may pass, also
// a missing namespace and a denied permission: an operator repairs those, and
// nothing is lost until then.
func classify(err error) verdict {
	var invalid *serviceerror.InvalidArgument
	var exhausted *serviceerror.ResourceExhausted
	var deadline *serviceerror.DeadlineExceeded
	switch {
	case err == nil:
		return accepted
	case errors.As(err, &invalid):
		return refused
	case errors.As(err, &exhausted) && exhausted.Cause == enumspb.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW:
		return conflict
	case errors.As(err, &exhausted), errors.As(err, &deadline), errors.Is(err, context.DeadlineExceeded):
		return busy
	}
	return outage
}
