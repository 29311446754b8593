package rollout

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

// change has the routing changed and returns the conflict token that follows. A
// change without an answer is asked for again, unless the routing says that it
// was made: the server makes it in a workflow of its own, which on a busy one
// takes longer than the ten seconds that the SDK gives a call.
func (r *roll) change(ctx context.Context, set func() ([]byte, error), made func(client.WorkerDeploymentRoutingConfig) bool) ([]byte, error) {
	for deadline := time.Now().Add(r.PollerTimeout); ; {
		token, err := set()
		if err == nil {
			return token, nil
		}
		if d, looked := r.handle.Describe(ctx, client.WorkerDeploymentDescribeOptions{}); looked == nil && made(d.Info.RoutingConfig) {
			return d.ConflictToken, nil
		}
		if !unanswered(err) || time.Now().After(deadline) {
			return nil, err
		}
		r.Say("the server has not answered: asking again")
		if err := retry.Sleep(ctx, time.Second); err != nil {
			return nil, err
		}
	}
}

func unanswered(err error) bool {
	var late *serviceerror.DeadlineExceeded
	var away *serviceerror.Unavailable
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &late) || errors.As(err, &away)
}
