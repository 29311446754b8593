package temporal_test

import (
	"context"
	"database/sql"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	sdk "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	_ "modernc.org/sqlite"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/childtest"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/temporal"
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

const (
	taskQueue = "test"
	patience  = time.Minute // bounds failures only
)

var raeSerial = sdk.NewSearchAttributeKeyKeyword("RaeSerial")

// TestMain lets the test binary be the process that gets killed.
func TestMain(m *testing.M) {
	childtest.Main(m, func(arg string) error {
		dir, addr, _ := strings.Cut(arg, "|")
		_, err := temporal.Start(context.Background(), temporal.Options{DataDir: dir, FrontendAddr: addr})
		return err
	})
}

// counter counts its signals until told to finish, and answers a query.
func counter(ctx workflow.Context) (int, error) {
	n := 0
	if err := workflow.SetQueryHandler(ctx, "count", func() (int, error) { return n, nil }); err != nil {
		return 0, err
	}
	signals, done := workflow.GetSignalChannel(ctx, "add"), workflow.GetSignalChannel(ctx, "done")
	selector := workflow.NewSelector(ctx)
	finished := false
	selector.AddReceive(signals, func(c workflow.ReceiveChannel, _ bool) { c.Receive(ctx, nil); n++ })
	selector.AddReceive(done, func(c workflow.ReceiveChannel, _ bool) { c.Receive(ctx, nil); finished = true })
	for !finished || selector.HasPending() {
		selector.Select(ctx)
	}
	return n, nil
}

func dial(t *testing.T, addr string) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: addr, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func startWorker(t *testing.T, c client.Client) worker.Worker {
	t.Helper()
	w := worker.New(c, taskQueue, worker.Options{})
	w.RegisterWorkflow(counter)
	require.NoError(t, w.Start())
	return w
}

func startCounter(t *testing.T, c client.Client, id, serial string) {
	t.Helper()
	_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: id, TaskQueue: taskQueue,
		TypedSearchAttributes: sdk.NewSearchAttributes(raeSerial.ValueSet(serial)),
	}, counter)
	require.NoError(t, err)
}

func requireListed(t *testing.T, c client.Client, query string, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		response, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		if err != nil || len(response.GetExecutions()) != len(want) {
			return false
		}
		for i, execution := range response.GetExecutions() {
			if execution.GetExecution().GetWorkflowId() != want[i] {
				return false
			}
		}
		return true
	}, patience, 50*time.Millisecond, "query %s", query)
}

func requireCount(t *testing.T, c client.Client, id string, want int) {
	t.Helper()
	require.Eventually(t, func() bool {
		value, err := c.QueryWorkflow(t.Context(), id, "", "count")
		var n int
		return err == nil && value.Get(&n) == nil && n == want
	}, patience, 50*time.Millisecond)
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	return string(body)
}

func closeServer(t *testing.T, s *temporal.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.Close(ctx))
}

func TestWorkflowsAreListedAndSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a dir with 100% odd #name?")
	o := temporal.Options{
		DataDir: dir, FrontendAddr: porttest.Addr(t), UIAddr: porttest.Addr(t), MetricsAddr: porttest.Addr(t),
		SearchAttributes: map[string]enumspb.IndexedValueType{"RaeSerial": enumspb.INDEXED_VALUE_TYPE_KEYWORD},
	}
	began := time.Now()
	server, err := temporal.Start(t.Context(), o)
	require.NoError(t, err)
	t.Logf("cold start %s", time.Since(began))
	require.Equal(t, o.FrontendAddr, server.Addr())

	require.Contains(t, get(t, "http://"+server.UIAddr()+"/"), "<!doctype html>")
	require.Contains(t, get(t, "http://"+server.UIAddr()+"/api/v1/namespaces/default"), `"259200s"`)
	require.Contains(t, get(t, "http://"+o.MetricsAddr+"/metrics"), "service_requests")

	c := dial(t, server.Addr())
	w := startWorker(t, c)
	startCounter(t, c, "one", "rae-1")
	startCounter(t, c, "two", "rae-2")
	for range 3 {
		require.NoError(t, c.SignalWorkflow(t.Context(), "one", "", "add", nil))
	}
	requireCount(t, c, "one", 3)
	requireListed(t, c, "RaeSerial = 'rae-1'", "one")
	w.Stop()
	c.Close()
	began = time.Now()
	closeServer(t, server)
	t.Logf("stop %s", time.Since(began))

	// Other ports, a longer retention and more search attributes than before.
	o.FrontendAddr, o.UIAddr, o.MetricsAddr = porttest.Addr(t), "", ""
	o.SearchAttributes, o.Retention = nil, 96*time.Hour
	began = time.Now()
	server, err = temporal.Start(t.Context(), o)
	require.NoError(t, err)
	t.Logf("warm start %s", time.Since(began))
	defer func() { closeServer(t, server) }()

	c = dial(t, server.Addr())
	requireListed(t, c, "RaeSerial = 'rae-1'", "one")
	requireListed(t, c, "DeviceModel = 'none such'")
	description, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
	require.NoError(t, err)
	require.Equal(t, 96*time.Hour, description.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration())

	w = startWorker(t, c)
	defer w.Stop()
	requireCount(t, c, "one", 3)
	require.NoError(t, c.SignalWorkflow(t.Context(), "one", "", "done", nil))
	var total int
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, c.GetWorkflow(ctx, "one", "").Get(ctx, &total))
	require.Equal(t, 3, total)
	requireListed(t, c, "RaeSerial = 'rae-1' AND ExecutionStatus = 'Completed'", "one")
}

// TestAcknowledgedSignalsSurviveKill: what the server acknowledged is there
// after kill -9, on the same ports, with no clean-up in between.
func TestAcknowledgedSignalsSurviveKill(t *testing.T) {
	dir, addr := t.TempDir(), porttest.Addr(t)
	kill := startChild(t, dir, addr)
	c := dial(t, addr)
	startCounter(t, c, "killed", "rae-9")
	const signals = 50
	for range signals {
		require.NoError(t, c.SignalWorkflow(t.Context(), "killed", "", "add", nil))
	}
	kill()

	defer startChild(t, dir, addr)()
	requireListed(t, c, "RaeSerial = 'rae-9'", "killed")
	w := startWorker(t, c)
	defer w.Stop()
	requireCount(t, c, "killed", signals)
}

// TestWorkerDeployments: a pinned workflow runs on the version that was current
// when it started, as the session worker wants it.
func TestWorkerDeployments(t *testing.T) {
	server, err := temporal.Start(t.Context(), temporal.Options{DataDir: t.TempDir(), FrontendAddr: porttest.Addr(t)})
	require.NoError(t, err)
	defer closeServer(t, server)
	c := dial(t, server.Addr())
	version := worker.WorkerDeploymentVersion{DeploymentName: "session", BuildID: "v1"}
	w := worker.New(c, taskQueue, worker.Options{DeploymentOptions: worker.DeploymentOptions{UseVersioning: true, Version: version}})
	w.RegisterWorkflowWithOptions(counter, workflow.RegisterOptions{Name: "counter", VersioningBehavior: workflow.VersioningBehaviorPinned})
	require.NoError(t, w.Start())
	defer w.Stop()

	deployment := c.WorkerDeploymentClient().GetHandle("session")
	require.EventuallyWithT(t, func(t *assert.CollectT) { // until the worker's first poll has registered it
		_, err := deployment.SetCurrentVersion(context.Background(), client.WorkerDeploymentSetCurrentVersionOptions{BuildID: "v1"})
		require.NoError(t, err)
	}, patience, 100*time.Millisecond)
	_, err = c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "pinned", TaskQueue: taskQueue}, "counter")
	require.NoError(t, err)
	require.NoError(t, c.SignalWorkflow(t.Context(), "pinned", "", "add", nil))
	requireCount(t, c, "pinned", 1)
	description, err := c.DescribeWorkflowExecution(t.Context(), "pinned", "")
	require.NoError(t, err)
	info := description.GetWorkflowExecutionInfo().GetVersioningInfo()
	require.Equal(t, enumspb.VERSIONING_BEHAVIOR_PINNED, info.GetBehavior())
	require.Equal(t, version.BuildID, info.GetDeploymentVersion().GetBuildId())
	require.Equal(t, version.DeploymentName, info.GetDeploymentVersion().GetDeploymentName())
}

// startChild runs a server in a process of its own and returns what kills it.
func startChild(t *testing.T, dir, addr string) (kill func()) {
	t.Helper()
	_, kill = childtest.Start(t, dir+"|"+addr)
	return kill
}

func TestForeignSchemaIsRefused(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, "temporal.db"))
	require.NoError(t, err)
	_, err = db.Exec(`CREATE TABLE devstack_schema (version TEXT NOT NULL); INSERT INTO devstack_schema VALUES ('0.1/0.0')`)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	_, err = temporal.Start(t.Context(), temporal.Options{DataDir: dir, FrontendAddr: porttest.Addr(t)})
	require.ErrorContains(t, err, "holds Temporal's SQLite schema 0.1/0.0")
	require.ErrorContains(t, err, "empty data directory")
}

func TestFileThatIsNoDatabaseIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "temporal.db"), []byte(strings.Repeat("not a database ", 100)), 0o600))
	_, err := temporal.Start(t.Context(), temporal.Options{DataDir: dir, FrontendAddr: porttest.Addr(t)})
	require.ErrorContains(t, err, filepath.Join(dir, "temporal.db"))
}

func TestOptionsAreChecked(t *testing.T) {
	good := temporal.Options{DataDir: t.TempDir(), FrontendAddr: "127.0.0.1:7233"}
	for name, test := range map[string]struct {
		change func(*temporal.Options)
		want   string
	}{
		"no data directory": {func(o *temporal.Options) { o.DataDir = "" }, "DataDir is empty"},
		"no port":           {func(o *temporal.Options) { o.FrontendAddr = "127.0.0.1" }, "FrontendAddr"},
		"port 0":            {func(o *temporal.Options) { o.FrontendAddr = "127.0.0.1:0" }, "between 1 and 65535"},
		"host name":         {func(o *temporal.Options) { o.UIAddr = "localhost:8233" }, "must be an IP address"},
		"metrics":           {func(o *temporal.Options) { o.MetricsAddr = "x" }, "MetricsAddr"},
		"short retention":   {func(o *temporal.Options) { o.Retention = time.Hour }, "minimum of 24h"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			test.change(&o)
			_, err := temporal.Start(t.Context(), o)
			require.ErrorContains(t, err, test.want)
		})
	}
}
