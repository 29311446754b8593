package poller_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

// pollerEnv makes of the test binary a poller that is meant to be killed. Its
// value is a setting.
const pollerEnv = "ROLLCALL_TEST_POLLER_PROCESS"

type setting struct {
	Brokers                []string
	Topic, DLQ, Group, URL string
}

func TestMain(m *testing.M) {
	if s := os.Getenv(pollerEnv); s != "" {
		if err := pollUntilKilled([]byte(s)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func pollUntilKilled(b []byte) error {
	var s setting
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	far := remote(s.URL)
	p, err := poller.New(poller.Options{
		Kafka: kafka.Options{Brokers: s.Brokers}, Topic: s.Topic, DeadLetterTopic: s.DLQ, Group: s.Group, InstanceID: "one",
		SessionTimeout: 5 * time.Second, Temporal: far, Acks: far, Window: 8,
		AckMin: 2 * time.Millisecond, AckMax: 20 * time.Millisecond, CommitInterval: 20 * time.Millisecond,
		KafkaOpts: []kgo.Opt{kgo.HeartbeatInterval(100 * time.Millisecond)}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	return p.Run(context.Background())
}

// remote is the parent's tables, over HTTP.
type remote string

func (r remote) ask(ctx context.Context, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, string(r)+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if b, err = io.ReadAll(res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return serviceerror.NewUnavailable(string(b))
	}
	return json.Unmarshal(b, out)
}

func (r remote) SignalWithStartWorkflow(ctx context.Context, _, _ string, arg any, _ client.StartWorkflowOptions, _ any, _ ...any) (client.WorkflowRun, error) {
	var taken bool
	return nil, r.ask(ctx, "/signal", arg, &taken)
}

func (r remote) Positions(ctx context.Context, sessions []string) (out map[string][]device.Position, err error) {
	return out, r.ask(ctx, "/positions", sessions, &out)
}

// serve puts s behind HTTP, for a poller in a process of its own.
func serve(t *testing.T, s *tables) string {
	l := &line{tables: s}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /signal", func(w http.ResponseWriter, r *http.Request) {
		var b device.Batch
		err := json.NewDecoder(r.Body).Decode(&b)
		if err == nil {
			err = s.accept(b)
		}
		answer(w, true, err)
	})
	mux.HandleFunc("POST /positions", func(w http.ResponseWriter, r *http.Request) {
		var sessions []string
		err := json.NewDecoder(r.Body).Decode(&sessions)
		out, e := l.Positions(r.Context(), sessions)
		answer(w, out, errors.Join(err, e))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(v) // the client was killed
}

// A real process, killed at random points while it works: nothing is lost, each
// session's order is kept, and every row is what an independent model says.
func TestKilledProcessLosesNothing(t *testing.T) {
	t.Parallel()
	const rounds = 22
	c, s := newFake(t, 4), newTables()
	s.delay.Store(int64(2 * time.Millisecond))
	h := newHistory(t, c.topic, 60, 100)
	b, err := json.Marshal(setting{c.brokers, c.topic, c.dlq, c.group, serve(t, s)})
	require.NoError(t, err)
	begin := func() (kill func()) {
		p := exec.CommandContext(t.Context(), os.Args[0])
		p.Env = append(os.Environ(), pollerEnv+"="+string(b))
		p.Stderr = os.Stderr
		require.NoError(t, p.Start())
		return func() { _ = p.Process.Kill(); _ = p.Wait() }
	}
	var worked atomic.Int64
	share := len(h.records)/rounds + 1
	for n := range rounds {
		from, to := min(n*share, len(h.records)), min((n+1)*share, len(h.records))
		c.produce(t, h.records[from:to]...)
		before, _, _ := s.counts()
		reads := s.reads.Load()
		kill := begin()
		// From the very start of the process to the middle of its work.
		if n%4 != 0 {
			eventually(t, func() bool { now, _, _ := s.counts(); return now > before || s.reads.Load() > reads }, "round %d: it works", n)
			worked.Add(1)
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // a random point, and nothing that is waited for
		kill()
	}
	require.GreaterOrEqual(t, worked.Load(), int64(rounds/2))
	kill := begin()
	defer kill()
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
}
