package workflows_test

import (
	"encoding/json"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// harness runs one workflow in the SDK's environment, in a bubble of package
// synctest: there no time passes while anything can run. Outside of one the
// environment fires its timers by the wall clock while an activity runs, and
// what a test sees would depend on how long the machine takes for that.
type harness struct {
	*testsuite.TestWorkflowEnvironment
	t  testing.TB
	db *database
}

// bubble is t.Run in a bubble.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func newHarness(t testing.TB, db *database) *harness {
	t.Helper()
	return newHarnessWith(t, db, nil)
}

func newHarnessWith(t testing.TB, db *database, metrics client.MetricsHandler) *harness {
	t.Helper()
	return newHarnessOf(t, db, metrics, workflows.Register)
}

// newHarnessAtLevel runs the workflow as code of that level.
func newHarnessAtLevel(t testing.TB, db *database, level int) *harness {
	t.Helper()
	return newHarnessOf(t, db, nil, func(r worker.WorkflowRegistry) { workflows.RegisterAtLevel(r, level) })
}

func newHarnessOf(t testing.TB, db *database, metrics client.MetricsHandler, register func(worker.WorkflowRegistry)) *harness {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	if metrics != nil {
		suite.SetMetricsHandler(metrics)
	}
	h := &harness{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t, db: db}
	register(h)
	h.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: device.WorkflowID(session), TaskQueue: workflows.TaskQueue})
	db.register(h)
	h.SetTestTimeout(time.Minute)
	return h
}

func input() workflows.Input { return workflows.Input{RAE: rae, Session: session} }

// at runs f in the workflow's time, d after its start.
func (h *harness) at(d time.Duration, f func()) { h.RegisterDelayedCallback(f, d) }

func (h *harness) signal(b any) { h.SignalWorkflow(device.SignalEvents, b) }

// signalDeltas signals the events first to last, one in a batch, of attribute "a".
func (h *harness) signalDeltas(first, last int64) {
	for seq := first; seq <= last; seq++ {
		h.signal(batch(seq, delta(seq, "a")))
	}
}

// stop ends a session that would wait for ever.
func (h *harness) stop(d time.Duration) { h.at(d, h.CancelWorkflow) }

func (h *harness) run(in workflows.Input) { h.ExecuteWorkflow(workflows.DeviceSessionName, in) }

// next is the input of the run that a run continued as.
func (h *harness) next() workflows.Input {
	h.t.Helper()
	var can *workflow.ContinueAsNewError
	require.ErrorAs(h.t, h.GetWorkflowError(), &can)
	require.Equal(h.t, workflows.DeviceSessionName, can.WorkflowType.Name)
	var in workflows.Input
	require.NoError(h.t, converter.GetDefaultDataConverter().FromPayloads(can.Input, &in))
	return in
}

// result is that of a run that completed.
func (h *harness) result() workflows.Result {
	h.t.Helper()
	require.NoError(h.t, h.GetWorkflowError())
	var result workflows.Result
	require.NoError(h.t, h.GetWorkflowResult(&result))
	return result
}

func (h *harness) view() workflows.StateView {
	h.t.Helper()
	v, err := h.QueryWorkflow(workflows.QueryState)
	require.NoError(h.t, err)
	var view workflows.StateView
	require.NoError(h.t, v.Get(&view))
	return view
}

// collectSearch collects the values that a search attribute is set to.
func (h *harness) collectSearch(name string) *[]string {
	require.Contains(h.t, workflows.SearchAttributes(), name)
	values := &[]string{}
	key := temporal.NewSearchAttributeKeyKeyword(name)
	h.OnUpsertTypedSearchAttributes(anything()).Return(nil).Maybe().Run(func(a arguments) {
		if set, ok := a[0].(temporal.SearchAttributes).GetKeyword(key); ok { //nolint:forcetypeassert // as documented
			*values = append(*values, set)
		}
	})
	return values
}

type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

// delta is an event that sets names to the event's own seq.
func delta(seq int64, names ...string) device.Event {
	typ := device.Delta
	if seq == 1 {
		typ = device.Opened
	}
	e := device.Event{RAE: rae, Session: session, Type: typ, Seq: seq, Time: epoch.Add(time.Duration(seq) * time.Second), Attributes: map[string]device.Attribute{}}
	for _, name := range names {
		e.Attributes[name] = attributeAt(seq)
	}
	return e
}

// attributeAt is an attribute that the event of a seq set to that seq.
func attributeAt(seq int64) device.Attribute {
	value, _ := json.Marshal(seq)
	return device.Attribute{Value: value, Seq: seq, At: epoch.Add(time.Duration(seq) * time.Second)}
}

// withMAC has the event say which device the session is of.
func withMAC(e device.Event) device.Event {
	e.Attributes[device.AttrMAC] = device.Attribute{Value: []byte(`"02:00:00:00:00:01"`), Seq: e.Seq, At: e.Time}
	return e
}

func snapshot(seq int64, attributes map[string]device.Attribute) device.Event {
	return device.Event{
		RAE: rae, Session: session, Type: device.Snapshot, Seq: seq, Time: epoch.Add(time.Duration(seq) * time.Second),
		Attributes: attributes, Hash: device.Hash(attributes),
	}
}

func closed(seq int64) device.Event {
	return device.Event{RAE: rae, Session: session, Type: device.Closed, Seq: seq, Time: epoch.Add(time.Duration(seq) * time.Second), Reason: "left"}
}

// batch folds events as the poller would, from offset on.
func batch(offset int64, events ...device.Event) device.Batch {
	b := device.Batch{
		Version: device.BatchVersion, Topic: topic, Partition: 3,
		First: offset, Last: offset + int64(len(events)) - 1, Records: len(events),
		Received: epoch.Add(time.Hour + time.Duration(offset)*time.Second),
	}
	for _, e := range events {
		f := device.FoldOf(e)
		f.Attributes = maps.Clone(f.Attributes)
		b.Fold = device.Merge(b.Fold, f)
	}
	return b
}

func position(next int64) []device.Position {
	return []device.Position{{Topic: topic, Partition: 3, Next: next}}
}

func values(attributes map[string]device.Attribute) map[string]string {
	out := map[string]string{}
	for name, a := range attributes {
		out[name] = string(a.Value)
	}
	return out
}
