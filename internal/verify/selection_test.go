package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/internal/verify"
	"github.com/rollcall-platform/rollcall/workflows"
)

// rows are the database's sessions: the RAE of each.
type rows struct {
	open, closed map[string]string
	pages        int
}

func (r *rows) GetDevice(_ context.Context, ref string) (store.Device, error) {
	for closed, sessions := range []map[string]string{r.open, r.closed} {
		if rae, ok := sessions[ref]; ok {
			return store.Device{Summary: store.Summary{Session: ref, RAE: rae, Closed: int64(closed)}}, nil
		}
	}
	return store.Device{}, store.ErrNotFound
}

func (r *rows) OpenSessions(_ context.Context, raes []string, after string, limit int) ([]store.SessionOf, error) {
	r.pages++
	var out []store.SessionOf
	for session, rae := range r.open {
		if session > after && (len(raes) == 0 || slices.Contains(raes, rae)) {
			out = append(out, store.SessionOf{Session: session, RAE: rae})
		}
	}
	slices.SortFunc(out, func(a, b store.SessionOf) int { return slices.Compare([]byte(a.Session), []byte(b.Session)) })
	return out[:min(limit, len(out))], nil
}

func (r *rows) Known(_ context.Context, sessions []string) (map[string]device.SeqSet, error) {
	out := map[string]device.SeqSet{}
	for _, s := range sessions {
		if _, ok := r.open[s]; ok {
			out[s] = nil
		}
	}
	return out, nil
}

// temporal is a server whose running workflows answer, or fail, by their IDs. It
// lists one a page.
type temporal struct {
	ids     []string
	views   map[string]workflows.StateView
	fails   map[string]error
	queries []string
}

type encoded struct {
	converter.EncodedValue
	json []byte
}

func (e encoded) Get(to any) error { return json.Unmarshal(e.json, to) }

func (c *temporal) QueryWorkflow(_ context.Context, id, _, query string, _ ...any) (converter.EncodedValue, error) {
	c.queries = append(c.queries, query+" "+id)
	if err := c.fails[id]; err != nil {
		return nil, err
	}
	b, err := json.Marshal(c.views[id])
	return encoded{json: b}, err
}

func (c *temporal) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	if r.GetQuery() != "WorkflowType = 'DeviceSession' AND ExecutionStatus = 'Running'" {
		return nil, errors.New("another query")
	}
	page := 0
	if len(r.GetNextPageToken()) > 0 {
		page = int(r.GetNextPageToken()[0])
	}
	out := &workflowservice.ListWorkflowExecutionsResponse{}
	if page < len(c.ids) {
		out.Executions = []*workflow.WorkflowExecutionInfo{{Execution: &common.WorkflowExecution{WorkflowId: c.ids[page]}}}
		out.NextPageToken = []byte{byte(page + 1)}
	}
	return out, nil
}

const (
	first  = "11111111-1111-4111-8111-111111111111"
	second = "22222222-2222-4222-8222-222222222222"
	third  = "33333333-3333-4333-8333-333333333333"
	fourth = "44444444-4444-4444-8444-444444444444"
	fifth  = "55555555-5555-4555-8555-555555555555"
)

// A session whose workflow runs and of which the database has no row is verified
// too, unless it has applied nothing yet.
func TestSelectOpenSessions(t *testing.T) {
	index := &rows{open: map[string]string{first: "RAE-1", second: "RAE-2"}}
	server := &temporal{
		ids: []string{device.WorkflowID(first), "roll", device.WorkflowID(third), device.WorkflowID(fourth), device.WorkflowID(fifth), device.WorkflowID("not-a-uuid")},
		views: map[string]workflows.StateView{
			device.WorkflowID(third):  {RAE: "RAE-3", AsOf: 7},
			device.WorkflowID(fourth): {RAE: "RAE-1"}, // new: it has applied nothing
		},
		fails: map[string]error{device.WorkflowID(fifth): errors.New("no worker")},
	}
	w := verify.SessionWorkflows{Client: server}
	got, err := verify.Select(t.Context(), index, w, verify.Selection{})
	require.NoError(t, err)
	require.Equal(t, []verify.Session{{ID: first, RAE: "RAE-1"}, {ID: second, RAE: "RAE-2"}, {ID: third, RAE: "RAE-3"}, {ID: fifth}}, got,
		"one that cannot be asked is not known to be new")
	require.NotContains(t, server.queries, "state "+device.WorkflowID(first), "the database has it: nobody needs to be asked")

	got, err = verify.Select(t.Context(), index, w, verify.Selection{RAEs: []string{"RAE-1", "RAE-3"}})
	require.NoError(t, err)
	require.Equal(t, []verify.Session{{ID: first, RAE: "RAE-1"}, {ID: third, RAE: "RAE-3"}}, got)

	server.fails[device.WorkflowID(third)] = serviceerror.NewNotFound("ended meanwhile")
	got, err = verify.Select(t.Context(), index, w, verify.Selection{RAEs: []string{"RAE-3"}})
	require.ErrorIs(t, err, verify.ErrNoSession)
	require.EqualError(t, err, `no open session to verify on RAE ["RAE-3"]`)
	require.Empty(t, got)
}

func TestSelectReadsAllPages(t *testing.T) {
	index := &rows{open: map[string]string{}}
	for n := range 2*store.MaxLimit + 1 {
		index.open[device.WorkflowID(string(rune('a'+n%26)))+string(rune(n))] = "RAE-1"
	}
	got, err := verify.Select(t.Context(), index, verify.SessionWorkflows{Client: &temporal{}}, verify.Selection{})
	require.NoError(t, err)
	require.Len(t, got, len(index.open))
	require.Equal(t, 3, index.pages)
}

func TestSelectNamedSessions(t *testing.T) {
	index := &rows{open: map[string]string{first: "RAE-1", second: "RAE-2"}, closed: map[string]string{third: "RAE-1"}}
	server := &temporal{ids: []string{device.WorkflowID(fourth)}, views: map[string]workflows.StateView{device.WorkflowID(fourth): {AsOf: 1}}}
	w := verify.SessionWorkflows{Client: server}
	got, err := verify.Select(t.Context(), index, w, verify.Selection{Devices: []string{third, second, first}, RAEs: []string{"RAE-1"}})
	require.NoError(t, err)
	require.Equal(t, []verify.Session{{ID: third, RAE: "RAE-1", Closed: true}, {ID: first, RAE: "RAE-1"}}, got)
	_, err = verify.Select(t.Context(), index, w, verify.Selection{Devices: []string{"toaster"}})
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Empty(t, server.queries, "only what was named")
}
