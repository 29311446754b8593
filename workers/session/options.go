package session

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/activities"
	"github.com/rollcall-platform/rollcall/workflows"
)

// SearchAttributes says whether sessions set search attributes.
type SearchAttributes string

// Auto asks the server, at the start of the worker, whether it knows them all.
// A session that set one which the server does not know could not go on, so
// when the server cannot be asked, Auto means Off.
const (
	Auto SearchAttributes = "auto"
	On   SearchAttributes = "on"
	Off  SearchAttributes = "off"
)

// Options of a Worker.
type Options struct {
	// Client reaches Temporal. Required. A lazy client will do: the worker
	// waits for the server. The worker does not close it.
	Client client.Client
	// Store reads sessions back, and takes their updates unless Applier is set.
	// Required.
	Store activities.Store
	// Applier takes the updates. Default: activities.Direct over Store, one
	// transaction an update.
	Applier activities.Applier
	// Claims are looked at every 10 s: a contested claim is honoured by that time
	// after its device's holder has let go. Default: none, and claims wait until a
	// person decides or the claiming session's evidence changes.
	Claims Claims
	// Commands takes requests for snapshots. Default: none, and a session with
	// a gap waits for the snapshot that its edge sends unasked.
	Commands activities.Commands
	// SnapshotRate bounds how many snapshots this worker asks for in a second.
	// What comes beyond it is asked for later. Default 20: what an outage left
	// behind is then healed within minutes, and neither brokers nor edges
	// notice.
	SnapshotRate float64

	// TaskQueue that sessions run on. Default workflows.TaskQueue.
	TaskQueue string
	// Version is that of a Worker Deployment. Sessions are pinned to the one
	// that they run on, and leave it when they continue as new. Zero: the
	// worker is unversioned, and takes any session that no version has.
	Version Version
	// Namespace is the client's, to ask it about search attributes. Default
	// "default".
	Namespace string

	// WorkflowPollers is how many long polls for workflow tasks are open: half
	// of them on the task queue, half on this worker's sticky queue. With few,
	// single signals get stuck behind the sticky queue's 5 s time-out; more cost
	// the server an open request each. Default 64, as many as a poller has
	// sessions in flight.
	WorkflowPollers int
	// WorkflowTasks is how many workflow tasks run at a time, each with its
	// local activities. It bounds the applies in flight, and with them the
	// load on the database. Default 256.
	WorkflowTasks int
	// Activities is how many regular activities run at a time: sessions whose
	// apply is in trouble. Default 100.
	Activities int
	// StickyCache is how many sessions are kept in memory between signals. One
	// that is not there is replayed from its history when its next signal
	// comes, which costs the server a read of it. It holds for the process,
	// not for one worker. 0: the SDK's own, 10,000.
	StickyCache int
	// Polls watches those of Client, whose dialer must have its Intercept; then
	// the worker is ready only while the server answers them. Default: none.
	Polls *Polls
	// SearchAttributes: Auto (default), On or Off.
	SearchAttributes SearchAttributes
	// StopTimeout bounds the wait for tasks in progress when the worker stops.
	// What is not finished by then is done by another worker, 10 s later.
	// Default 10 s.
	StopTimeout time.Duration

	// Logger. Default slog.Default().
	Logger *slog.Logger
	// Registerer for rollcall_session_* metrics. Default: none. The SDK's own
	// metrics go where the client's MetricsHandler sends them: see
	// internal/sdkmetrics.
	Registerer prometheus.Registerer
}

func (o *Options) validate() error {
	switch {
	case o.Client == nil:
		return errors.New("session worker: no Client")
	case o.Store == nil:
		return errors.New("session worker: no Store")
	case o.WorkflowPollers < 0, o.WorkflowTasks < 0, o.Activities < 0, o.StickyCache < 0, o.StopTimeout < 0, o.SnapshotRate < 0:
		return errors.New("session worker: a number below zero")
	case o.WorkflowPollers == 1:
		return errors.New("session worker: one workflow poller cannot serve both the sticky queue and the common one: use 2 or more")
	}
	if err := o.Version.Check(); err != nil {
		return fmt.Errorf("session worker: %w", err)
	}
	switch o.SearchAttributes {
	case "":
		o.SearchAttributes = Auto
	case Auto, On, Off:
	default:
		return fmt.Errorf("session worker: search attributes %q are not one of auto, on, off", o.SearchAttributes)
	}
	set := func(n *int, otherwise int) {
		if *n == 0 {
			*n = otherwise
		}
	}
	set(&o.WorkflowPollers, 64)
	set(&o.WorkflowTasks, 256)
	set(&o.Activities, 100)
	if o.StopTimeout == 0 {
		o.StopTimeout = 10 * time.Second
	}
	if o.TaskQueue == "" {
		o.TaskQueue = workflows.TaskQueue
	}
	if o.Namespace == "" {
		o.Namespace = client.DefaultNamespace
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Applier == nil {
		o.Applier = activities.Direct{Store: o.Store}
	}
	return nil
}
