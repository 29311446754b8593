package activities_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/activities"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/internal/postgres"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/internal/verify"
	"github.com/rollcall-platform/rollcall/workflows"
)

// patience only bounds a failure.
const patience = 2 * time.Minute

// A replica that took over without the last commits, and a restored backup: a
// session goes on from what there is, the edge's snapshot heals what was lost, and
// then edge, workflow and tables are equal.

func TestFailOverThatLosesCommits(t *testing.T) {
	if len(postgres.Find(t.Context())) == 0 {
		t.Skip("needs an installed PostgreSQL, with pg_basebackup")
	}
	primary, err := postgres.Start(t.Context(), postgres.Options{DataDir: t.TempDir(), NoFetch: true})
	require.NoError(t, err)
	t.Cleanup(primary.Stop)
	_, err = store.Migrate(t.Context(), primary.URL(), nil)
	require.NoError(t, err)
	standby, err := primary.Standby(t.Context(), postgres.Options{DataDir: filepath.Join(t.TempDir(), "standby")})
	require.NoError(t, err)
	t.Cleanup(standby.Stop)
	url := strings.Replace(primary.URL(), fmt.Sprint("127.0.0.1:", primary.Port()), fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", standby.Port(), primary.Port()), 1)
	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	require.NoError(t, db.Ping(t.Context()), "of the hosts the one that takes writes, though the first is a standby")

	s := newStory(t, db)
	s.deliver(1, 2)
	eventually(t, func() bool {
		return value[int](t, standby.URL(), `SELECT count(*) FROM device_session WHERE as_of_seq = 2`) == 1
	}, "the standby has the first commits")
	execute(t, standby.URL(), `ALTER SYSTEM SET primary_conninfo = ''`)
	execute(t, standby.URL(), `SELECT pg_reload_conf()`)
	eventually(t, func() bool { return value[int](t, standby.URL(), `SELECT count(*) FROM pg_stat_wal_receiver`) == 0 }, "the standby is cut off")
	s.deliver(3, 5)

	primary.Stop()
	require.Error(t, db.Ping(t.Context()), "a standby is not ready for a writer")
	execute(t, standby.URL(), `SELECT pg_promote()`)
	eventually(t, func() bool { return db.Ping(t.Context()) == nil }, "the store finds the new primary by itself")
	s.heals(device.SeqSet{{From: 3, To: 5}})
}

func TestRestoredBackup(t *testing.T) {
	installs := postgres.Find(t.Context())
	if len(installs) == 0 {
		t.Skip("needs an installed PostgreSQL, with pg_dump")
	}
	url := postgrestest.New(t)
	_, err := store.Migrate(t.Context(), url, nil)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	dump := filepath.Join(t.TempDir(), "dump")
	run := func(program string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), filepath.Join(installs[0].BinDir, program), args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}

	s := newStory(t, db)
	s.deliver(1, 2)
	run("pg_dump", "--format=custom", "--file="+dump, url)
	s.deliver(3, 5)
	run("pg_restore", "--clean", "--if-exists", "--dbname="+url, dump)
	s.heals(device.SeqSet{{From: 3, To: 5}})
}

// story is one session: an edge's events, the workflow's runs, and a database.
type story struct {
	t      *testing.T
	db     *store.Store
	in     workflows.Input
	events []device.Event // seq n is at n-1
	view   workflows.StateView
}

func newStory(t *testing.T, db *store.Store) *story {
	s := &story{t: t, db: db, in: workflows.Input{RAE: "RAE-1", Session: uuid.NewString()}}
	for seq := int64(1); seq <= 6; seq++ {
		typ := device.Delta
		if seq == 1 {
			typ = device.Opened
		}
		at := devicetest.Epoch.Add(time.Duration(seq) * time.Second)
		e := device.Event{RAE: s.in.RAE, Session: s.in.Session, Type: typ, Seq: seq, Time: at, Attributes: map[string]device.Attribute{}}
		for _, name := range []string{"a", fmt.Sprint("n", seq)} {
			e.Attributes[name] = device.Attribute{Value: fmt.Append(nil, seq), Seq: seq, At: at}
		}
		s.events = append(s.events, e)
	}
	return s
}

// deliver has one run apply the events first to last, and the next one begin.
func (s *story) deliver(first, last int64) {
	s.t.Helper()
	var batches []device.Batch
	for seq := first; seq <= last; seq++ {
		batches = append(batches, fold(seq, s.events[seq-1:seq]))
	}
	s.run(batches...)
}

func (s *story) run(batches ...device.Batch) {
	s.t.Helper()
	a, err := activities.New(activities.Options{
		Applier: activities.Direct{Store: s.db}, Loader: s.db, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	require.NoError(s.t, err)
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	workflows.Register(env)
	a.Register(env)
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: device.WorkflowID(s.in.Session)})
	env.SetTestTimeout(patience)
	s.in.Options.SignalsPerRun = len(batches)
	for i, b := range batches {
		env.RegisterDelayedCallback(func() {
			b.Fold.Attributes = maps.Clone(b.Fold.Attributes)
			env.SignalWorkflow(device.SignalEvents, b)
		}, time.Duration(i)*time.Millisecond)
	}
	env.ExecuteWorkflow(workflows.DeviceSessionName, s.in)
	v, err := env.QueryWorkflow(workflows.QueryState)
	require.NoError(s.t, err)
	s.view = workflows.StateView{}
	require.NoError(s.t, v.Get(&s.view))
	var can *workflow.ContinueAsNewError
	require.ErrorAs(s.t, env.GetWorkflowError(), &can)
	s.in = workflows.Input{}
	require.NoError(s.t, converter.GetDefaultDataConverter().FromPayloads(can.Input, &s.in))
}

// heals has the next event come, and then a snapshot.
func (s *story) heals(lost device.SeqSet) {
	s.t.Helper()
	s.deliver(6, 6)
	require.EqualValues(s.t, 1, s.view.Counters.Mismatches)
	require.Equal(s.t, lost, s.view.Missing)
	require.Equal(s.t, lost, s.view.Lost)
	stored, err := s.db.Load(s.t.Context(), s.in.Session)
	require.NoError(s.t, err)
	require.Equal(s.t, lost, stored.State.Missing(), "the tables do not claim what they have not")
	require.EqualValues(s.t, 3, stored.Counters.Events)

	model := devicetest.Of(s.events)
	e := device.Event{
		RAE: s.in.RAE, Session: s.in.Session, Type: device.Snapshot, Seq: 7, Time: devicetest.Epoch.Add(time.Minute),
		Attributes: maps.Clone(model.Attributes), Hash: device.Hash(model.Attributes),
	}
	s.run(fold(7, []device.Event{e}))
	require.Empty(s.t, s.view.Missing)
	require.Equal(s.t, workflows.SyncLive, s.view.Sync)
	stored, err = s.db.Load(s.t.Context(), s.in.Session)
	require.NoError(s.t, err)
	require.Equal(s.t, text(model.Attributes), text(stored.State.Live()))

	v, err := verify.New(verify.Options{Workflows: s, Database: s.db})
	require.NoError(s.t, err)
	require.NoError(s.t, v.Run(s.t.Context(), []verify.Session{{ID: s.in.Session, RAE: s.in.RAE}}, func(r verify.Result) {
		require.Equal(s.t, verify.Equal, r.Verdict)
	}))
}

// State implements verify.Workflows.
func (s *story) State(context.Context, string) (verify.State, error) {
	return verify.State{
		RAE: s.view.RAE, AsOf: s.view.AsOf, Snapshot: s.view.Snapshot, Closed: s.view.Closed, Missing: s.view.Missing, Attributes: s.view.Attributes,
	}, nil
}

func eventually(t *testing.T, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, patience, 50*time.Millisecond, what)
}

func connected(t *testing.T, url string, f func(*pgx.Conn) error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	require.NoError(t, errors.Join(f(conn), conn.Close(t.Context())))
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	connected(t, url, func(c *pgx.Conn) error { _, err := c.Exec(t.Context(), sql); return err })
}

func value[T any](t *testing.T, url, sql string) (out T) {
	t.Helper()
	connected(t, url, func(c *pgx.Conn) error { return c.QueryRow(t.Context(), sql).Scan(&out) })
	return out
}
