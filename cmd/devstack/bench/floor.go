package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// The floor is a closed loop of signal → workflow task → no-op local activity:
// what this machine's Temporal can do when everything else costs nothing.
// Worker and client are in this process, and the activity's end is the ack.

const (
	floorQueue  = "floor"
	floorSignal = "go"
	// floorRunSignals is after how many signals a run continues as new: short
	// runs are the fastest.
	floorRunSignals = 100
	floorPayload    = 1000 // bytes, as a small batch has
)

type floorLoop struct {
	client client.Client
	acks   sync.Map // workflow ID to chan struct{}
	cycles atomic.Int64
}

// done is the local activity.
func (l *floorLoop) done(_ context.Context, id string) error {
	if ack, ok := l.acks.Load(id); ok {
		select {
		case ack.(chan struct{}) <- struct{}{}: //nolint:forcetypeassert // nothing else is stored
		default:
		}
	}
	return nil
}

// cycle is the workflow.
func (l *floorLoop) cycle(ctx workflow.Context) error {
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{ScheduleToCloseTimeout: 5 * time.Second})
	inbox := workflow.GetSignalChannel(ctx, floorSignal)
	for n, payload := 0, ""; ; n++ {
		if n < floorRunSignals {
			inbox.Receive(ctx, &payload)
		} else if !inbox.ReceiveAsync(&payload) {
			return workflow.NewContinueAsNewError(ctx, "cycle")
		}
		if err := workflow.ExecuteLocalActivity(ctx, l.done, workflow.GetInfo(ctx).WorkflowExecution.ID).Get(ctx, nil); err != nil {
			return err
		}
	}
}

func (l *floorLoop) register(w worker.Worker) {
	w.RegisterWorkflowWithOptions(l.cycle, workflow.RegisterOptions{Name: "cycle"})
	w.RegisterActivityWithOptions(l.done, activity.RegisterOptions{Name: "done"})
}

// once signals a workflow and waits for its local activity.
func (l *floorLoop) once(ctx context.Context, id string, start bool) error {
	payload := strings.Repeat("x", floorPayload)
	ack, _ := l.acks.LoadOrStore(id, make(chan struct{}, 1))
	var err error
	if start {
		_, err = l.client.SignalWithStartWorkflow(ctx, id, floorSignal, payload, client.StartWorkflowOptions{ID: id, TaskQueue: floorQueue}, "cycle")
	} else {
		err = l.client.SignalWorkflow(ctx, id, "", floorSignal, payload)
	}
	if err != nil {
		return err
	}
	select {
	case <-ack.(chan struct{}): //nolint:forcetypeassert // nothing else is stored
		l.cycles.Add(1)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drive keeps inFlight cycles going: next gives each of them its workflows.
func (l *floorLoop) drive(ctx context.Context, inFlight int, start bool, next func(i, n int) string) error {
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	for i := range inFlight {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := next(i, n)
				if id == "" {
					return
				}
				if err := l.once(ctx, id, start); err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(100 * time.Millisecond): // the call's deadline is the context's, and may come first
						failed.Store(&err)
					}
					return
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("floor: %w", *err)
	}
	return nil
}

// floorResult is one measurement.
type floorResult struct {
	rate           float64       // cycles a second
	temporal, rest time.Duration // processor time of a cycle: the server, and client with worker
}

// floorWorld is a Temporal with the loop's worker.
type floorWorld struct {
	*floorLoop
	server *process
	worker worker.Worker
	dir    string
}

func (b *bench) newFloor(ctx context.Context) (*floorWorld, error) {
	f := &floorWorld{floorLoop: &floorLoop{}, dir: filepath.Join(b.dir, "floor")}
	server, addr, err := startTemporal(ctx, f.dir)
	if err != nil {
		return nil, err
	}
	f.server = server
	if f.client, err = dialTemporal(ctx, addr); err != nil {
		server.kill()
		return nil, err
	}
	f.worker = worker.New(f.client, floorQueue, worker.Options{ // as workers/session has it
		MaxConcurrentWorkflowTaskPollers: 16, MaxConcurrentWorkflowTaskExecutionSize: 256, MaxConcurrentLocalActivityExecutionSize: 256,
		WorkerStopTimeout: time.Second, LocalActivityWorkerOnly: true,
	})
	f.register(f.worker)
	if err := f.worker.Start(); err != nil {
		f.client.Close()
		server.kill()
		return nil, err
	}
	return f, nil
}

func (f *floorWorld) close() {
	f.worker.Stop()
	f.client.Close()
	f.server.kill()
	_ = os.RemoveAll(f.dir)
}

// measure drives for so long and counts after a quarter of it.
func (f *floorWorld) measure(ctx context.Context, long time.Duration, inFlight int, start bool, next func(i, n int) string) (floorResult, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.drive(ctx, inFlight, start, next) }()
	select {
	case <-time.After(long / 4):
	case err := <-ended:
		return floorResult{}, errors.Join(errors.New("the floor's loop ended early"), err)
	}
	begun, from, temporal, own := time.Now(), f.cycles.Load(), f.server.cpu(), cpuOf("self")
	if err := <-ended; err != nil {
		return floorResult{}, err
	}
	n := float64(f.cycles.Load() - from)
	return floorResult{
		rate:     n / time.Since(begun).Seconds(),
		temporal: time.Duration(float64(f.server.cpu()-temporal) / n),
		rest:     time.Duration(float64(cpuOf("self")-own) / n),
	}, nil
}

// known starts n workflows and returns a next that goes around them: no two
// cycles in flight are of the same one.
func (f *floorWorld) known(ctx context.Context, n, inFlight int) (func(i, n int) string, error) {
	prefix := uuid.NewString()
	id := func(i int) string { return fmt.Sprintf("%s-%d", prefix, i) }
	err := f.drive(ctx, 48, true, func(i, turn int) string {
		if s := turn*48 + i; s < n {
			return id(s)
		}
		return ""
	})
	return func(i, turn int) string {
		mine := (n - i + inFlight - 1) / inFlight // those that are i modulo inFlight
		return id(turn%mine*inFlight + i)
	}, err
}

func (b *bench) floorOf(ctx context.Context, sessions, inFlight int, long time.Duration) (floorResult, error) {
	f, err := b.newFloor(ctx)
	if err != nil {
		return floorResult{}, err
	}
	defer f.close()
	next, err := f.known(ctx, sessions, inFlight)
	if err != nil {
		return floorResult{}, err
	}
	r, err := f.measure(ctx, long, inFlight, false, next)
	if err == nil {
		b.say("floor: %d sessions, %d in flight: %.0f/s; a cycle costs the Temporal Server %.2f ms of processor time, worker and client %.2f ms",
			sessions, inFlight, r.rate, milliseconds(r.temporal), milliseconds(r.rest))
	}
	return r, err
}

func (b *bench) measureFloor(ctx context.Context) error {
	const few, many = 128, 1000
	var best floorResult
	inFlight := 0
	for _, n := range b.size.inFlight {
		r, err := b.floorOf(ctx, few, n, b.size.floorTry)
		if err != nil {
			return err
		}
		if r.rate > best.rate {
			best, inFlight = r, n
		}
	}
	var floor floorResult
	for _, sessions := range []int{few, many} {
		r, err := b.floorOf(ctx, sessions, inFlight, b.size.floorRun)
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("floor.%d_sessions", sessions), r.rate, "sessions/s", "")
		if r.rate > floor.rate {
			floor = r
		}
	}
	b.floor = floor.rate
	b.add("floor", floor.rate, "sessions/s", "")
	b.add("floor.in_flight", float64(inFlight), "sessions", "")
	b.add("floor.temporal_cpu", milliseconds(floor.temporal), "ms/session", "")
	b.add("floor.rest_cpu", milliseconds(floor.rest), "ms/session", "")
	start, err := b.startFloorOf(ctx, inFlight)
	if err != nil {
		return err
	}
	b.startFloor = start.rate
	b.add("floor.start", start.rate, "new sessions/s", "")
	b.add("floor.start_temporal_cpu", milliseconds(start.temporal), "ms/session", "")
	return nil
}

// startFloorOf is the floor of sessions that are new: each is started by its
// signal.
func (b *bench) startFloorOf(ctx context.Context, inFlight int) (floorResult, error) {
	f, err := b.newFloor(ctx)
	if err != nil {
		return floorResult{}, err
	}
	defer f.close()
	return f.measure(ctx, b.size.floorRun, inFlight, true, func(int, int) string { return uuid.NewString() })
}
