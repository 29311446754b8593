package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

func TestAppliesWhatItIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(10, delta(1, "a", "b"))) })
		h.at(time.Second, func() { h.signal(batch(11, delta(2, "b"), delta(3, "c"))) })
		h.stop(time.Minute)
		h.run(input())

		require.True(t, temporal.IsCanceledError(h.GetWorkflowError()))
		v := h.view()
		require.Equal(t, map[string]string{"a": "1", "b": "2", "c": "3"}, values(v.Attributes))
		require.EqualValues(t, 3, v.AsOf)
		require.Equal(t, device.Hash(db.live()), v.Hash)
		require.Equal(t, workflows.SyncLive, v.Sync)
		require.Empty(t, v.Missing)
		require.Equal(t, position(13), v.Positions)
		require.Equal(t, position(13), db.positions)
		require.Equal(t, workflows.Counters{Signals: 2, Batches: 2, Events: 3, Records: 3}, v.Counters)
		require.Equal(t, epoch.Add(time.Second), v.FirstObserved.UTC())
		require.Equal(t, epoch.Add(3*time.Second), v.LastObserved.UTC())
		require.Equal(t, epoch.Add(time.Hour+11*time.Second), v.LastReceived.UTC())
		require.Equal(t, 2, db.localTries(workflows.ActivityApplyBatch))
		require.Zero(t, db.regularTries(workflows.ActivityApplyBatch))
	})
}

func TestOneApplyTakesAllThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signalDeltas(1, 20) })
		h.stop(time.Minute)
		h.run(input())

		require.Len(t, db.applies, 1)
		require.EqualValues(t, 20, db.applies[0].Events)
		require.Len(t, db.applies[0].Write, 1)
		require.EqualValues(t, 20, h.view().AsOf)
	})
}

func TestTurnIsBoundedByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signalDeltas(1, 20) })
		h.stop(time.Minute)
		in := input()
		in.Options.TurnBytes = 1000
		h.run(in)

		require.Greater(t, len(db.applies), 3)
		require.EqualValues(t, 20, h.view().AsOf)
		require.Equal(t, position(21), db.positions)
	})
}

func TestDuplicates(t *testing.T) {
	bubble(t, "the same batch again is not applied", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		b := batch(10, delta(1, "a"), delta(2, "b"))
		h.at(0, func() { h.signal(b) })
		h.at(time.Second, func() { h.signal(b) })
		h.stop(time.Minute)
		h.run(input())
		require.Len(t, db.applies, 1)
		require.EqualValues(t, 2, h.view().Counters.Duplicates)
		require.EqualValues(t, 2, h.view().Counters.Events)
	})
	bubble(t, "twice in one turn counts once", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		b := batch(10, delta(1, "a"), delta(2, "b"))
		h.at(0, func() { h.signal(b); h.signal(b) })
		h.stop(time.Minute)
		h.run(input())
		require.Len(t, db.applies, 1)
		c := h.view().Counters
		require.EqualValues(t, 2, c.Records)
		require.EqualValues(t, 2, c.Duplicates)
	})
	bubble(t, "known events at new offsets still move the position", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(10, delta(1, "a"), delta(2, "b"))) })
		h.at(time.Second, func() { h.signal(batch(12, delta(1, "a"), delta(2, "b"))) })
		h.stop(time.Minute)
		h.run(input())
		require.Len(t, db.applies, 2)
		require.Empty(t, db.applies[1].Write)
		require.Equal(t, position(14), db.applies[1].Positions)
		require.EqualValues(t, 2, db.applies[1].Duplicates)
		require.Zero(t, db.applies[1].Events)
	})
	bubble(t, "a topic made anew begins at nothing applied", func(t *testing.T) {
		const old, anew = "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a01", "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a02"
		of := func(id string, b device.Batch) device.Batch { b.TopicID = id; return b }
		db := &database{}
		h := newHarness(t, db)
		in := input()
		in.Options.SignalsPerRun = 3
		h.at(0, func() { h.signal(of(old, batch(5000, delta(1, "a")))) })
		h.at(time.Second, func() { h.signal(of(anew, batch(0, delta(2, "b")))) })
		h.at(2*time.Second, func() { h.signal(of(anew, batch(0, delta(2, "b")))) })
		h.run(in)
		require.Len(t, db.applies, 2, "the same again is a duplicate, by its own position")
		require.Equal(t, []device.Position{{Topic: topic, TopicID: anew, Partition: 3, Next: 1}}, db.positions)

		next := h.next() // the incarnation goes from run to run
		h = newHarness(t, db)
		h.at(0, func() { h.signal(of(anew, batch(0, delta(2, "b")))) })
		h.at(time.Second, func() { h.signal(of(old, batch(5000, delta(1, "a")))) }) // a late one of the old log
		h.at(2*time.Second, func() { h.signal(of(anew, batch(1, delta(3, "c")))) })
		h.at(3*time.Second, func() { h.signal("not a batch") })
		h.stop(time.Minute)
		h.run(next)
		v := h.view()
		require.Equal(t, []device.Position{{Topic: topic, TopicID: anew, Partition: 3, Next: 2}}, v.Positions)
		require.Equal(t, map[string]string{"a": "1", "b": "2", "c": "3"}, values(v.Attributes))
		require.EqualValues(t, 3, v.Counters.Events)
		require.EqualValues(t, 3, v.Counters.Duplicates)
		require.Empty(t, v.Missing)
	})
	bubble(t, "a topic made anew loses nothing", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(5000, delta(1, "a"))) })
		h.at(time.Second, func() { h.signal(batch(0, delta(2, "b"))) })
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.EqualValues(t, 2, v.AsOf)
		require.Equal(t, map[string]string{"a": "1", "b": "2"}, values(v.Attributes))
		require.Equal(t, position(5001), v.Positions)
	})
}

func TestGapIsSeenAndHeals(t *testing.T) {
	gap := func(h *harness) {
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(time.Second, func() { h.signal(batch(2, delta(5, "a"), delta(6, "b"))) })
	}
	bubble(t, "reported, and newer events go on", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		gap(h)
		h.stop(2500 * time.Millisecond)
		h.run(input())
		v := h.view()
		require.Equal(t, workflows.SyncGap, v.Sync)
		require.Equal(t, device.SeqSet{{From: 2, To: 4}}, v.Missing)
		require.EqualValues(t, 6, v.AsOf)
		require.Equal(t, device.SeqSet{{From: 2, To: 4}}, db.state.Missing)
	})
	bubble(t, "healed by what was late", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		gap(h)
		h.at(2*time.Second, func() { h.signal(batch(4, delta(4, "c"), delta(2, "a"), delta(3, "b"))) })
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.Equal(t, workflows.SyncLive, v.Sync)
		require.Equal(t, map[string]string{"a": "5", "b": "6", "c": "4"}, values(v.Attributes))
	})
	bubble(t, "healed by a snapshot, which says what it repaired", func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		gap(h)
		h.at(2*time.Second, func() {
			h.signal(batch(4, snapshot(7, map[string]device.Attribute{
				"a": attributeAt(5), "b": attributeAt(6), "c": attributeAt(3),
			})))
		})
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.Equal(t, workflows.SyncLive, v.Sync)
		require.EqualValues(t, 7, v.Snapshot)
		require.EqualValues(t, 1, v.Counters.Repaired)
		require.Equal(t, []string{"c"}, db.state.Repaired)
		require.Equal(t, device.Hash(v.Attributes), db.state.Hash)
	})
}

func TestOutageEscalatesToARegularActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		tries := 0
		db.fail = func(_ context.Context, name string, _ *workflows.ApplyRequest) error {
			if name != workflows.ActivityApplyBatch {
				return nil
			}
			if tries++; tries <= 12 {
				return outage()
			}
			return nil
		}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(6*time.Second, func() { // while the apply is in trouble the query shows what is applied
			v := h.view()
			require.Zero(t, v.AsOf)
			require.Equal(t, 1, v.Waiting)
			h.signal(batch(2, delta(2, "a")))
		})
		h.stop(time.Hour)
		h.run(input())
		require.EqualValues(t, 2, h.view().AsOf)
		require.Greater(t, db.regularTries(workflows.ActivityApplyBatch), 0)
		require.Len(t, db.applies, 2)
		require.Zero(t, h.view().Counters.Refused)
	})
}

// While an apply is tried, the session is what the database has, and the batch waits.
func TestStateIsWhatTheDatabaseHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		db := &database{}
		db.fail = func(_ context.Context, name string, _ *workflows.ApplyRequest) error {
			if name == workflows.ActivityApplyBatch && down {
				return outage()
			}
			return nil
		}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		var before workflows.StateView
		h.at(time.Second, func() {
			before, down = h.view(), true
			h.signal(batch(2, delta(2, "a")))
		})
		h.at(20*time.Second, func() {
			v := h.view()
			require.Equal(t, 1, v.Waiting)
			require.Equal(t, before.AsOf, v.AsOf)
			require.Equal(t, before.Attributes, v.Attributes)
			require.Equal(t, before.Positions, v.Positions)
			require.Equal(t, before.Counters.Events, v.Counters.Events)
			down = false
		})
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.EqualValues(t, 2, v.AsOf)
		require.Equal(t, position(3), v.Positions)
		require.EqualValues(t, 2, v.Counters.Events)
	})
}

func TestLoadEscalatesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		db.fail = func(_ context.Context, name string, _ *workflows.ApplyRequest) error {
			if name == workflows.ActivityLoadSession && db.regularTries(name) < 3 {
				return outage()
			}
			return nil
		}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.at(5500*time.Millisecond, func() { require.Equal(t, workflows.SyncLoading, h.view().Sync) })
		h.stop(time.Hour)
		h.run(input())
		require.EqualValues(t, 1, h.view().AsOf)
		require.Equal(t, workflows.SyncLive, h.view().Sync)
		require.Equal(t, 3, db.regularTries(workflows.ActivityLoadSession))
	})
}

func TestClosedCompletesAndLateEventsAreCounted(t *testing.T) {
	db := &database{}
	var result workflows.Result
	bubble(t, "it completes", func(t *testing.T) {
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"), delta(2, "b"))) })
		h.at(time.Second, func() { h.signal(batch(3, closed(3))) })
		h.run(input())
		result = h.result()
		require.EqualValues(t, 3, result.Closed)
		require.Equal(t, "left", result.Reason)
		require.Equal(t, 2, result.Attributes)
		require.Equal(t, device.Hash(db.live()), result.Hash)
	})
	bubble(t, "a late signal starts it again", func(t *testing.T) {
		h := newHarness(t, db)
		late := batch(4, delta(4, "a"), delta(5, "z"))
		h.at(0, func() { h.signal(late) })
		h.run(input())
		result = h.result()
		require.EqualValues(t, 2, result.Counters.AfterClose)
		require.Equal(t, 2, result.Attributes)
		require.Equal(t, position(6), db.positions)
		require.Equal(t, map[string]string{"a": "1", "b": "2"}, values(db.live()))
	})
	bubble(t, "and the same again is a duplicate", func(t *testing.T) {
		h := newHarness(t, db)
		n := len(db.applies)
		h.at(0, func() { h.signal(batch(4, delta(4, "a"), delta(5, "z"))) })
		h.run(input())
		result = h.result()
		require.EqualValues(t, 2, result.Counters.AfterClose, "as before")
		require.EqualValues(t, 2, result.Counters.Duplicates)
		require.Len(t, db.applies, n)
	})
}

func TestWhatComesAfterACloseDoesNotHideWhatCameBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { // all of it waits in one turn
			h.signal(batch(1, delta(1, "a"), delta(2, "b")))
			h.signal(batch(3, closed(3)))
			h.signal(batch(4, delta(4, "a", "z")))
		})
		h.run(input())
		result := h.result()
		require.EqualValues(t, 1, result.Counters.AfterClose)
		require.EqualValues(t, 3, result.AsOf)
		require.Equal(t, map[string]string{"a": "1", "b": "2"}, values(db.live()))
	})
}

func TestFreshRunLoadsWhatTheDatabaseKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"), delta(2, "b"), delta(5, "c"))) })
		h.stop(time.Minute) // stands for a termination
		h.run(input())

		h = newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"), delta(2, "b"), delta(5, "c"))) }) // redelivered
		h.at(time.Second, func() {
			require.Equal(t, workflows.SyncGap, h.view().Sync)
			h.signal(batch(6, delta(6, "a"), delta(3, "x"), delta(4, "b")))
		})
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.Equal(t, workflows.SyncLive, v.Sync)
		require.Zero(t, v.Counters.Duplicates, "the same first apply finds itself done")
		require.EqualValues(t, 6, v.Counters.Events)
		require.Equal(t, map[string]string{"a": "6", "b": "4", "c": "5", "x": "3"}, values(v.Attributes))
		require.Equal(t, values(db.live()), values(v.Attributes))
	})
}

// The signal that starts a session is applied in the activity that finds it to
// be new.
func TestNewSessionCostsOneActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"), delta(2, "b"))) })
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.EqualValues(t, 2, v.AsOf)
		require.EqualValues(t, 1, v.Counters.Batches)
		require.EqualValues(t, 2, v.Counters.Events)
		require.Len(t, db.applies, 1)
		require.True(t, db.applies[0].NewSession)
		require.Equal(t, 1, db.activities)
	})
}

// One that the database knows is not written by what was worked out from
// nothing: not its row, and not from a RAE that is not its own.
func TestKnownSessionIsLoadedBeforeItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"), delta(2, "b"))) })
		h.stop(time.Minute)
		h.run(input())

		h = newHarness(t, db)
		h.at(0, func() { h.signal(batch(3, delta(3, "a"))) })
		h.stop(time.Minute)
		h.run(input())
		require.Len(t, db.applies, 2)
		require.False(t, db.applies[1].NewSession)
		require.Equal(t, device.SeqSet{{From: 1, To: 3}}, db.applies[1].Seen)
		v := h.view()
		require.Equal(t, map[string]string{"a": "3", "b": "2"}, values(v.Attributes))
		require.EqualValues(t, 3, v.Counters.Events, "counters go on from the database's")
		require.EqualValues(t, 1, v.Counters.Signals, "or begin, where it keeps none")

		h = newHarness(t, db)
		in := input()
		in.RAE = "RAE-2"
		foreign := batch(4, delta(4, "a"))
		foreign.Fold.RAE = in.RAE
		h.at(0, func() { h.signal(foreign) })
		h.stop(time.Minute)
		h.run(in)
		v = h.view()
		require.Equal(t, rae, v.RAE)
		require.EqualValues(t, 3, v.AsOf)
		require.Equal(t, workflows.CauseForeign, v.RecentRefusals[0].Cause)
		require.Equal(t, position(4), v.Positions, "the owner's position is the owner's")
		require.Contains(t, db.positions, position(5)[0].Foreign(in.RAE), "and is stepped over")
	})
}

func TestCancelFinishesWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		h.at(0, func() {
			h.signal(batch(1, delta(1, "a")))
			h.CancelWorkflow()
		})
		h.run(input())
		require.True(t, temporal.IsCanceledError(h.GetWorkflowError()))
		require.Equal(t, position(2), db.positions)
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		h := newHarness(t, db)
		first := delta(1)
		for i := range device.MaxAttributes {
			name := fmt.Sprintf("n%03d", i)
			first.Attributes[name] = device.Attribute{Value: json.RawMessage("1"), Seq: 1, At: first.Time}
		}
		h.at(0, func() { h.signal(batch(1, first)) })
		h.at(time.Second, func() { h.signal(batch(2, delta(2, "one.too.many", "n000"))) })
		h.stop(time.Minute)
		h.run(input())
		v := h.view()
		require.Len(t, v.Attributes, device.MaxAttributes)
		require.EqualValues(t, 1, v.Counters.OverLimit)
		require.Equal(t, []string{"one.too.many"}, db.applies[1].OverLimit)
		require.Equal(t, "2", string(v.Attributes["n000"].Value))
		require.EqualValues(t, 2, v.AsOf)
	})
}

func TestSearchAttributesOnlyWhereTheyAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		upserts := func(t *testing.T, search bool) int {
			db := &database{search: search}
			h := newHarness(t, db)
			n := 0
			h.OnUpsertTypedSearchAttributes(anything()).Return(nil).Maybe().Run(func(arguments) { n++ })
			e := delta(1)
			e.Attributes[device.AttrConnectionStatus] = device.Attribute{Value: json.RawMessage(`"up"`), Seq: 1, At: e.Time}
			h.at(0, func() { h.signal(batch(1, e)) })
			for seq := int64(2); seq < 9; seq++ { // nothing of this is shown
				h.at(time.Duration(seq)*time.Second, func() { h.signal(batch(seq, delta(seq, "a"))) })
			}
			h.stop(time.Minute)
			h.run(input())
			return n
		}
		require.Zero(t, upserts(t, false))
		require.Equal(t, 1, upserts(t, true), "with the first event, which brings the status")
		require.Equal(t, []string{"RaeSerial", "SyncState", "ConnectionStatus", "DeviceModel", "Esn", "TestState"}, workflows.SearchAttributes())
	})
}

// DeviceModel is the best of the vocabulary's model attributes that the device has.
func TestModelShownIsTheBestKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, &database{search: true})
		models := h.collectSearch(device.SearchModel)
		says := func(seq int64, name, value string) {
			e := delta(seq)
			e.Attributes[name] = device.Attribute{Value: json.RawMessage(value), Seq: seq, At: e.Time}
			h.signal(batch(seq, e))
		}
		h.at(0, func() { says(1, device.AttrSSDPServer, `"Linux UPnP/1.1"`) })
		h.at(time.Second, func() { says(2, device.AttrDHCPVendor, `"udhcp"`) })
		h.at(2*time.Second, func() { says(3, device.AttrDeviceModel, `"Lumora 55"`) })
		h.stop(time.Minute)
		h.run(input())
		require.Equal(t, []string{"Linux UPnP/1.1", "Lumora 55"}, *models)
	})
}

func TestRefusesToStartForWhatIsNoSession(t *testing.T) {
	for name, change := range map[string]func(*workflows.Input, *client.StartWorkflowOptions){
		"no session":          func(in *workflows.Input, _ *client.StartWorkflowOptions) { in.Session = "" },
		"no RAE":              func(in *workflows.Input, _ *client.StartWorkflowOptions) { in.RAE = "" },
		"another workflow ID": func(_ *workflows.Input, o *client.StartWorkflowOptions) { o.ID = "mine" },
	} {
		bubble(t, name, func(t *testing.T) {
			h := newHarness(t, &database{})
			in, options := input(), client.StartWorkflowOptions{ID: device.WorkflowID(session)}
			change(&in, &options)
			h.SetStartWorkflowOptions(options)
			h.run(in)
			var a *temporal.ApplicationError
			require.True(t, errors.As(h.GetWorkflowError(), &a))
			require.Equal(t, workflows.ErrBadInput, a.Type())
			require.True(t, a.NonRetryable())
		})
	}
}
