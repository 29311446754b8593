package loop_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/temporal"
	"github.com/rollcall-platform/rollcall/internal/cputest"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/groupcommit"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/postgres"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/session"
	"github.com/rollcall-platform/rollcall/workflows"
)

// BenchmarkLoop keeps 64 sessions in flight: signal, workflow, local activity,
// ack, and the next signal. "floor" does nothing with the signal; "sessions" is
// DeviceSession and ApplyBatch on PostgreSQL with group commit, 20 attributes
// an event, acked by the ingest positions. Server, worker and client are this
// process; cpu-ms tells them apart from the noise of the machine:
//
//	go test ./internal/loop -run xxx -bench Loop -benchtime 10000x -cpuprofile cpu.out
func BenchmarkLoop(b *testing.B) {
	for _, fresh := range []bool{false, true} {
		name := map[bool]string{false: "known", true: "new"}[fresh]
		b.Run(name+"/floor", func(b *testing.B) { run(b, newFloor, fresh) })
		b.Run(name+"/sessions", func(b *testing.B) { run(b, newSessions, fresh) })
	}
}

const (
	inFlight = 64
	sessions = 256
)

// sink takes a signal of a session and reports when it is applied.
type sink interface {
	send(ctx context.Context, id string, seq int64) error
	acked(ctx context.Context, id string, seq int64) error
}

func run(b *testing.B, open func(*testing.B) sink, fresh bool) {
	s := open(b)
	ids := make([]string, sessions)
	for i := range ids {
		ids[i] = uuid.NewString()
	}
	if !fresh {
		drive(b, s, sessions, func(i int) (string, int64) { return ids[i], 1 })
	}
	b.ResetTimer()
	self, children := cputest.Self(b), cputest.Children()
	drive(b, s, b.N, func(i int) (string, int64) {
		if fresh {
			return uuid.NewString(), 1
		}
		return ids[i%sessions], int64(i/sessions) + 2
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sessions/s")
	b.ReportMetric(float64((cputest.Self(b)-self).Microseconds())/1000/float64(b.N), "cpu-ms")
	b.ReportMetric(float64((cputest.Children()-children).Microseconds())/1000/float64(b.N), "database-cpu-ms")
}

// drive makes n cycles, of which no two in flight are of one session.
func drive(b *testing.B, s sink, n int, of func(int) (string, int64)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || b.Failed() {
					return
				}
				id, seq := of(i)
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				err := s.send(ctx, id, seq)
				for tries := 0; err != nil && tries < 50; tries++ { // busy continuing as new
					time.Sleep(10 * time.Millisecond)
					err = s.send(ctx, id, seq)
				}
				if err == nil {
					err = s.acked(ctx, id, seq)
				}
				cancel()
				if err != nil {
					b.Errorf("cycle %d, session %s, seq %d: %v", i, id, seq, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// dial starts a Temporal Server and returns a client as cmd/rollcall makes it.
func dial(b *testing.B) client.Client {
	b.Helper()
	server, err := temporal.Start(b.Context(), temporal.Options{DataDir: b.TempDir(), FrontendAddr: porttest.Addr(b), Logger: quiet()})
	require.NoError(b, err)
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = server.Close(ctx)
	})
	c, err := client.Dial(client.Options{
		HostPort: server.Addr(), Logger: sdklog.NewStructuredLogger(quiet()),
		ConnectionOptions: client.ConnectionOptions{GrpcCompression: &client.GrpcCompressionNone{}},
	})
	require.NoError(b, err)
	b.Cleanup(c.Close)
	return c
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// floor acknowledges in the activity.
type floor struct {
	client client.Client
	acks   sync.Map // session to chan struct{}
}

func newFloor(b *testing.B) sink {
	f := &floor{client: dial(b)}
	w := worker.New(f.client, "floor", worker.Options{
		MaxConcurrentWorkflowTaskPollers: 16, MaxConcurrentWorkflowTaskExecutionSize: 256, MaxConcurrentLocalActivityExecutionSize: 256,
	})
	w.RegisterWorkflowWithOptions(f.cycle, workflow.RegisterOptions{Name: "cycle"})
	w.RegisterActivityWithOptions(f.done, activity.RegisterOptions{Name: "done"})
	require.NoError(b, w.Start())
	b.Cleanup(w.Stop)
	return f
}

func (f *floor) cycle(ctx workflow.Context) error {
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{ScheduleToCloseTimeout: 5 * time.Second})
	inbox := workflow.GetSignalChannel(ctx, "go")
	for n, payload := 0, ""; ; n++ {
		if n < 100 {
			inbox.Receive(ctx, &payload)
		} else if !inbox.ReceiveAsync(&payload) {
			return workflow.NewContinueAsNewError(ctx, "cycle")
		}
		if err := workflow.ExecuteLocalActivity(ctx, f.done, workflow.GetInfo(ctx).WorkflowExecution.ID).Get(ctx, nil); err != nil {
			return err
		}
	}
}

func (f *floor) done(_ context.Context, id string) error {
	ack, _ := f.acks.Load(id)
	ack.(chan struct{}) <- struct{}{}
	return nil
}

var filler = string(make([]byte, 1000))

func (f *floor) send(ctx context.Context, id string, _ int64) error {
	f.acks.LoadOrStore(id, make(chan struct{}, 1))
	_, err := f.client.SignalWithStartWorkflow(ctx, id, "go", filler, client.StartWorkflowOptions{ID: id, TaskQueue: "floor"}, "cycle")
	return err
}

func (f *floor) acked(ctx context.Context, id string, _ int64) error {
	ack, _ := f.acks.Load(id)
	select {
	case <-ack.(chan struct{}):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// platform is the session worker, and acknowledges by the ingest positions.
type platform struct {
	client client.Client
	db     *store.Store

	mu    sync.Mutex
	waits map[string]wait
}

type wait struct {
	next int64
	done chan struct{}
}

func newSessions(b *testing.B) sink {
	server, err := postgres.Start(b.Context(), postgres.Options{DataDir: b.TempDir(), NoFetch: true})
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(server.Stop)
	_, err = store.Migrate(b.Context(), server.URL(), nil)
	require.NoError(b, err)
	db, err := store.Open(b.Context(), store.Options{URL: server.URL()})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	commits, err := groupcommit.New(groupcommit.Options{Store: db})
	require.NoError(b, err)
	b.Cleanup(func() { _ = commits.Close(context.Background()) })

	p := &platform{client: dial(b), db: db, waits: map[string]wait{}}
	w, err := session.New(session.Options{Client: p.client, Store: db, Applier: commits, Logger: quiet()})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	wg.Go(func() { p.poll(ctx) })
	b.Cleanup(func() { cancel(); wg.Wait() })
	require.Eventually(b, func() bool { return w.Ready() == nil }, 30*time.Second, 10*time.Millisecond)
	return p
}

func (p *platform) send(ctx context.Context, id string, seq int64) error {
	_, err := p.client.SignalWithStartWorkflow(ctx, device.WorkflowID(id), device.SignalEvents, batch(id, seq),
		workflows.StartOptions("", rae, id), workflows.DeviceSessionName, workflows.Input{RAE: rae, Session: id})
	return err
}

const rae = "RAE-LOOP-1"

// batch is one event that changes 20 attributes.
func batch(id string, seq int64) device.Batch {
	at := time.Date(2026, 3, 1, 0, 0, int(seq), 0, time.UTC)
	attributes := make(map[string]device.Attribute)
	for i := range 20 {
		attributes[fmt.Sprintf("loop.attribute_%d", i)] = device.Attribute{Value: fmt.Appendf(nil, `"value %d"`, seq), Seq: seq, At: at}
	}
	return device.Batch{
		Version: device.BatchVersion, Topic: device.KafkaEvents, First: seq, Last: seq, Records: 1, Received: at,
		Fold: device.Fold{RAE: rae, Session: id, Seqs: device.SeqSet{{From: seq, To: seq}}, First: at, Last: at, Attributes: attributes},
	}
}

func (p *platform) acked(ctx context.Context, id string, seq int64) error {
	done := make(chan struct{})
	p.mu.Lock()
	p.waits[id] = wait{seq + 1, done}
	p.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poll reads positions of what is in flight.
func (p *platform) poll(ctx context.Context) {
	for tick := time.NewTicker(25 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		p.mu.Lock()
		var ids []string
		for id := range p.waits {
			ids = append(ids, id)
		}
		p.mu.Unlock()
		positions, err := p.db.Positions(ctx, ids)
		if err != nil {
			continue
		}
		p.mu.Lock()
		for id, have := range positions {
			if w := p.waits[id]; device.Reached(have, device.Position{Topic: device.KafkaEvents, Next: w.next}) {
				delete(p.waits, id)
				close(w.done)
			}
		}
		p.mu.Unlock()
	}
}
