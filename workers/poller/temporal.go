package poller

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// signalTimeout bounds one SignalWithStart, the SDK's own tries included.
const signalTimeout = 10 * time.Second

// searchAgain is how long the poller believes that the server lacks the
// sessions' search attributes before it asks again.
const searchAgain = time.Minute

// signaller sends batches to the sessions' workflows.
type signaller struct {
	temporal  Temporal
	taskQueue string
	check     func(context.Context) error // Options.SearchAttributes
	asked     atomic.Int64                // when, unix ns
	known     atomic.Bool                 // the server has the search attributes
}

// signal sends b to its session's workflow, and starts that if it is not
// running.
func (s *signaller) signal(ctx context.Context, b device.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, signalTimeout)
	defer cancel()
	options := workflows.StartOptions(s.taskQueue, b.Fold.RAE, b.Fold.Session)
	named := b.Fold.Seqs.First() == 1 && s.searchable(ctx)
	if named {
		options.TypedSearchAttributes = workflows.FirstSearchAttributes(b.Fold)
	}
	err := s.send(ctx, b, options)
	if invalid := new(serviceerror.InvalidArgument); named && errors.As(err, &invalid) {
		s.known.Store(false) // it may be they that are refused
		options.TypedSearchAttributes = temporal.SearchAttributes{}
		err = s.send(ctx, b, options)
	}
	return err
}

func (s *signaller) send(ctx context.Context, b device.Batch, options client.StartWorkflowOptions) error {
	_, err := s.temporal.SignalWithStartWorkflow(ctx, options.ID, device.SignalEvents, b, options,
		workflows.DeviceSessionName, workflows.Input{RAE: b.Fold.RAE, Session: b.Fold.Session})
	return err
}

// searchable reports whether the server is known to have the search attributes.
// One caller at a time asks it.
func (s *signaller) searchable(ctx context.Context) bool {
	if s.check == nil || s.known.Load() {
		return s.known.Load()
	}
	last, now := s.asked.Load(), time.Now().UnixNano()
	if now-last >= int64(searchAgain) && s.asked.CompareAndSwap(last, now) {
		s.known.Store(s.check(ctx) == nil)
	}
	return s.known.Load()
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

// classify decides. Only InvalidArgument stops a lane: it is how the server
// says that the execution has had all the signals it may have (and that a
// payload is too large, which the lanes prevent). Everything else may pass, a
// namespace that is missing and a permission that is denied among them: those
// are somebody's to mend, and nothing is lost while they are.
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
