package workflows_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// carriedAt is a session that code of a level carried: seq 2 is missing.
func carriedAt(level int) workflows.Input {
	in := input()
	in.Carried = &workflows.CarriedState{Version: 1, Level: level, Sync: workflows.SyncGap, Runs: 3, State: device.State{
		RAE: rae, Session: session, AsOf: 3, Seen: device.SeqSet{{From: 1, To: 1}, {From: 3, To: 3}}, First: epoch, Last: epoch,
		Attributes: map[string]device.Attribute{"a": attributeAt(3)},
	}}
	return in
}

// What a session's history says of its level decides, not what the worker's code
// could do: a history of a lower level is kept apart from code of a higher one, until
// a run begins that the higher one writes.
func TestLevelIsTheHistorys(t *testing.T) {
	const later = workflows.Level + 1 // the first change of commands after this
	for name, c := range map[string]struct {
		carried, code int
		answer        workflow.Version // of GetVersion; a replay of a history without the marker answers DefaultVersion
		asked         int
		want          int
	}{
		"same level":                              {workflows.Level, workflows.Level, workflow.DefaultVersion, 0, workflows.Level},
		"later code replays an older history":     {workflows.Level, later, workflow.DefaultVersion, 1, workflows.Level},
		"later code begins a run":                 {workflows.Level, later, later, 1, later},
		"older code goes on with a later session": {later, workflows.Level, workflow.DefaultVersion, 0, later},
		"no level, replayed":                      {0, workflows.Level, workflow.DefaultVersion, 1, 0},
		"no level, in a new run":                  {0, workflows.Level, workflows.Level, 1, workflows.Level},
	} {
		bubble(t, name, func(t *testing.T) {
			h := newHarnessAtLevel(t, &database{}, c.code)
			asked := 0
			h.OnGetVersion("level", workflow.DefaultVersion, workflow.Version(c.code)).Maybe().
				Run(func(arguments) { asked++ }).Return(c.answer)
			in := carriedAt(c.carried)
			in.Options.SignalsPerRun = 1
			h.at(time.Second, func() { h.signal(batch(3, delta(4, "a"))) })
			h.run(in)
			require.Equal(t, c.want, h.next().Carried.Level)
			require.Equal(t, c.asked, asked, "a marker is written once in a run, or not at all")
		})
	}
}

// The answer of a regular activity may be another build's. It does not say what the
// code of this worker may do.
func TestLevelOfAnotherBuildDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		db.fail = func(_ context.Context, name string, _ *workflows.ApplyRequest) error {
			if name == workflows.ActivityLoadSession && db.regularTries(name) == 0 {
				return outage()
			}
			return nil
		}
		h := newHarness(t, db)
		h.OnGetVersion("level", workflow.DefaultVersion, workflow.Version(workflows.Level)).Return(workflow.DefaultVersion)
		in := input()
		in.Options.SignalsPerRun = 1
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(in)
		require.Zero(t, h.next().Carried.Level)
	})
}

// A session that says no level is taken over, and its gap is healed.
func TestSessionOfNoLevelIsTakenOver(t *testing.T) {
	for name, c := range map[string]struct {
		db   *database
		in   workflows.Input
		play func(*harness)
	}{
		"carried": {&database{}, carriedAt(0), func(*harness) {}},
		"loaded":  {&database{noLevel: true}, input(), func(h *harness) { gapAt(h, 0) }},
	} {
		bubble(t, name, func(t *testing.T) {
			h := newHarness(t, c.db)
			c.play(h)
			h.stop(time.Minute)
			h.run(c.in)
			require.Equal(t, workflows.SyncResync, h.view().Sync)
			require.NotEmpty(t, c.db.requests)
		})
	}
}
