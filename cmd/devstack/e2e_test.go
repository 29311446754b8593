package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/check"
	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/postgres"
)

const lan = "../../testdata/lan/lan.pcap"

// patience bounds failures only: this machine runs all engines, and other tests.
const patience = 3 * time.Minute

func testFlags(t *testing.T, dir string) stackFlags {
	return stackFlags{
		DataDir: dir, TemporalPort: porttest.Port(t), UIPort: porttest.Port(t), KafkaPort: porttest.Port(t),
		MQTTPort: porttest.Port(t), AdminPort: porttest.Port(t),
	}
}

// testLog is a file for the log, which shows only if the test fails.
func testLog(t *testing.T) *os.File {
	log, err := os.Create(filepath.Join(t.TempDir(), "test.log"))
	require.NoError(t, err)
	t.Cleanup(func() {
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s", b)
		}
	})
	return log
}

// testStack is a stack that ends with the test.
func testStack(t *testing.T, flags stackFlags, log io.Writer) *stack {
	s, err := startStack(t.Context(), flags, slog.New(slog.NewTextHandler(log, nil)), func(string) {})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.stop()) })
	return s
}

// replayed waits for the end of the replay.
func replayed(t *testing.T, e *edge.Edge) {
	t.Helper()
	select {
	case <-e.Ended():
	case <-time.After(patience):
		require.Fail(t, "the replay does not end")
	}
}

func build(t *testing.T, dir, pkg string) string {
	out := filepath.Join(t.TempDir(), "binary")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, pkg)
	cmd.Dir = dir
	b, err := cmd.CombinedOutput()
	require.NoError(t, err, string(b))
	return out
}

// process is a command that is killed and started again.
type process struct {
	t    *testing.T
	args []string
	env  []string
	log  io.Writer
	cmd  *exec.Cmd
}

func (p *process) start() {
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(p.t, p.cmd.Start())
}

// kill is SIGKILL: no handler runs, nothing is flushed.
func (p *process) kill() {
	require.NoError(p.t, p.cmd.Process.Kill())
	_ = p.cmd.Wait()
}

// The poller and the worker, as the processes they are in production, are
// killed again and again while a LAN is replayed. In the end the tables, the
// workflows, the edge's records and a naive reading of Kafka in seq order are
// all the same.
func TestKillingPollerAndWorkerLosesNothing(t *testing.T) {
	rollcall := build(t, "../..", "./cmd/rollcall")
	log := testLog(t)

	flags := testFlags(t, t.TempDir())
	flags.bare = true
	s := testStack(t, flags, log)

	env := []string{
		"ROLLCALL_DATABASE_URL=" + s.databaseURL, "ROLLCALL_KAFKA_BROKERS=" + s.kafkaAddr,
		"TEMPORAL_ADDRESS=" + loopback(flags.TemporalPort), "ROLLCALL_ADMIN_ADDR=127.0.0.1:0",
	}
	processes := []*process{
		{t: t, log: log, env: env, args: []string{rollcall, "poller", "--instance-id", "poller-1"}},
		{t: t, log: log, env: env, args: []string{rollcall, "worker"}},
	}
	for _, p := range processes {
		p.start()
		t.Cleanup(p.kill)
	}

	speed := 10.0 // nine seconds
	demo := &demoCmd{stackFlags: flags, Capture: []string{lan}, Speed: &speed, Once: true, SnapshotInterval: 2 * time.Second}
	raes, err := s.startRAEs(demo)
	require.NoError(t, err)
	random, kills := rand.New(rand.NewPCG(1, 2)), 0 //nolint:gosec // not a secret
	for ; kills < 5 || !raes[0].ended(); kills++ {
		<-time.After(time.Duration(300+random.IntN(900)) * time.Millisecond)
		p := processes[random.IntN(len(processes))]
		p.kill()
		p.start()
	}
	// No more snapshots: what is compared must stand still.
	require.NoError(t, raes[0].stop(t.Context()))

	w := newWatch(s, raes, time.Now())
	require.NoError(t, w.awaitApplied(t.Context(), patience))
	db, err := pgx.Connect(t.Context(), s.databaseURL)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.Background()) }()
	cloud := check.Stack{DB: db, Temporal: s.temporal, Kafka: s.kafka, DeadLetterTopic: device.KafkaDeadLetters}
	report, err := check.Run(t.Context(), []string{raes[0].serial}, raes[0].records(), cloud)
	require.NoError(t, err)
	require.NoError(t, report.CompareTruth(lan, raes[0].serial))
	require.True(t, report.OK, report.String())
	require.Zero(t, report.DeadLetters)
	t.Logf("%d kills; %s", kills, report)

	requireTablesAsInKafka(t, cloud, s.kafkaAddr)
}

// requireTablesAsInKafka compares the tables with what a model makes of the
// records in Kafka.
func requireTablesAsInKafka(t *testing.T, cloud check.Stack, kafkaAddr string) {
	t.Helper()
	for session, m := range models(t, kafkaAddr) {
		tables, ok, err := cloud.Tables(t.Context(), session)
		require.NoError(t, err)
		require.True(t, ok, session)
		require.Equal(t, m.Seq, tables.Seq)
		require.Len(t, tables.Attributes, len(m.Attributes))
		for name, a := range m.Attributes {
			require.JSONEq(t, string(a.Value), string(tables.Attributes[name].Value), "%s %s", session, name)
			require.Equal(t, a.Seq, tables.Attributes[name].Seq, "%s %s", session, name)
		}
	}
}

// records are what a topic holds at this moment.
func records(t *testing.T, kafkaAddr, topic string) (out []*kgo.Record) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(kafkaAddr), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	require.NoError(t, err)
	require.NoError(t, ends.Error())
	most := 0 // the topics are new: offsets begin at 0
	ends.Each(func(o kadm.ListedOffset) { most += int(o.Offset) })
	for len(out) < most {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err0())
		out = append(out, fetches.Records()...)
	}
	return out
}

// models reads the whole topic and replays each session's events one by one in
// seq order, dropping repetitions: what the tables must come to.
func models(t *testing.T, kafkaAddr string) map[string]*devicetest.Model {
	events, repeated := map[string]map[int64]device.Event{}, 0
	for _, r := range records(t, kafkaAddr, device.KafkaEvents) {
		e, err := device.DecodeRecord(string(r.Key), r.Value)
		require.NoError(t, err)
		if events[e.Session] == nil {
			events[e.Session] = map[int64]device.Event{}
		}
		if _, again := events[e.Session][e.Seq]; again {
			repeated++
		}
		events[e.Session][e.Seq] = e
	}
	require.NotEmpty(t, events)
	out := map[string]*devicetest.Model{}
	for session, bySeq := range events {
		m := &devicetest.Model{}
		for seq := int64(1); seq <= int64(len(bySeq)); seq++ {
			e, ok := bySeq[seq]
			require.True(t, ok, "session %s: seq %d of %d is not in Kafka", session, seq, len(bySeq))
			m.Take(e)
		}
		out[session] = m
	}
	t.Logf("%d sessions in Kafka, %d repeated records", len(out), repeated)
	return out
}

// The demo is killed in the middle and started again: it ends with the tables
// that a demo has which nobody killed.
func TestKilledDemoEndsWithTheSameTables(t *testing.T) {
	devstack := build(t, ".", ".")
	capture, err := filepath.Abs(lan)
	require.NoError(t, err)
	demo := func(dir string, more ...string) *exec.Cmd {
		f := testFlags(t, dir)
		cmd := exec.Command(devstack, append([]string{
			"demo", "--speed", "30", "--capture", capture, "--data-dir", dir,
			"--temporal-port", fmt.Sprint(f.TemporalPort), "--ui-port", fmt.Sprint(f.UIPort), "--kafka-port", fmt.Sprint(f.KafkaPort),
			"--mqtt-port", fmt.Sprint(f.MQTTPort), "--admin-port", fmt.Sprint(f.AdminPort),
		}, more...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	whole, killed := t.TempDir(), t.TempDir()
	out, err := demo(whole, "--once").CombinedOutput()
	require.NoError(t, err, string(out))

	cut := demo(killed) // without --once it runs until it is killed, however late that is
	require.NoError(t, cut.Start())
	var rae []string
	require.Eventually(t, func() bool { // the replay has begun
		rae, _ = filepath.Glob(filepath.Join(killed, "rae", "*", edge.DatabaseFile))
		return len(rae) == 1
	}, patience, 20*time.Millisecond)
	<-time.After(1200 * time.Millisecond) // of three seconds
	require.NoError(t, cut.Process.Kill())
	_ = cut.Wait()
	if c, err := registry.Inspect(rae[0], 0); err == nil {
		t.Logf("killed at frame %d; that was the end: %t", c.Position.Frame, c.Position.Ended)
	}
	out, err = demo(killed, "--once").CombinedOutput()
	require.NoError(t, err, string(out))

	require.Equal(t, tables(t, whole), tables(t, killed))
}

// tables reads the live attributes from a stopped stack's database, by MAC: the
// sessions' identifiers are random.
func tables(t *testing.T, dir string) map[string]map[string]string {
	server, err := postgres.Start(t.Context(), postgres.Options{DataDir: filepath.Join(dir, "postgres")})
	require.NoError(t, err)
	defer server.Stop()
	db, err := pgx.Connect(t.Context(), server.URL())
	require.NoError(t, err)
	defer func() { _ = db.Close(context.Background()) }()
	rows, err := db.Query(t.Context(), `SELECT s.mac, a.name, a.value::text, a.seq, s.as_of_seq
		FROM device_session s JOIN device_attribute a ON a.session_id = s.session_id WHERE a.value IS NOT NULL`)
	require.NoError(t, err)
	out := map[string]map[string]string{}
	var mac, name, value string
	var seq, asOf int64
	_, err = pgx.ForEachRow(rows, []any{&mac, &name, &value, &seq, &asOf}, func() error {
		if out[mac] == nil {
			out[mac] = map[string]string{}
		}
		canonical, err := device.Canonical(json.RawMessage(value))
		out[mac][name] = fmt.Sprintf("%s at seq %d of %d", canonical, seq, asOf)
		return err
	})
	require.NoError(t, err)
	require.NotEmpty(t, out)
	return out
}
