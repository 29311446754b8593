package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/check"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workers/session/rollout"
	"github.com/rollcall-platform/rollcall/workflows"
)

// rig is the stack with poller and workers as processes, as in production.
type rig struct {
	*stack
	t        *testing.T
	rollcall string
	env      []string
	log      *os.File
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, rollcall: build(t, "../..", "./cmd/rollcall"), log: testLog(t)}
	flags := testFlags(t, t.TempDir())
	flags.bare = true
	r.stack = testStack(t, flags, r.log)
	r.env = []string{
		"ROLLCALL_DATABASE_URL=" + r.databaseURL, "ROLLCALL_KAFKA_BROKERS=" + r.kafkaAddr,
		"TEMPORAL_ADDRESS=" + loopback(flags.TemporalPort), "ROLLCALL_ADMIN_ADDR=127.0.0.1:0",
	}
	return r
}

func (r *rig) start(args ...string) *process {
	p := &process{t: r.t, log: r.log, env: r.env, args: append([]string{r.rollcall}, args...)}
	p.start()
	r.t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	return p
}

func (r *rig) worker(build string) *process {
	return r.start("worker", "--deployment", "rollcall", "--build-id", build)
}

// roll runs the command; the report is what it printed, whatever its exit code.
func (r *rig) roll(build string, args ...string) (report rollout.RollReport, err error) {
	cmd := exec.CommandContext(r.t.Context(), r.rollcall, append([]string{"deployment", "roll", "--deployment", "rollcall", "--build-id", build}, args...)...)
	cmd.Env = append(os.Environ(), r.env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, r.log
	err = cmd.Run()
	require.NoError(r.t, json.Unmarshal(out.Bytes(), &report), out.String())
	return report, err
}

// traffic produces the lawful events of sessions: every session opens, then
// those of busy go on at a rate of events a second until it is halted.
type traffic struct {
	t        *testing.T
	kafka    *kgo.Client
	seqs     map[string]int64
	sessions []string
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// opening is how many events each session begins with.
const opening = 3

func (r *rig) traffic(sessions, busy, rate int) *traffic {
	ctx, stop := context.WithCancel(r.t.Context())
	l := &traffic{t: r.t, kafka: r.kafka, seqs: map[string]int64{}, stop: stop}
	for range sessions {
		l.sessions = append(l.sessions, uuid.NewString())
	}
	for _, s := range l.sessions {
		for range opening {
			l.produce(s)
		}
	}
	r.t.Cleanup(l.halt)
	l.done.Go(func() {
		random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // not a secret
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.produce(l.sessions[random.IntN(busy)])
			}
		}
	})
	return l
}

func (l *traffic) produce(session string) {
	l.seqs[session]++
	seq := l.seqs[session]
	e := device.Event{
		RAE: "RAE-1", Session: session, Type: device.Delta, Seq: seq, Time: time.Now().UTC().Truncate(time.Millisecond),
		Attributes: map[string]device.Attribute{},
	}
	if seq == 1 {
		e.Type = device.Opened
	}
	for _, name := range []string{"connection.status", fmt.Sprint("state.n", seq%5)} {
		e.Attributes[name] = device.Attribute{Value: json.RawMessage(fmt.Sprintf(`"%d"`, seq)), Seq: seq, At: e.Time}
	}
	value, err := e.Encode()
	if err != nil {
		panic(err)
	}
	key := "rollcall/v1/RAE-1/sessions/" + session + "/events"
	l.kafka.Produce(context.Background(), &kgo.Record{Topic: device.KafkaEvents, Key: []byte(key), Value: value}, func(_ *kgo.Record, err error) {
		if err != nil && l.t.Context().Err() == nil {
			panic(err)
		}
	})
}

// halt returns how many events there are, when Kafka has them all.
func (l *traffic) halt() {
	l.stop()
	l.done.Wait()
	_ = l.kafka.Flush(context.Background())
}

func (l *traffic) events() (n int64) {
	for _, seq := range l.seqs {
		n += seq
	}
	return n
}

// at waits until a session's workflow has applied all up to seq.
func (r *rig) at(session string, seq int64) (view workflows.StateView) {
	require.Eventually(r.t, func() bool {
		view = workflows.StateView{}
		q, err := r.temporal.QueryWorkflow(r.t.Context(), device.WorkflowID(session), "", workflows.QueryState)
		return err == nil && q.Get(&view) == nil && view.AsOf == seq
	}, patience, 20*time.Millisecond, "session %s does not come to seq %d", session, seq)
	require.Empty(r.t, view.Missing)
	return view
}

// applied waits until every session's workflow has applied all, and returns how
// many events each build has.
func (l *traffic) applied(r *rig) map[string]int64 {
	builds := map[string]int64{}
	for _, s := range l.sessions {
		view := r.at(s, l.seqs[s])
		for _, b := range view.Builds {
			builds[b.ID] += b.Events
		}
	}
	return builds
}

// Live sessions, some of them busy and some idle, move from one worker version
// to the next while events come in. Then the old worker is stopped, and nothing
// is missing.
func TestRollMovesLiveSessions(t *testing.T) {
	r := newRig(t)
	r.start("poller", "--instance-id", "poller-1")
	old := r.worker("v1")
	_, err := r.roll("v1", "--ramp=")
	require.NoError(t, err, "the first version, from none")

	const sessions, busy = 60, 40
	load := r.traffic(sessions, busy, 150)
	require.Eventually(t, func() bool {
		s, err := rollout.Look(t.Context(), r.temporal, "default", workflows.TaskQueue, "rollcall")
		return err == nil && s.Versions[0].Sessions == sessions && s.Unversioned.Sessions == 0
	}, patience, 50*time.Millisecond, "all sessions run on v1")
	for _, s := range load.sessions[busy:] {
		r.at(s, opening) // it has no more work, with which it could move by itself
	}

	r.worker("v2")
	report, err := r.roll("v2", "--ramp=30", "--hold=3s", "--nudge-rate=200", "--drain-timeout=3m")
	b, _ := json.Marshal(report)
	t.Logf("report: %s", b)
	require.NoError(t, err)
	require.NoError(t, old.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, old.cmd.Wait())

	require.True(t, report.Complete)
	require.True(t, report.Drained)
	require.Equal(t, "v1", report.From)
	require.Equal(t, rollout.Sessions{Before: sessions, Moved: sessions, Now: sessions}, report.Sessions)
	require.GreaterOrEqual(t, report.Nudges, 15, "the idle ones, but for those that the ramp took")
	require.Positive(t, report.EventsApplied["v1"])
	require.Positive(t, report.EventsApplied["v2"])
	require.NotNil(t, report.Proof)
	require.Positive(t, report.Proof.Events)
	require.Equal(t, 0, int(report.Proof.Lost))

	load.halt()
	builds := load.applied(r)
	require.Equal(t, load.events(), builds["v1"]+builds["v2"], "each event once, by one of them: %v", builds)
	require.Equal(t, report.EventsApplied["v1"], builds["v1"], "the old one has applied none since")
	r.compare()
}

// compare holds the tables against a plain replay of what is in Kafka.
func (r *rig) compare() {
	t := r.t
	db, err := pgx.Connect(t.Context(), r.databaseURL)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.Background()) }()
	cloud := check.Stack{DB: db, Temporal: r.temporal, Kafka: r.kafka, DeadLetterTopic: device.KafkaDeadLetters}
	letters, err := cloud.DeadLetters(t.Context())
	require.NoError(t, err)
	require.Zero(t, letters)
	requireTablesAsInKafka(t, cloud, r.kafkaAddr)
}
