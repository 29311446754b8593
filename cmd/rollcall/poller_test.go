package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

// pollerProcess makes of the test binary the poller command, with a sink of its
// own in place of Temporal and the database: "applies" or "stands still".
const pollerProcess = "ROLLCALL_TEST_POLLER_COMMAND"

type sinkCmd struct {
	Poller pollerCmd `embed:""`
}

func (c *sinkCmd) Run(ctx context.Context, env cli.Env) error {
	return runService(ctx, env, "poller", c.Poller.Service, func(ctx context.Context, s *service) error {
		o, err := c.Poller.options()
		if err != nil {
			return err
		}
		k := &sink{still: os.Getenv(pollerProcess) == "stands still", positions: map[string][]device.Position{}}
		o.Temporal, o.Acks, o.Logger, o.Registerer = k, k, s.logger, s.registry
		return runPoller(ctx, s, env.Stdout, o)
	})
}

func pollAsAProcess() {
	var g struct {
		cli.Flags
		Poller sinkCmd `cmd:""`
	}
	a := app()
	a.Grammar = &g
	cli.Main(a)
}

type sink struct {
	still     bool
	mu        sync.Mutex
	positions map[string][]device.Position
}

func (k *sink) SignalWithStartWorkflow(_ context.Context, _, _ string, arg any, _ client.StartWorkflowOptions, _ any, _ ...any) (client.WorkflowRun, error) {
	b, ok := arg.(device.Batch)
	if !ok {
		return nil, errors.New("not a batch")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.still {
		k.positions[b.Fold.Session] = device.Advance(k.positions[b.Fold.Session], b.Position())
	}
	return nil, nil
}

func (k *sink) Positions(_ context.Context, sessions []string) (map[string][]device.Position, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string][]device.Position{}
	for _, id := range sessions {
		out[id] = append([]device.Position(nil), k.positions[id]...)
	}
	return out, nil
}

// process is a poller command that runs.
type process struct {
	*exec.Cmd
	stdout bytes.Buffer
	stderr output
	url    string
	done   chan struct{}
}

// startPoller returns when the command has fetched all records of the fake Kafka.
func startPoller(t *testing.T, sink string, args ...string) (p *process, records int) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, device.KafkaEvents), kfake.SeedTopics(1, device.KafkaDeadLetters),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...))
	require.NoError(t, err)
	defer cl.Close()
	id := uuid.NewString()
	key, err := device.SessionTopic("rae", id, device.KindEvents)
	require.NoError(t, err)
	for _, e := range devicetest.History("rae", id, 40).Example(7) {
		value, err := e.Encode()
		require.NoError(t, err)
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: device.KafkaEvents, Key: []byte(key), Value: value}).FirstErr())
		records++
	}
	p = &process{done: make(chan struct{})}
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(adminToken+"\n"), 0o600))
	args = append([]string{"poller", "--admin-token-file", file, "--kafka-brokers", fake.ListenAddrs()[0], "--database-url=postgres://nobody@localhost/none", "--admin-addr=127.0.0.1:0"}, args...)
	p.Cmd = exec.CommandContext(t.Context(), os.Args[0], args...)
	p.Env = append(os.Environ(), pollerProcess+"="+sink)
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	require.NoError(t, p.Start())
	go func() { _ = p.Wait(); close(p.done) }()
	t.Cleanup(func() { _ = p.Process.Kill(); <-p.done })
	wants := func(ok func() bool) {
		t.Helper()
		require.Eventually(t, ok, patience, 20*time.Millisecond, "%s", lazily(p.stderr.String))
	}
	wants(func() bool {
		_, rest, ok := strings.Cut(p.stderr.String(), "url=http://")
		if ok {
			p.url = "http://" + strings.Fields(rest)[0]
		}
		return ok
	})
	metric := "rollcall_poller_records_total " + strconv.Itoa(records) + "\n"
	wants(func() bool { return strings.Contains(get(t, p.url+"/metrics"), metric) })
	require.Equal(t, "ok\n", get(t, p.url+"/healthz"))
	if sink == "applies" {
		adm := kadm.NewClient(cl)
		wants(func() bool {
			lag, err := adm.Lag(t.Context(), "rollcall-poller")
			return err == nil && lag["rollcall-poller"].Lag.Total() == 0
		})
	}
	return p, records
}

type lazily func() string

func (f lazily) String() string { return f() }

// adminToken opens the admin listener of the tests' services.
const adminToken = "the-admin-token-of-these-tests"

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+adminToken)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	require.NoError(t, err)
	return b.String()
}

// ended waits for the end and returns the exit code and the report.
func (p *process) ended(t *testing.T) (code int, r poller.DrainReport) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		require.Fail(t, "the poller does not end", p.stderr.String())
	}
	if p.stdout.Len() > 0 {
		require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &r), p.stdout.String())
	}
	return p.ProcessState.ExitCode(), r
}

func TestPollerDrainsOnSIGTERM(t *testing.T) {
	t.Parallel()
	p, n := startPoller(t, "applies")
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	code, r := p.ended(t)
	require.Equal(t, cli.ExitOK, code, p.stderr.String())
	require.True(t, r.Complete)
	require.EqualValues(t, n, r.Fetched)
	require.EqualValues(t, n, r.Applied+r.Duplicates)
	require.Contains(t, p.stdout.String(), `"left":[]`)
}

func TestPollerDrainsOnRequest(t *testing.T) {
	t.Parallel()
	p, n := startPoller(t, "stands still", "--drain-timeout=200ms")
	drain := func(header, value string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/drain?token="+adminToken, nil)
		require.NoError(t, err)
		r.Header.Set(header, value)
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	require.Equal(t, http.StatusUnauthorized, drain("Authorization", "Bearer another-token-of-this-test"))
	require.Equal(t, http.StatusForbidden, drain("Origin", "http://127.0.0.1"))
	require.NotContains(t, p.stderr.String(), "drain", "it goes on")
	require.Equal(t, http.StatusAccepted, drain("Authorization", "Bearer "+adminToken))
	code, r := p.ended(t)
	require.Equal(t, exitIncomplete, code, p.stderr.String())
	require.False(t, r.Complete)
	require.Len(t, r.Left, 1, "one session, one partition")
	require.Equal(t, n, r.Left[0].Records)
	require.EqualValues(t, n-1, r.Left[0].To)
	require.Contains(t, p.stderr.String(), "not everything that was fetched was applied")
}

func TestPollerEndsAtOnceOnASecondSignal(t *testing.T) {
	t.Parallel()
	p, _ := startPoller(t, "stands still", "--drain-timeout=1h")
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	// The first is heard when signals have their default effect again.
	require.Eventually(t, func() bool {
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	}, patience, 200*time.Millisecond)
	code, _ := p.ended(t)
	require.Equal(t, -1, code, "ended by the signal")
	require.Zero(t, p.stdout.Len(), "no report")
}
