package activities_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/testsuite"

	"github.com/rollcall-platform/rollcall/activities"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

const (
	rae    = "RAE-1"
	one    = "7d6bd6a0-3c6e-4f4e-9f3a-0c0f3f0a9b11"
	other  = "11111111-3c6e-4f4e-9f3a-0c0f3f0a9b11"
	newest = "99999999-3c6e-4f4e-9f3a-0c0f3f0a9b11"
)

type commands struct {
	sent []device.Command
	err  error
}

func (c *commands) Send(_ context.Context, command device.Command) error {
	if _, err := command.Encode(); err != nil {
		return err
	}
	c.sent = append(c.sent, command)
	return c.err
}

func environmentOf(t *testing.T, o activities.Options) *testsuite.TestActivityEnvironment {
	t.Helper()
	s := &fakeStore{older: []string{other}, newer: newest}
	o.Applier, o.Loader = activities.Direct{Store: s}, s
	a, err := activities.New(o)
	require.NoError(t, err)
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	a.Register(env)
	return env
}

func request(t *testing.T, env *testsuite.TestActivityEnvironment, in workflows.SnapshotRequest) (asked workflows.SnapshotRequestResult, err error) {
	t.Helper()
	v, err := env.ExecuteActivity(workflows.ActivityRequestSnapshot, in)
	if err == nil {
		require.NoError(t, v.Get(&asked))
	}
	return asked, err
}

func TestRequestSnapshot(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	in := workflows.SnapshotRequest{RAE: rae, Session: one, Nonce: "run/0/1", Reason: "seq 2 missing", Life: time.Minute}

	asked, err := request(t, environmentOf(t, activities.Options{}), in)
	require.NoError(t, err)
	require.Equal(t, workflows.RequestDisabled, asked.Outcome)

	c := &commands{}
	env := environmentOf(t, activities.Options{Commands: c, Now: func() time.Time { return now }})
	asked, err = request(t, env, in)
	require.NoError(t, err)
	require.Equal(t, workflows.RequestSent, asked.Outcome)
	require.Len(t, c.sent, 1)
	require.Equal(t, asked.Command, c.sent[0].ID)
	require.Equal(t, device.Command{
		ID: asked.Command, Source: "/rollcall/session", RAE: rae, Session: one, Action: device.ActionSnapshot,
		Time: now, Expires: now.Add(time.Minute), Reason: "seq 2 missing",
	}, c.sent[0])

	again, err := request(t, env, in)
	require.NoError(t, err)
	require.Equal(t, asked.Command, again.Command, "a try that is repeated is the same command")
	in.Nonce, in.Life = "run/1/2", 24*time.Hour
	another, err := request(t, env, in)
	require.NoError(t, err)
	require.NotEqual(t, asked.Command, another.Command)
	require.Equal(t, now.Add(device.MaxCommandLife), another.Expires)

	c.err = errors.New("no brokers")
	_, err = request(t, env, in)
	require.ErrorContains(t, err, "no brokers")
}

// What is too much is told when to come again, each at another time, and is let
// through then.
func TestSnapshotRate(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	env := environmentOf(t, activities.Options{Commands: &commands{}, SnapshotRate: 10, Now: func() time.Time { return now }})
	in := workflows.SnapshotRequest{RAE: rae, Session: one, Nonce: "n", Life: time.Minute}
	var waits []time.Duration
	sent := 0
	for range 100 {
		asked, err := request(t, env, in)
		require.NoError(t, err)
		if asked.Outcome == workflows.RequestSent {
			sent++
			continue
		}
		require.Equal(t, workflows.RequestDeferred, asked.Outcome)
		waits = append(waits, asked.Wait)
	}
	require.Equal(t, 10, sent, "a second's worth at once")
	require.InDelta(t, 9*time.Second, waits[len(waits)-1], float64(time.Second), "90 at 10 a second")
	begun := now
	for _, wait := range waits {
		if at := begun.Add(wait); at.After(now) {
			now = at
		}
		asked, err := request(t, env, in)
		require.NoError(t, err)
		require.Equal(t, workflows.RequestSent, asked.Outcome, "after %s", wait)
	}
}

type signals struct {
	ids     []string
	reasons []string
	options client.StartWorkflowOptions
	inputs  []workflows.Input
	err     error
}

func (s *signals) SignalWithStartWorkflow(_ context.Context, id, name string, arg any, o client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
	if name != workflows.SignalClose {
		return nil, errors.New(name)
	}
	s.ids, s.options = append(s.ids, id), o
	s.reasons = append(s.reasons, arg.(workflows.CloseRequest).Reason) //nolint:forcetypeassert // or the test fails
	s.inputs = append(s.inputs, args[0].(workflows.Input))             //nolint:forcetypeassert // or the test fails
	return nil, s.err
}

func TestSupersede(t *testing.T) {
	in := workflows.SupersedeRequest{RAE: rae, Session: one, OlderSessions: []string{other}}
	s := &signals{}
	env := environmentOf(t, activities.Options{Temporal: s})
	_, err := env.ExecuteActivity(workflows.ActivitySupersede, in)
	require.NoError(t, err)
	require.Equal(t, []string{device.WorkflowID(other)}, s.ids)
	require.Equal(t, []string{"superseded by " + one}, s.reasons)
	require.Equal(t, []workflows.Input{{RAE: rae, Session: other}}, s.inputs)
	require.NotEmpty(t, s.options.TaskQueue)

	s.err = errors.New("unavailable")
	_, err = env.ExecuteActivity(workflows.ActivitySupersede, in)
	require.ErrorContains(t, err, "unavailable")

	_, err = environmentOf(t, activities.Options{}).ExecuteActivity(workflows.ActivitySupersede, in)
	require.NoError(t, err, "without Temporal there is nobody to tell")
}

// Only an apply that opens, or a load, names the device's other sessions.
func TestOtherSessionsAreFound(t *testing.T) {
	apply := func(o activities.Options, in workflows.ApplyRequest) (loaded *workflows.LoadedSession) {
		v, err := environmentOf(t, o).ExecuteActivity(workflows.ActivityApplyBatch, in)
		require.NoError(t, err)
		if v.HasValue() {
			require.NoError(t, v.Get(&loaded))
		}
		return loaded
	}
	with := activities.Options{Temporal: &signals{}}
	require.Nil(t, apply(with, workflows.ApplyRequest{Session: one}))
	found := apply(with, workflows.ApplyRequest{Session: one, IdentifiesDevice: true})
	require.Equal(t, []string{other}, found.OlderSessions)
	require.Equal(t, newest, found.NewerSession)
	require.Nil(t, apply(activities.Options{}, workflows.ApplyRequest{Session: one, IdentifiesDevice: true}))
}
