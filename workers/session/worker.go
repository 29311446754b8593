// Package session hosts the DeviceSession workflow and its activities in a
// Temporal worker.
package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/rollcall-platform/rollcall/activities"
	"github.com/rollcall-platform/rollcall/internal/retry"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Worker runs sessions until it is told to stop.
type Worker struct {
	options    Options
	activities *activities.Activities
	search     atomic.Bool
	claims     prometheus.Gauge // that are open

	mu  sync.Mutex
	why error // not ready because
}

// New validates the options and registers the metrics; it reaches for nothing.
func New(o Options) (*Worker, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	w := &Worker{options: o, why: errors.New("not started")}
	var err error
	w.activities, err = activities.New(activities.Options{
		Applier: o.Applier, Loader: o.Store, Logger: o.Logger, Registerer: o.Registerer, SearchAttributes: w.search.Load,
		Commands: o.Commands, SnapshotRate: o.SnapshotRate, Temporal: o.Client,
	})
	if err != nil {
		return nil, fmt.Errorf("session worker: %w", err)
	}
	if w.claims, err = newClaimGauge(o.Registerer); err != nil {
		return nil, fmt.Errorf("session worker: %w", err)
	}
	if err := o.Version.register(o.Registerer); err != nil {
		return nil, fmt.Errorf("session worker: %w", err)
	}
	if o.StickyCache > 0 {
		worker.SetStickyWorkflowCacheSize(o.StickyCache)
	}
	return w, nil
}

var backoff = retry.Backoff{First: 500 * time.Millisecond, Max: 15 * time.Second}

// Run waits for Temporal, then takes tasks until ctx is cancelled. It returns
// nil after the tasks in progress are done or StopTimeout is over. When the
// server ends the worker, as it does when the namespace is deleted, Run waits
// and begins again.
func (w *Worker) Run(ctx context.Context) error {
	log := w.options.Logger
	for n := 0; ctx.Err() == nil; n++ {
		begun := time.Now()
		err := w.serve(ctx)
		if err == nil || ctx.Err() != nil {
			break
		}
		if time.Since(begun) > time.Minute {
			n = 0
		}
		w.notReady(err)
		pause := backoff.Delay(n)
		log.WarnContext(ctx, "waiting for Temporal: is the server running, and are TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE right?",
			"namespace", w.options.Namespace, "task_queue", w.options.TaskQueue, "retry_in", pause.Round(time.Millisecond), "err", err)
		_ = retry.Sleep(ctx, pause) // the loop looks at ctx
	}
	w.notReady(errors.New("stopped"))
	return nil
}

// Ready is nil while the worker takes tasks, else why it does not.
func (w *Worker) Ready() error {
	w.mu.Lock()
	why := w.why
	w.mu.Unlock()
	if why == nil && w.options.Polls != nil {
		why = w.options.Polls.Ready()
	}
	return why
}

func (w *Worker) notReady(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.why = why
}

// serve runs one worker until ctx is cancelled, or until it cannot go on.
func (w *Worker) serve(ctx context.Context) error {
	if err := w.reach(ctx); err != nil {
		return err
	}
	failed := make(chan error, 1)
	o := w.options
	tasks := worker.New(o.Client, o.TaskQueue, worker.Options{
		DeploymentOptions:                       o.Version.options(),
		WorkflowTaskPollerBehavior:              pollers(o.WorkflowPollers / 2),
		MaxConcurrentWorkflowTaskExecutionSize:  o.WorkflowTasks,
		MaxConcurrentLocalActivityExecutionSize: o.WorkflowTasks,
		MaxConcurrentActivityExecutionSize:      o.Activities,
		MaxConcurrentActivityTaskPollers:        2,
		WorkerStopTimeout:                       o.StopTimeout,
		DisableRegistrationAliasing:             true,
		OnFatalError:                            func(err error) { failed <- err },
	})
	workflows.Register(tasks)
	w.activities.Register(tasks)
	if err := tasks.Start(); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	w.notReady(nil)
	reviewing, stopReview := context.WithCancel(ctx)
	var review sync.WaitGroup
	review.Go(func() { w.reviewClaims(reviewing) })
	defer review.Wait()
	defer stopReview()
	o.Logger.InfoContext(ctx, "session worker started", "namespace", o.Namespace, "task_queue", o.TaskQueue, "worker_version", o.Version.String(), "search_attributes", w.search.Load())
	select {
	case <-ctx.Done():
		w.notReady(errors.New("stopping"))
		tasks.Stop()
		o.Logger.Info("session worker stopped")
		return nil
	case err := <-failed: // the SDK has stopped it
		return fmt.Errorf("worker ended: %w", err)
	}
}

// pollers keeps n long polls open on the task queue, and n on the worker's own
// sticky queue. The SDK's other behaviour has each poll choose one of the two,
// and it is the sticky one for as long as anything waits there: under load the
// sessions that are new, or that another worker had, then wait for ever.
func pollers(n int) worker.PollerBehavior {
	return worker.NewPollerBehaviorAutoscaling(worker.PollerBehaviorAutoscalingOptions{
		InitialNumberOfPollers: n, MinimumNumberOfPollers: n, MaximumNumberOfPollers: n,
	})
}

// reach asks the server whether it is there and what it knows.
func (w *Worker) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := w.options.Client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return fmt.Errorf("reach Temporal: %w", err)
	}
	switch w.options.SearchAttributes {
	case On:
		w.search.Store(true)
	case Off:
		w.search.Store(false)
	default:
		err := workflows.CheckSearchAttributes(ctx, w.options.Client.OperatorService(), w.options.Namespace)
		if err != nil {
			w.options.Logger.WarnContext(ctx, "sessions will set no search attributes", "err", err)
		}
		w.search.Store(err == nil)
	}
	return nil
}
