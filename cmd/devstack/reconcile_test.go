package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workers/poller"
	"github.com/rollcall-platform/rollcall/workflows"
)

// lossy copies events from one topic to another, but for one delta that is the
// last to set some attribute of its session: only a snapshot can bring it back.
type lossy struct {
	mu      sync.Mutex
	dropped *device.Event
	copied  atomic.Int64
}

const holedTopic = "events-with-a-hole"

// run copies until ctx ends. drop says which event is lost.
func (l *lossy) run(ctx context.Context, t *testing.T, addr string, drop func(device.Event) bool) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(device.KafkaEvents), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer cl.Close()
	for ctx.Err() == nil {
		for _, r := range cl.PollFetches(ctx).Records() {
			e, err := device.DecodeRecord(string(r.Key), r.Value)
			if err == nil && drop(e) {
				l.mu.Lock()
				l.dropped = &e
				l.mu.Unlock()
				continue
			}
			out := &kgo.Record{Topic: holedTopic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
			if err := cl.ProduceSync(ctx, out).FirstErr(); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("copy: %v", err)
				return
			}
			l.copied.Add(1)
		}
	}
}

// An event is lost on the way. The session sees the gap and asks; the real edge
// answers through Kafka and the broker with a snapshot; the session is whole
// again, and says what was repaired.
func TestLostEventIsHealedByTheEdge(t *testing.T) {
	rollcall := build(t, "../..", "./cmd/rollcall")
	log := testLog(t)
	flags := testFlags(t, t.TempDir())
	flags.bare = true
	s := testStack(t, flags, log)
	require.NoError(t, s.startWorker(t.Context()))

	demo := &demoCmd{stackFlags: flags, Capture: []string{lan}, Once: true, SnapshotInterval: -1}
	raes, err := s.startRAEs(demo)
	require.NoError(t, err)
	replayed(t, raes[0].edge)
	require.Eventually(t, func() bool { return raes[0].pending() == 0 }, patience, 20*time.Millisecond)

	// The lost event: one in the middle of a session's life that is still the
	// newest to have set an attribute.
	session, seq, whole := "", int64(0), map[string]device.Attribute(nil)
	for _, d := range raes[0].edge.Devices() {
		for _, a := range d.Attributes {
			if a.Seq > 1 && a.Seq < d.Seq && session == "" {
				session, seq, whole = d.Session, a.Seq, d.Attributes
			}
		}
	}
	require.NotEmpty(t, session, "the capture has no such event")
	topics, err := kadm.NewClient(s.kafka).ListTopics(t.Context(), device.KafkaEvents)
	require.NoError(t, err)
	created, err := kadm.NewClient(s.kafka).CreateTopic(t.Context(), int32(len(topics[device.KafkaEvents].Partitions)), 1, nil, holedTopic) //nolint:gosec // a few
	require.NoError(t, err)
	require.NoError(t, created.Err)
	link := &lossy{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		link.run(ctx, t, s.kafkaAddr, func(e device.Event) bool { return e.Session == session && e.Seq == seq })
	}()
	defer func() { cancel(); <-done }()
	p, err := poller.New(poller.Options{Kafka: s.kafkaOptions(), Topic: holedTopic, Temporal: s.temporal, Acks: s.store, Logger: s.log})
	require.NoError(t, err)
	s.run("poller", p.Run)

	view := func() (v workflows.StateView) {
		q, err := s.temporal.QueryWorkflow(t.Context(), device.WorkflowID(session), "", workflows.QueryState)
		if err == nil {
			err = q.Get(&v)
		}
		if err != nil {
			return workflows.StateView{}
		}
		return v
	}
	var v workflows.StateView
	var states []workflows.SyncState // that were seen
	require.Eventually(t, func() bool {
		v = view()
		if n := len(states); v.Sync != "" && v.Sync != workflows.SyncLoading && (n == 0 || states[n-1] != v.Sync) {
			states = append(states, v.Sync)
		}
		return v.Check != nil && v.Sync == workflows.SyncLive
	}, patience, 10*time.Millisecond)
	t.Logf("%v; seq %d was lost; snapshot at %d; repaired %v", states, seq, v.Snapshot, v.Check.Repaired)
	require.Positive(t, v.Counters.Requests, "it has asked, for it saw the gap")
	link.mu.Lock()
	require.NotNil(t, link.dropped)
	for name, a := range whole {
		if a.Seq == seq {
			require.Contains(t, v.Check.Repaired, name)
		}
	}
	for _, name := range v.Check.Repaired { // what it removed among them, unless a later event set that anew
		require.Contains(t, link.dropped.Attributes, name)
	}
	link.mu.Unlock()
	require.Empty(t, v.Check.Drift)
	require.Equal(t, v.Check.Edge, v.Hash)
	for _, d := range raes[0].edge.Devices() {
		if d.Session == session {
			require.Equal(t, device.Hash(d.Attributes), v.Hash)
			require.Equal(t, d.Seq, v.AsOf)
		}
	}
	stored, err := s.store.Load(t.Context(), session)
	require.NoError(t, err)
	require.Equal(t, v.Hash, device.Hash(stored.State.Live()))

	// The same session, by the commands of an operator.
	cli := func(want int, out any, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), rollcall, append([]string{"session"}, append(args, "-o", "json")...)...)
		cmd.Env = append(os.Environ(), "ROLLCALL_DATABASE_URL="+s.databaseURL, "TEMPORAL_ADDRESS="+loopback(flags.TemporalPort))
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		require.Equal(t, want, cmd.ProcessState.ExitCode(), stdout.String()+stderr.String())
		if out != nil {
			require.NoError(t, json.Unmarshal(stdout.Bytes(), out))
		}
		return stderr.String()
	}
	var progress workflows.Progress
	cli(0, &progress, "progress", session)
	require.Equal(t, workflows.SyncLive, progress.Sync)
	require.False(t, progress.NextTimer.IsZero())
	var receipt workflows.AppliedState
	cli(0, &receipt, "drain", session)
	require.Equal(t, v.AsOf, receipt.AsOf)
	cli(0, &receipt, "close", session, "--reason", "a test", "--yes")
	require.Equal(t, v.AsOf, receipt.Closed)
	cli(0, &receipt, "close", session, "--reason", "again", "--yes") // its workflow has ended: it is started for it
	require.Equal(t, "a test", receipt.Reason)
	require.Contains(t, cli(3, nil, "drain", uuid.NewString()), "no workflow that runs")
	d, err := s.store.GetDevice(t.Context(), session)
	require.NoError(t, err)
	require.Equal(t, v.AsOf, d.Closed)
}
