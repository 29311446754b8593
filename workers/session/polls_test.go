package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
)

const pollMethod = "/temporal.api.workflowservice.v1.WorkflowService/PollWorkflowTaskQueue"

// poll polls for as long as the server holds it, which then answers with err.
func poll(t *testing.T, p *Polls, method string, held time.Duration, err error) {
	t.Helper()
	got := p.Intercept(t.Context(), method, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		time.Sleep(held)
		return err
	})
	require.Equal(t, err, got)
}

func TestReadyWhileTheServerAnswersPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, down := NewPolls(), errors.New("connection refused")
		require.ErrorContains(t, p.Ready(), "none yet")
		go poll(t, p, pollMethod, time.Minute, nil)
		synctest.Wait()
		require.Error(t, p.Ready(), "it may fail at once")
		time.Sleep(heldAfter)
		require.NoError(t, p.Ready(), "the server holds it")
		time.Sleep(time.Minute)
		require.NoError(t, p.Ready(), "it was answered just now")

		poll(t, p, pollMethod, 0, down)
		require.ErrorContains(t, p.Ready(), "polls for tasks fail, the last 0s ago: connection refused")
		poll(t, p, "/temporal.api.workflowservice.v1.WorkflowService/PollActivityTaskQueue", 0, nil)
		require.Error(t, p.Ready(), "another kind of poll")
		go poll(t, p, pollMethod, time.Minute, nil)
		time.Sleep(heldAfter)
		require.NoError(t, p.Ready(), "it came back by itself")

		time.Sleep(time.Minute + quietAfter)
		require.ErrorContains(t, p.Ready(), "every slot for workflow tasks is taken")
		for range 5 { // a busy worker: no poll waits
			time.Sleep(time.Second)
			poll(t, p, pollMethod, 0, nil)
			require.NoError(t, p.Ready())
		}
	})
}

// A poll that the worker ends is no failure of the server.
func TestPollsThatAreCancelledTellNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPolls()
		time.Sleep(time.Second) // after the beginning
		poll(t, p, pollMethod, 0, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(time.Second)
		_ = p.Intercept(ctx, pollMethod, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			return errors.New("canceled")
		})
		require.NoError(t, p.Ready())
	})
}
