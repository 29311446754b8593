package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/temporal"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/session"
	"github.com/rollcall-platform/rollcall/workflows"
)

// applied is a database that keeps what was written.
type applied struct {
	mu      sync.Mutex
	updates []store.Update
}

func (a *applied) Apply(_ context.Context, u []store.Update) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.updates = append(a.updates, u...)
	return nil
}

func (a *applied) Load(context.Context, string) (store.Stored, error) {
	return store.Stored{}, nil
}

func (a *applied) Rivals(context.Context, string) (store.Rivals, error) { return store.Rivals{}, nil }

// The Temporal Server is stopped and started again under a stream of events.
// Signals that it does not take are sent again, as the poller does; none is
// lost, and none counts twice.
func TestRestartedTemporalLosesNoEvent(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	addr, dir := loopback(porttest.Port(t)), t.TempDir()
	start := func() *temporal.Server {
		s, err := temporal.Start(t.Context(), temporal.Options{DataDir: dir, Logger: quiet, FrontendAddr: addr})
		require.NoError(t, err)
		return s
	}
	server := start()
	c, err := client.Dial(client.Options{HostPort: addr, Logger: sdklog.NewStructuredLogger(quiet)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	db := &applied{}
	w, err := session.New(session.Options{Client: c, Store: db, Logger: quiet})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	id, at := uuid.NewString(), time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	const events = 200
	signal := func(seq int64) error {
		b := device.Batch{
			Version: device.BatchVersion, Topic: device.KafkaEvents, First: seq, Last: seq, Records: 1, Received: at,
			Fold: device.Fold{
				RAE: "RAE-1", Session: id, Seqs: device.SeqSet{{From: seq, To: seq}}, First: at, Last: at,
				Attributes: map[string]device.Attribute{"a": {Value: fmt.Append(nil, seq), Seq: seq, At: at}},
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := c.SignalWithStartWorkflow(ctx, device.WorkflowID(id), device.SignalEvents, b,
			workflows.StartOptions("", "RAE-1", id), workflows.DeviceSessionName, workflows.Input{RAE: "RAE-1", Session: id})
		return err
	}
	for seq := int64(1); seq <= events; seq++ {
		if seq == events/2 {
			stop, cancel := context.WithTimeout(t.Context(), patience)
			require.NoError(t, server.Close(stop))
			cancel()
			require.Error(t, signal(seq), "the server is away")
			server = start()
		}
		require.Eventually(t, func() bool { return signal(seq) == nil }, patience, 20*time.Millisecond)
	}
	var receipt workflows.AppliedState
	asking, cancelAsking := context.WithTimeout(t.Context(), patience)
	defer cancelAsking()
	h, err := c.UpdateWorkflow(asking, client.UpdateWorkflowOptions{
		WorkflowID: device.WorkflowID(id), UpdateName: workflows.UpdateDrain, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(t, err)
	require.NoError(t, h.Get(asking, &receipt))
	require.EqualValues(t, events, receipt.AsOf)
	require.EqualValues(t, events, receipt.Events, "each once")
	require.Equal(t, []device.Position{{Topic: device.KafkaEvents, Next: events + 1}}, receipt.Positions)
	db.mu.Lock()
	last := db.updates[len(db.updates)-1]
	db.mu.Unlock()
	require.Equal(t, device.SeqSet{{From: 1, To: events}}, last.Seen)
	cancel()
	<-done
	stop, cancelStop := context.WithTimeout(context.Background(), patience)
	defer cancelStop()
	require.NoError(t, server.Close(stop))
}
