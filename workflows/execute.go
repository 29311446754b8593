package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// localTimeout is how long a local activity may take, all tries together, before
// a regular one takes over. It stays below four fifths of a workflow task's 10 s:
// beyond that the SDK would have to keep the task alive with heartbeats.
const localTimeout = 5 * time.Second

// localOptions are those of quick tries inside the workflow task, which cost one
// event of history.
func localOptions(summary string) workflow.LocalActivityOptions {
	return workflow.LocalActivityOptions{
		ScheduleToCloseTimeout: localTimeout,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: time.Second},
		Summary:                summary,
	}
}

// maxRetryInterval is the longest pause between two tries of a regular activity,
// and so how late a session may notice that an outage is over. It can be short: no
// more sessions than the poller's window retry at once.
const maxRetryInterval = 2 * time.Second

// regularOptions are those of tries without end, which the Web UI shows with
// their last failure.
func regularOptions(summary string) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: maxRetryInterval},
		Summary:             summary,
	}
}

// activityStatus is what the session waits for now.
type activityStatus struct {
	summary     string // empty: nothing
	since       time.Time
	escalated   bool   // the local activity did not succeed: a regular one is tried until it does
	lastError   string // of a local activity, the newest in this run
	lastErrorAt time.Time
}

// executeActivity executes a local activity and, if that does not succeed in
// time, a regular one until it does. It returns an error only for a refusal.
//
// Anything else that ends a regular activity without limits is a fault in the
// code, such as a value that cannot be encoded. It fails the workflow task, not
// the workflow: Temporal tries the task again, visibly, until a worker without the
// fault runs it, and nothing is lost.
func (s *session) executeActivity(activity, summary string, in, out any) error {
	s.inFlight.summary, s.inFlight.since, s.inFlight.escalated = summary, workflow.Now(s.uncancelled), false
	defer func() { s.inFlight.summary, s.inFlight.since = "", time.Time{} }()
	err := workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(s.uncancelled, localOptions(summary)), activity, in).Get(s.uncancelled, out)
	if err == nil || isRefusal(err) {
		return err
	}
	s.inFlight.escalated, s.inFlight.lastError, s.inFlight.lastErrorAt = true, clip(err.Error()), workflow.Now(s.uncancelled)
	s.log.Warn("local activity did not succeed in time: a regular activity is tried until it succeeds", "activity", activity, "err", err)
	s.count(s.uncancelled, metricEscalated, "activity_type", activity)
	err = workflow.ExecuteActivity(workflow.WithActivityOptions(s.uncancelled, regularOptions(summary)), activity, in).Get(s.uncancelled, out)
	if err != nil && !isRefusal(err) {
		panic(fmt.Sprintf("%s of session %s: %v", activity, s.id, err))
	}
	return err
}

func isRefusal(err error) bool {
	var a *temporal.ApplicationError
	return errors.As(err, &a) && a.Type() == ErrRefused
}
