package poller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// starts remembers the search attributes of each signal with start.
type starts struct {
	lacks bool // the server has lost them
	have  []map[string]string
}

func (s *starts) SignalWithStartWorkflow(_ context.Context, _, _ string, _ any, o client.StartWorkflowOptions, _ any, _ ...any) (client.WorkflowRun, error) {
	have := map[string]string{}
	for key, value := range o.TypedSearchAttributes.GetUntypedValues() {
		have[key.GetName()], _ = value.(string)
	}
	s.have = append(s.have, have)
	if s.lacks && len(have) > 0 {
		return nil, serviceerror.NewInvalidArgument("no mapping defined for search attribute")
	}
	return nil, nil
}

// A new session starts with its search attributes where the server has them; one
// that is known does not bring them again.
func TestNewSessionsStartWithTheirSearchAttributes(t *testing.T) {
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	batch := func(seqs device.SeqSet) device.Batch {
		return device.Batch{Fold: device.Fold{
			RAE: "rae-1", Session: "6f1d2c1e-7f0a-4b57-9a57-0d5a3b1f2c11", Seqs: seqs, First: at, Last: at,
			Attributes: map[string]device.Attribute{
				"connection.status": {Value: []byte(`"online"`), Seq: 1, At: at},
				"netflix.esn":       {Value: []byte(`null`), Seq: 1, At: at},
			},
		}}
	}
	server, checks := &starts{}, 0
	answer := errors.New("cannot be reached")
	s := &signaller{temporal: server, check: func(context.Context) error { checks++; return answer }}
	last := func(b device.Batch) map[string]string {
		require.NoError(t, s.signal(t.Context(), b))
		return server.have[len(server.have)-1]
	}
	opened := batch(device.SeqSet{{From: 1, To: 3}})
	require.Empty(t, last(opened))
	require.Empty(t, last(opened), "it does not ask at each signal")
	require.Equal(t, 1, checks)

	answer = nil
	s.asked.Store(time.Now().Add(-searchAgain).UnixNano())
	require.Equal(t, map[string]string{"RaeSerial": "rae-1", "SyncState": "live", "ConnectionStatus": "online"}, last(opened))
	require.Equal(t, "gap", last(batch(device.SeqSet{{From: 1, To: 1}, {From: 3, To: 3}}))["SyncState"])
	require.Empty(t, last(batch(device.SeqSet{{From: 4, To: 9}})))

	server.lacks = true
	require.Empty(t, last(opened), "sent again without them")
	require.Len(t, server.have, 7)
	require.Empty(t, last(opened))
	require.Len(t, server.have, 8, "the server is known to lack them")
}
