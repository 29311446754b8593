package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	querypb "go.temporal.io/api/query/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/printable"
	"github.com/rollcall-platform/rollcall/internal/printable/printabletest"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

// hostileTemporal is a Temporal frontend whose answers hold text that no terminal
// may get.
type hostileTemporal struct {
	workflowservice.UnimplementedWorkflowServiceServer
	text string
	task atomic.Pointer[workflowpb.PendingWorkflowTaskInfo]
}

func (h *hostileTemporal) GetSystemInfo(context.Context, *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	return &workflowservice.GetSystemInfoResponse{Capabilities: &workflowservice.GetSystemInfoResponse_Capabilities{}}, nil
}

func (h *hostileTemporal) DescribeNamespace(context.Context, *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	return &workflowservice.DescribeNamespaceResponse{}, nil
}

func (h *hostileTemporal) DescribeWorkflowExecution(context.Context, *workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return &workflowservice.DescribeWorkflowExecutionResponse{
		WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{Status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING}, PendingWorkflowTask: h.task.Load(),
		PendingActivities: h.activities(),
	}, nil
}

func (h *hostileTemporal) QueryWorkflow(_ context.Context, r *workflowservice.QueryWorkflowRequest) (*workflowservice.QueryWorkflowResponse, error) {
	if r.Query.GetQueryType() != workflows.QueryProgress {
		return &workflowservice.QueryWorkflowResponse{QueryRejected: &querypb.QueryRejected{}}, h.refuse()
	}
	result, err := converter.GetDefaultDataConverter().ToPayloads(workflows.Progress{LastError: h.text, InFlight: h.text})
	return &workflowservice.QueryWorkflowResponse{QueryResult: result}, err
}

// activities are one that failed with the text, if there is any.
func (h *hostileTemporal) activities() []*workflowpb.PendingActivityInfo {
	if h.text == "" {
		return nil
	}
	return []*workflowpb.PendingActivityInfo{{ActivityType: &commonpb.ActivityType{Name: h.text}, LastFailure: &failurepb.Failure{Message: h.text}}}
}

func (h *hostileTemporal) refuse() error { return status.Error(codes.InvalidArgument, h.text) }

func (h *hostileTemporal) UpdateWorkflowExecution(context.Context, *workflowservice.UpdateWorkflowExecutionRequest) (*workflowservice.UpdateWorkflowExecutionResponse, error) {
	return nil, h.refuse()
}

func (h *hostileTemporal) ExecuteMultiOperation(context.Context, *workflowservice.ExecuteMultiOperationRequest) (*workflowservice.ExecuteMultiOperationResponse, error) {
	return nil, h.refuse()
}

func (h *hostileTemporal) SignalWorkflowExecution(context.Context, *workflowservice.SignalWorkflowExecutionRequest) (*workflowservice.SignalWorkflowExecutionResponse, error) {
	return nil, h.refuse()
}

func (h *hostileTemporal) ListWorkflowExecutions(context.Context, *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	return &workflowservice.ListWorkflowExecutionsResponse{}, nil
}

func (h *hostileTemporal) DescribeWorkerDeployment(context.Context, *workflowservice.DescribeWorkerDeploymentRequest) (*workflowservice.DescribeWorkerDeploymentResponse, error) {
	return nil, h.refuse()
}

// serve returns the frontend's address.
func (h *hostileTemporal) serve(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(s, h)
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)
	return listener.Addr().String()
}

// hostileWorld is a platform in which every text that may come from outside is
// text that no terminal may get.
type hostileWorld struct {
	text                      string
	database, kafka, temporal string
	batch, conflict           string
}

const third = "33333333-3333-4333-8333-333333333333"

func newHostileWorld(t *testing.T, text string) hostileWorld {
	w := hostileWorld{text: text, database: postgrestest.New(t), temporal: (&hostileTemporal{text: text}).serve(t)}
	_, err := store.Migrate(t.Context(), w.database, nil)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), store.Options{URL: w.database})
	require.NoError(t, err)
	defer db.Close()
	quoted, err := json.Marshal(text)
	require.NoError(t, err)
	at := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	evidence := map[string][]string{tv: {device.AttrESN}, server: {device.AttrDeviceSerial}, third: {device.AttrESN, device.AttrDeviceSerial}} // a conflict
	for _, session := range []string{tv, server, third} {
		u := store.Update{RAE: "RAE-1", Session: session, AsOf: 1, Seen: device.SeqSet{{From: 1, To: 1}}, First: at, Last: at, Received: at, Events: 1, Records: 1,
			Positions: []device.Position{{Topic: device.KafkaEvents, Next: 1}}, Write: map[string]device.Attribute{},
			Quarantined: []store.Quarantined{{Topic: device.KafkaEvents, First: 0, Last: 0, Cause: "database", Detail: text, At: at}}}
		for _, name := range append(slices.Clone(device.NameAttributes), device.ModelAttributes...) {
			u.Write[name] = device.Attribute{Value: quoted, Seq: 1, At: at}
		}
		for _, name := range evidence[session] {
			u.Write[name] = device.Attribute{Value: json.RawMessage(`"EVIDENCE-0001"`), Seq: 1, At: at}
		}
		u.Write[device.AttrConnectionStatus] = device.Attribute{Value: json.RawMessage(`"online"`), Seq: 1, At: at}
		u.Write[device.AttrConnectionReason] = device.Attribute{Value: quoted, Seq: 1, At: at}
		u.Write[device.AttrMAC] = device.Attribute{Value: json.RawMessage(`"02:00:00:00:00:0` + session[:1] + `"`), Seq: 1, At: at}
		require.NoError(t, db.Apply(t.Context(), []store.Update{u}))
	}
	conn, err := pgx.Connect(t.Context(), w.database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	for _, sql := range []string{`INSERT INTO rae (serial, first_seen) VALUES ($1, now())`, `UPDATE device_session SET rae = $1, close_reason = $1`,
		`UPDATE identity_conflict SET value_a = $1, value_b = $1`, `UPDATE device_identity SET value = $1 || kind`, `UPDATE network_interface SET hostname = $1`} {
		_, err = conn.Exec(t.Context(), sql, text)
		require.NoError(t, err)
	}
	batches, _, err := db.ListQuarantine(t.Context(), store.QuarantineFilter{})
	require.NoError(t, err)
	require.NotEmpty(t, batches)
	w.batch = batches[0].ID
	conflicts, err := db.Conflicts(t.Context(), "", true)
	require.NoError(t, err)
	require.Len(t, conflicts, 1)
	w.conflict = conflicts[0].ID
	beginning := func(most int) string { return strings.ToValidUTF8(text[:min(len(text), most)], "") }
	_, _, err = db.Reserve(t.Context(), tv, beginning(store.MaxHolder), beginning(store.MaxTestReason), time.Hour)
	require.NoError(t, err)

	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, device.KafkaEvents, device.KafkaDeadLetters, device.KafkaCommands, device.KafkaReplies))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	w.kafka = fake.ListenAddrs()[0]
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka))
	require.NoError(t, err)
	defer client.Close()
	r := &kgo.Record{Topic: device.KafkaEvents, Key: []byte(text), Value: []byte(text), Headers: []kgo.RecordHeader{{Key: text, Value: []byte(text)}}, Timestamp: at}
	require.NoError(t, client.ProduceSync(t.Context(), r, kafka.DeadLetter(device.KafkaDeadLetters, r, text, text)).FirstErr())
	return w
}

// printing says how each command is made to print what came from outside. A
// command that is not here fails the test: say how it is.
var printing = map[string][]string{ // {text}, {batch} and {conflict} are the world's
	"device list":             {"", "--waiting", "--limit=1", "--text={text}"},
	"device get":              {tv, tv + " --waiting", "{text}", "{text}-not"},
	"device history":          {tv, tv + " --at=1s", "{text}", tv + " --at=9999d"},
	"device explain":          {tv, tv + " --waiting", "{text}", tv + " {text}"},
	"device reserve":          {tv + " --for=1h --holder={text}", server + " --for=1h --reason={text}", "{text} --for=1h"},
	"device renew":            {tv + " --for=1h --holder=a", "{text} --for=1h"},
	"device release":          {tv + " --holder={text}", tv + " --holder=a"},
	"device set-state":        {tv + " maintenance --reason={text} --force", server + " quarantined --reason={text} --by={text}", tv + " {text}"},
	"device command":          {tv + " ping {text} --wait=0", tv + " {text}", tv + " ping --wait=0 --reason={text}"},
	"device request-snapshot": {"{text}", tv + " --wait=0"},
	"dlq list":                {"", "--reason={text}"},
	"dlq show":                {"0/0", "{text}"},
	"dlq replay":              {"0/0", "--reason={text} --dry-run", "0/0 --yes"},
	"dlq drop":                {"0/0", "0/0 --yes"},
	"quarantine list":         {"", "--cause={text}", "--session={text}"},
	"quarantine show":         {"{batch}", "{batch} --records", "{text}"},
	"quarantine replay":       {"{batch} --dry-run", "{text}"},
	"quarantine drop":         {"{batch} --dry-run", "{text}"},
	"identity conflicts":      {"", "{text}"},
	"identity show":           {tv, "{text}"},
	"identity merge":          {"{text} --yes", "{text} {text} --yes", "{text}"},
	"identity keep-apart":     {"{text}", "{conflict} --by={text}"},
	"identity split":          {"{text} --session=aaa", tv + " --session={text}", tv + " --evidence={text}", tv + " --evidence=mac={text} --by={text}"},
	"rae list":                {""},
	"rae label":               {"{text} --lab=a", "RAE-1 --lab={text}"},
	"session progress":        {tv, "{text}"},
	"session drain":           {tv},
	"session close":           {tv + " --reason={text} --yes", "{text} --reason=x --yes", tv + " --reason={text}"},
	"deployment status":       {"--deployment=d"},
	"deployment roll":         {"--deployment=d --build-id={text} --no-prove --worker-timeout=1s --drain-timeout=1s", "--deployment=d --build-id=b --no-prove --worker-timeout=1s --drain-timeout=1s"},
	"verify":                  {"--no-edge --timeout=1s", "--session={text}", "--rae={text}"},

	// These print nothing that came from outside but what they are given.
	"attributes": {""}, "version": {""}, "healthcheck": {"--admin-addr={text}"}, "migrate up": {""}, "migrate status": {""},
	"retention": {"--once --yes"}, "bridge": {"--check-config"}, "poller": {"--check-config"}, "worker": {"--check-config"},
}

func TestTextFromOutsideDoesNotReachTheTerminal(t *testing.T) {
	for kind, text := range map[string]string{"all": printabletest.All(), "long": printabletest.Hostile["long"]} {
		t.Run(kind, func(t *testing.T) {
			w := newHostileWorld(t, text)
			a := app()
			k, err := a.Kong()
			require.NoError(t, err)
			outputs := []string{"table"}
			if kind == "all" {
				outputs = append(outputs, "json")
			}
			refused := map[string]bool{} // flags of one name are refused alike
			for _, leaf := range k.Model.Leaves(false) {
				command := strings.TrimPrefix(leaf.Path(), "rollcall ")
				ways, known := printing[command]
				require.True(t, known, "say in the table how rollcall %s prints text from outside", command)
				for _, way := range ways {
					for _, output := range outputs {
						w.requireClean(t, leaf, command, way, output)
					}
				}
				for _, flag := range leaf.Flags { // what it refuses
					if kind == "all" && !flag.IsBool() && !refused[flag.Name] {
						refused[flag.Name] = true
						w.requireClean(t, leaf, command, "--check-config --"+flag.Name+"={text}", "table")
					}
				}
			}
		})
	}
}

// requireClean runs a command and looks at what it prints.
func (w hostileWorld) requireClean(t *testing.T, leaf *kong.Node, command, way, output string) {
	t.Helper()
	args := strings.Fields(command)
	for _, arg := range strings.Fields(way) {
		args = append(args, strings.NewReplacer("{text}", w.text, "{batch}", w.batch, "{conflict}", w.conflict).Replace(arg))
	}
	for _, group := range leaf.AllFlags(false) {
		for _, flag := range group {
			value := map[string]string{"output": output, "database-url": w.database, "temporal-address": w.temporal, "kafka-brokers": w.kafka}[flag.Name]
			if value != "" && !strings.Contains(way, "--"+flag.Name) {
				args = append(args, "--"+flag.Name+"="+value)
			}
		}
	}
	var out, errs bytes.Buffer
	a := app()
	a.Stdout, a.Stderr = &out, &errs
	a.Options = append(a.Options, kong.Bind(&cli.Terminal{In: strings.NewReader("n\n"), Person: true}))
	_ = a.Run(t.Context(), args)
	for _, printed := range []string{out.String(), errs.String()} {
		printabletest.RequireClean(t, printed)
		if t.Failed() {
			require.Fail(t, "in", "%q %q", command, way)
		}
		if output == "table" {
			for line := range strings.SplitSeq(printed, "\n") {
				require.Less(t, len(line), 16<<10, "%s %s", command, way)
			}
		}
	}
}

// Log lines quote what comes from outside, in both formats.
func TestLogsQuoteTextFromOutside(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		for kind, text := range printabletest.Hostile {
			var out bytes.Buffer
			g := &grammar{}
			g.LogFormat = format
			g.Logger(&out).With("with", text).WithGroup(printable.Text(text)).Error(text, text, text, "err", errors.New(text), "group", slog.GroupValue(slog.String(text, text)), "any", []string{text}) //nolint:sloglint // the message is what is tested
			printabletest.RequireClean(t, out.String())
			require.Equal(t, 1, strings.Count(out.String(), "\n"), "%s %s", format, kind)
		}
	}
}

// A file's name comes from outside too.
func TestFileNamesAreClean(t *testing.T) {
	for _, text := range printabletest.Hostile {
		for _, flag := range []string{"--config", "--database-password-file", "--kafka-tls-ca"} {
			_, stdout, stderr := run(t, "poller", flag, filepath.Join(t.TempDir(), text))
			printabletest.RequireClean(t, stdout+stderr)
			require.Equal(t, 1, strings.Count(stderr, "\n"))
		}
	}
}
