package workflows_test

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/workflows"
)

type arguments = mock.Arguments

func anything() any { return mock.Anything }

// Whatever at-least-once delivery makes of a session's history — batched,
// repeated, reordered, over several runs, the database failing now and then —
// the query and the tables come to what a naive reader of the history has.
func TestAnyDeliveryComesToTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := devicetest.History(rae, session, 24).Draw(rt, "history")
		model := devicetest.Of(history)
		delivered := devicetest.Deliver(history).Draw(rt, "delivered")
		var batches []device.Batch
		for offset := 0; offset < len(delivered); {
			n := min(rapid.IntRange(1, 5).Draw(rt, "batch"), len(delivered)-offset)
			batches = append(batches, batch(int64(offset), delivered[offset:offset+n]...))
			offset += n
		}
		for range rapid.IntRange(0, 3).Draw(rt, "redelivered") {
			batches = append(batches, rapid.SampledFrom(batches).Draw(rt, "again"))
		}
		db := &database{}
		fails := rapid.IntRange(0, 3).Draw(rt, "fails")
		db.fail = func(_ ctx, name string, _ *workflows.ApplyRequest) error {
			if fails > 0 && name == workflows.ActivityApplyBatch {
				fails--
				return outage()
			}
			return nil
		}
		in := input()
		in.Options.SignalsPerRun = rapid.IntRange(1, 8).Draw(rt, "signals per run")
		in.Options.TurnBytes = rapid.SampledFrom([]int{1, 2000, 1 << 20}).Draw(rt, "turn bytes")

		view := live(t, rt, db, in, batches)
		require.Equal(rt, model.Seq, view.AsOf)
		require.Equal(rt, device.Hash(model.Attributes), view.Hash)
		require.Equal(rt, values(model.Attributes), values(view.Attributes))
		require.Equal(rt, values(model.Attributes), values(db.live()))
		require.Equal(rt, workflows.SyncLive, view.Sync)
		require.Equal(rt, model.Closed, view.Closed > 0)
		require.Equal(rt, position(int64(len(delivered))), db.positions)
		require.Equal(rt, view.Positions, db.positions)
		require.Zero(rt, view.Waiting)
	})
}

// live sends all batches, some together, through as many runs as it takes.
func live(t *testing.T, rt *rapid.T, db *database, in workflows.Input, batches []device.Batch) workflows.StateView {
	for {
		// In no bubble: there a failure would end the process, before rapid has
		// made it small. Timers that are early change nothing here.
		h := newHarness(t, db)
		h.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
		sent := 0
		at := time.Duration(0)
		for sent < len(batches) {
			together := batches[sent:min(sent+rapid.IntRange(1, 4).Draw(rt, "together"), len(batches))]
			h.at(at, func() {
				for _, b := range together {
					b.Fold.Attributes = maps.Clone(b.Fold.Attributes)
					h.signal(b)
				}
			})
			sent += len(together)
			at += time.Duration(rapid.IntRange(0, 400).Draw(rt, "pause")) * time.Millisecond
		}
		h.stop(at + time.Hour)
		h.run(in)
		view := h.view()
		var can *workflow.ContinueAsNewError
		err := h.GetWorkflowError()
		switch {
		case isContinue(err, &can):
			in = workflows.Input{}
			require.NoError(rt, converter.GetDefaultDataConverter().FromPayloads(can.Input, &in))
		case err == nil && view.Closed > 0 && !allReached(db, batches):
			in = workflows.Input{RAE: in.RAE, Session: in.Session, Options: in.Options} // started again by the next signal
		default:
			return view
		}
		// At least once: everything that was not seen to be applied comes again.
		var rest []device.Batch
		for _, b := range batches {
			if !device.Reached(db.positions, b.Position()) || rapid.IntRange(0, 9).Draw(rt, "once more") == 0 {
				rest = append(rest, b)
			}
		}
		batches = rest
	}
}

type ctx = context.Context

func isContinue(err error, can **workflow.ContinueAsNewError) bool { return errors.As(err, can) }

func allReached(db *database, batches []device.Batch) bool {
	for _, b := range batches {
		if !device.Reached(db.positions, b.Position()) {
			return false
		}
	}
	return true
}
