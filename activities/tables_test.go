package activities_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/activities"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Whatever at-least-once delivery makes of a history, the workflow, the
// activities and the store together bring the tables to what a naive reader of
// the history has, and the query shows the same; also when the run ends at any
// point and the next one knows only the tables, and when every write is done
// twice, as by a try that was given up.
func TestTablesComeToTheModel(t *testing.T) {
	db := open(t)
	rapid.Check(t, func(rt *rapid.T) {
		id := uuid.NewString()
		history := devicetest.History("RAE-1", id, 16).Draw(rt, "history")
		model := devicetest.Of(history)
		delivered := devicetest.Deliver(history).Draw(rt, "delivered")
		var batches []device.Batch
		for offset := 0; offset < len(delivered); {
			n := min(rapid.IntRange(1, 5).Draw(rt, "batch"), len(delivered)-offset)
			batches = append(batches, fold(int64(offset), delivered[offset:offset+n]))
			offset += n
		}
		in := workflows.Input{RAE: "RAE-1", Session: id}
		in.Options.SignalsPerRun = rapid.IntRange(1, 6).Draw(rt, "signals per run")
		twice := rapid.Bool().Draw(rt, "every write twice")

		var view workflows.StateView
		for rest := batches; ; {
			var carried *workflows.Input
			view, carried = session(t, rt, db, in, rest, twice)
			positions, err := db.Positions(t.Context(), []string{id})
			require.NoError(rt, err)
			rest = nil
			for _, b := range batches {
				if !device.Reached(positions[id], b.Position()) {
					rest = append(rest, b)
				}
			}
			if carried == nil && len(rest) == 0 {
				break
			}
			in.Carried = nil
			if carried != nil && rapid.Bool().Draw(rt, "goes on as new") {
				in.Carried = carried.Carried
			} // else it was terminated
		}

		stored, err := db.Load(t.Context(), id)
		state, positions := stored.State, stored.Positions
		require.NoError(rt, err)
		require.True(rt, stored.Found)
		require.Equal(rt, text(model.Attributes), text(state.Live()))
		require.Equal(rt, device.Hash(model.Attributes), device.Hash(state.Live()))
		require.Equal(rt, device.Hash(model.Attributes), view.Hash)
		require.Equal(rt, model.Seq, state.AsOf)
		require.Equal(rt, model.Seq, view.AsOf)
		require.Empty(rt, state.Missing())
		require.Equal(rt, model.Closed, state.Closed > 0)
		require.Equal(rt, view.Positions, positions)
	})
}

func open(t *testing.T) *store.Store {
	t.Helper()
	url := postgrestest.New(t)
	_, err := store.Migrate(t.Context(), url, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db
}

// again applies every update twice.
type again struct{ activities.Applier }

func (a again) Apply(ctx context.Context, u store.Update) error {
	if err := a.Applier.Apply(ctx, u); err != nil {
		return err
	}
	return a.Applier.Apply(ctx, u)
}

// session runs one run, and returns what its query shows at the end and the
// input of the next run if it continued as new.
func session(t *testing.T, rt *rapid.T, db *store.Store, in workflows.Input, batches []device.Batch, twice bool) (workflows.StateView, *workflows.Input) {
	var applier activities.Applier = activities.Direct{Store: db}
	if twice {
		applier = again{applier}
	}
	a, err := activities.New(activities.Options{Applier: applier, Loader: db, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(rt, err)
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	workflows.Register(env)
	a.Register(env)
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: device.WorkflowID(in.Session)})
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	at := time.Duration(0)
	for group := range slices.Chunk(batches, rapid.IntRange(1, 3).Draw(rt, "together")) {
		env.RegisterDelayedCallback(func() {
			for _, b := range group {
				b.Fold.Attributes = maps.Clone(b.Fold.Attributes)
				env.SignalWorkflow(device.SignalEvents, b)
			}
		}, at)
		at += time.Duration(rapid.IntRange(0, 400).Draw(rt, "pause")) * time.Millisecond
	}
	env.RegisterDelayedCallback(env.CancelWorkflow, at+time.Hour)
	env.ExecuteWorkflow(workflows.DeviceSessionName, in)

	var view workflows.StateView
	v, err := env.QueryWorkflow(workflows.QueryState)
	require.NoError(rt, err)
	require.NoError(rt, v.Get(&view))
	var can *workflow.ContinueAsNewError
	if !errors.As(env.GetWorkflowError(), &can) {
		return view, nil
	}
	var next workflows.Input
	require.NoError(rt, converter.GetDefaultDataConverter().FromPayloads(can.Input, &next))
	return view, &next
}

func fold(offset int64, events []device.Event) device.Batch {
	b := device.Batch{
		Version: device.BatchVersion, Topic: device.KafkaEvents, Partition: 1, First: offset, Last: offset + int64(len(events)) - 1,
		Records: len(events), Received: devicetest.Epoch.Add(time.Duration(offset) * time.Second),
	}
	for _, e := range events {
		f := device.FoldOf(e)
		f.Attributes = maps.Clone(f.Attributes)
		b.Fold = device.Merge(b.Fold, f)
	}
	return b
}

func text(attributes map[string]device.Attribute) map[string]string {
	out := map[string]string{}
	for name, a := range attributes {
		out[name] = fmt.Sprintf("%d %s", a.Seq, a.Value)
	}
	return out
}

var _ activities.Store = (*store.Store)(nil)
