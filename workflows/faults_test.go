package workflows_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Faults, on a real Temporal Server.

// Whatever order signals come in, and however often, the record is the same.
func TestDuplicatesAndDisorderOnARealServer(t *testing.T) {
	t.Parallel()
	s := newServer(t, &database{})
	in := input()
	in.Session = uuid.NewString()
	in.Options.SignalsPerRun = 10
	var batches []device.Batch
	want := map[string]string{}
	for seq := int64(1); seq <= 30; seq++ {
		name := fmt.Sprint("n", seq%7)
		want[name] = fmt.Sprint(seq)
		batches = append(batches, batch(seq, delta(seq, name)))
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // not a secret
	for range 2 {
		random.Shuffle(len(batches), func(i, j int) { batches[i], batches[j] = batches[j], batches[i] })
		for _, b := range batches {
			s.signal(in, b)
		}
	}
	v := s.until(in, "every seq", func(v workflows.StateView) bool {
		return v.AsOf == 30 && len(v.Missing) == 0 && v.Counters.Signals >= 60 && v.Waiting == 0
	})
	require.Equal(t, want, values(v.Attributes))
	require.EqualValues(t, 30, v.Counters.Events)
	require.GreaterOrEqual(t, v.Counters.Duplicates, int64(30), "more, where an answer of the database was lost with its workflow task")
	require.Equal(t, device.Hash(s.db.live()), v.Hash)
	s.end(in)
}

func TestPoisonOnARealServer(t *testing.T) {
	t.Parallel()
	s := newServer(t, &database{})
	in := input()
	in.Session = uuid.NewString()
	s.signal(in, batch(1, delta(1, "a")))
	newer := batch(2, delta(2, "a"))
	newer.Version = 99
	poison := []any{newer, "not a batch", []byte{0xff, 0xfe}, nil, 7}
	for _, p := range poison {
		s.signal(in, p)
	}
	s.signal(in, batch(3, delta(2, "b")))
	v := s.asOf(in, 2)
	require.GreaterOrEqual(t, v.Counters.Refused, int64(len(poison)))
	require.LessOrEqual(t, v.Counters.Refused, int64(len(poison)+s.again))
	require.Equal(t, map[string]string{"a": "1", "b": "2"}, values(v.Attributes))
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	quarantined := 0
	for _, a := range s.db.applies {
		quarantined += len(a.Quarantined)
	}
	require.GreaterOrEqual(t, quarantined, len(poison), "more, where an answer of the database was lost with its workflow task")
	s.end(in)
}

// A state of 256 attributes that fills an event goes from run to run.
func TestStateAtTheLimitsThroughContinueAsNew(t *testing.T) {
	t.Parallel()
	s := newServer(t, &database{search: true})
	in := input()
	in.Session = uuid.NewString()
	in.Options.SignalsPerRun = 2
	full := delta(1)
	for i := range device.MaxAttributes {
		name := fmt.Sprintf("attribute.%03d", i)
		value, _ := json.Marshal(fmt.Sprintf("%0110d", i))
		full.Attributes[name] = device.Attribute{Value: value, Seq: 1, At: full.Time}
	}
	size := device.StateBytes(full.Attributes)
	require.LessOrEqual(t, size, device.MaxStateBytes)
	require.Greater(t, size, device.MaxStateBytes*3/4, "or nothing is near a limit")
	s.signal(in, batch(1, full))
	for seq := int64(2); seq <= 12; seq++ {
		e := delta(seq)
		e.Attributes["attribute.007"] = device.Attribute{Value: json.RawMessage(fmt.Sprint(seq)), Seq: seq, At: e.Time}
		s.signal(in, batch(seq, e))
		s.asOf(in, seq) // or one run takes them all
	}
	v := s.asOf(in, 12)
	require.Len(t, v.Attributes, device.MaxAttributes)
	require.GreaterOrEqual(t, v.Runs, 3)
	require.Zero(t, v.Counters.OverLimit)
	require.Equal(t, device.Hash(s.db.live()), v.Hash)
	s.end(in)
}

// The database is away for longer than a workflow task may take. What comes
// meanwhile waits, and nothing is applied twice.
func TestOutageLongerThanAWorkflowTask(t *testing.T) {
	t.Parallel()
	db := &database{}
	s := newServer(t, db)
	in := input()
	in.Session = uuid.NewString()
	s.signal(in, batch(1, delta(1, "a")))
	s.asOf(in, 1)
	db.down.Store(true)
	begun := time.Now()
	for seq := int64(2); seq <= 20; seq++ {
		s.signal(in, batch(seq, delta(seq, fmt.Sprint("n", seq))))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	drained, err := s.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: device.WorkflowID(in.Session), UpdateName: workflows.UpdateDrain, WaitForStage: client.WorkflowUpdateStageAccepted,
	})
	require.NoError(t, err)
	var p workflows.Progress
	require.Eventually(t, func() bool {
		return s.query(in, workflows.QueryProgress, &p) == nil && p.Escalated && time.Since(begun) > 11*time.Second
	}, patience, 100*time.Millisecond)
	require.Contains(t, p.LastError, "connection refused")
	db.down.Store(false)
	var applied workflows.AppliedState
	require.NoError(t, drained.Get(ctx, &applied))
	require.EqualValues(t, 20, applied.AsOf)
	require.EqualValues(t, 20, applied.Events)
	require.Equal(t, position(21), applied.Positions)
	v := s.asOf(in, 20)
	require.Zero(t, v.Counters.Duplicates)
	require.Len(t, v.Attributes, 20)
	s.end(in)
}

// A gap under a stream of events through many runs: it is asked about once, and
// again only after the back-off; it heals, and nothing is lost.
func TestResyncUnderAStream(t *testing.T) {
	t.Parallel()
	db := &database{}
	s := newServer(t, db)
	in := input()
	in.Session = uuid.NewString()
	in.Options.SignalsPerRun = 20
	s.signal(in, batch(1, delta(1, "a")))
	offset, seq := int64(2), int64(3) // 2 is lost
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	asked := func() bool {
		db.mu.Lock()
		defer db.mu.Unlock()
		return len(db.requests) > 0
	}
	begun := time.Now()
	for ; !asked(); offset, seq = offset+1, seq+1 {
		require.Less(t, time.Since(begun), patience, "a request")
		<-tick.C
		s.signal(in, batch(offset, delta(seq, "b")))
	}
	s.signal(in, batch(offset, snapshot(seq, map[string]device.Attribute{
		"a": attributeAt(1), "b": attributeAt(seq - 1), "lost": attributeAt(2),
	})))
	v := s.until(in, "whole", func(v workflows.StateView) bool { return v.AsOf == seq && v.Sync == workflows.SyncLive })
	require.Equal(t, []string{"lost"}, v.Check.Repaired)
	require.Empty(t, v.Check.Drift)
	require.Equal(t, v.Hash, v.Check.Edge)
	require.Equal(t, device.Hash(db.live()), v.Hash)
	commands := map[string]bool{} // one may be tried twice
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, r := range db.requests {
		commands[r.Nonce] = true
	}
	const backOff = 15 * time.Second // at least
	require.LessOrEqual(t, len(commands), 1+int(time.Since(begun)/backOff))
	t.Logf("%d events, %d runs", v.Counters.Events, v.Runs)
	s.end(in)
}

// A newer session's signal reaches one that is idle and not running.
func TestCloseStartsWhatIsNotRunning(t *testing.T) {
	t.Parallel()
	s := newServer(t, &database{})
	in := input()
	in.Session = uuid.NewString()
	in.Options.IdleTimeout = time.Second
	run := s.signal(in, batch(1, delta(1, "a")))
	result := s.result(in, run)
	require.True(t, result.Idle)

	r, err := s.SignalWithStartWorkflow(t.Context(), device.WorkflowID(in.Session), workflows.SignalClose, workflows.SupersededCloseRequest(session),
		workflows.StartOptions(s.queue, in.RAE, in.Session), workflows.DeviceSessionName, in)
	require.NoError(t, err)
	result = s.result(in, r.GetRunID())
	require.Equal(t, "superseded by "+session, result.Reason)
	require.EqualValues(t, 1, result.Closed)
	require.Equal(t, map[string]string{"a": "1"}, values(s.db.live()))
}
