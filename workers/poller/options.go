package poller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Group protocols.
const (
	ClassicProtocol  = "classic"
	ConsumerProtocol = "consumer"
)

// maxWindow bounds WindowMax: more signals at once would be a typing error.
const maxWindow = 10_000

// Temporal is what the poller needs of a Temporal client.
type Temporal interface {
	SignalWithStartWorkflow(ctx context.Context, workflowID, signalName string, signalArg any,
		options client.StartWorkflowOptions, workflow any, workflowArgs ...any) (client.WorkflowRun, error)
}

// Acks reads ingest positions: what has been applied to the database, by
// session. A session that has none is left out of the answer.
type Acks interface {
	Positions(ctx context.Context, sessions []string) (map[string][]device.Position, error)
}

// Options of a Poller. Kafka, Temporal and Acks are required.
type Options struct {
	// Kafka says how the cluster is reached.
	Kafka kafka.Options
	// KafkaOpts are appended to the poller's own, and win over them.
	KafkaOpts []kgo.Opt
	// Group is the consumer group. Default "rollcall-poller".
	Group string
	// InstanceID makes the group membership static: a poller that comes back
	// under the same name within the session timeout keeps its partitions
	// without a rebalance; one that does not come back keeps them from
	// others for that long. Default none: dynamic.
	InstanceID string
	// GroupProtocol is "classic", with cooperative-sticky assignment by the
	// members, or "consumer", KIP-848, with assignment by the broker, which
	// wants Kafka 4.0 or later (4.3 is better). Default "classic".
	GroupProtocol string
	// SessionTimeout is how long a poller that was killed keeps its partitions
	// from the others, in the classic protocol; the broker sets it in the
	// other. Default 10 s; brokers allow none below 6 s as they come. Shorter
	// ones take a pause of machine or network for a death.
	SessionTimeout time.Duration
	// Topic is read. Default device.KafkaEvents.
	Topic string
	// DeadLetterTopic takes what can never be applied. Default
	// device.KafkaDeadLetters.
	DeadLetterTopic string

	Temporal Temporal
	// TaskQueue is that of the session workers. Default workflows.TaskQueue.
	TaskQueue string
	Acks      Acks

	// Classes are served with their own weights, by the first pattern that
	// matches the RAE's serial; what none matches is of the default class,
	// whose weight is 4. Default none.
	Classes []Class
	// Budgets of each RAE.
	Budgets Budgets
	// WindowMin and WindowMax bound how many sessions may have a batch sent
	// and not yet applied; between them the number follows the sink. Defaults
	// 4 and 64. Too few leave the sink idle between acks; past about 64 on a
	// two-core Temporal, signals outrun the workers, the sticky queue's
	// schedule-to-start timeout fires, and throughput falls to a tenth.
	WindowMin, WindowMax int
	// Window sets both, so that nothing adapts. Default 0: it does.
	Window int

	// Memory is what the process may come to, whatever the backlog; the
	// budgets below that are not given derive from it. Default 256 MiB. It
	// is not enforced here, but what is given must fit it:
	//
	//	Memory ≥ 48 MiB                     the program, its clients and connections
	//	       + 500 × 64 KiB = 31¼ MiB     one turn of the poll loop past a mark
	//	       + WindowMax × 512 KiB        signals being encoded and sent
	//	       + TotalBytes                 folds and dead letters
	//	       + 4 × (1 + 4) × FetchBytes   fetches, as sent and decompressed
	//
	// with events that compress to no less than a quarter, on average over a
	// fetch; a single batch that expands further than 4 × FetchBytes is a
	// dead letter. Give the Go runtime nine tenths of it as its memory limit.
	Memory int
	// PartitionBytes and TotalBytes bound what is held in memory, counted as
	// device.Fold.Size plus 64 bytes a record. At the bound a partition's
	// fetch is paused, below half of it resumed. Defaults: about a quarter of
	// Memory, and a quarter of that.
	PartitionBytes, TotalBytes int
	// PartitionRecords and PartitionAge bound the fetched and not yet
	// committable records of a partition, their number and how long ago the
	// oldest was fetched, so that a restart never reads far back. Defaults
	// 100,000 and 10 min. One stopped lane (see StopRetry) holds its
	// partition back when they are reached.
	PartitionRecords int
	PartitionAge     time.Duration
	// FetchBytes bounds one fetch, as it is on the wire, from 1 MiB to 64 MiB.
	// Default about a seventieth of Memory.
	FetchBytes int

	// CommitInterval and CommitRecords: commit when either is reached.
	// Defaults 1 s and 1,000.
	CommitInterval time.Duration
	CommitRecords  int

	// AckMin and AckMax bound the cadence of position reads: quicker while
	// they find something, slower while they do not. Defaults 25 and 250 ms.
	AckMin, AckMax time.Duration
	// AckTimeout is how long a signalled batch may stay un-applied, by a
	// position read that succeeded, before it is signalled again. Default
	// 30 s. Replays are harmless, but each is work for a sink that may only
	// be slow.
	AckTimeout time.Duration
	// StopRetry is how long a lane rests whose signal Temporal refused for
	// good (the execution's signal limit). Nothing else ends such a stop
	// but somebody who repairs the workflow. Default 1 min.
	StopRetry time.Duration
	// RevokeTimeout bounds the wait for what is in flight when a partition is
	// revoked. It must be well under the group's rebalance timeout (60 s).
	// Default 5 s. What does not make it is applied again by the next owner.
	RevokeTimeout time.Duration
	// DrainTimeout bounds the wait for what is folded and in flight when Run
	// is stopped. Default 20 s. The DrainReport says what is left then.
	DrainTimeout time.Duration

	Logger     *slog.Logger          // default slog.Default
	Registerer prometheus.Registerer // default: metrics are kept and shown nowhere
}

func (o *Options) setDefaults() {
	or(&o.Group, "rollcall-poller")
	or(&o.Topic, device.KafkaEvents)
	or(&o.DeadLetterTopic, device.KafkaDeadLetters)
	or(&o.TaskQueue, workflows.TaskQueue)
	or(&o.GroupProtocol, ClassicProtocol)
	or(&o.SessionTimeout, 10*time.Second)
	if o.Window != 0 {
		o.WindowMin, o.WindowMax = o.Window, o.Window
	}
	or(&o.WindowMax, 64)
	or(&o.WindowMin, min(4, o.WindowMax))
	or(&o.Memory, 256<<20)
	o.setBudgets()
	o.Budgets.setDefaults()
	or(&o.PartitionRecords, 100_000)
	or(&o.PartitionAge, 10*time.Minute)
	or(&o.CommitInterval, time.Second)
	or(&o.CommitRecords, 1000)
	or(&o.AckMin, 25*time.Millisecond)
	or(&o.AckMax, 250*time.Millisecond)
	or(&o.AckTimeout, 30*time.Second)
	or(&o.StopRetry, time.Minute)
	or(&o.RevokeTimeout, 5*time.Second)
	or(&o.DrainTimeout, 20*time.Second)
	or(&o.Logger, slog.Default())
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
}

func or[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate reports why the settings cannot be used, or nil. It looks at neither
// Kafka nor Temporal nor Acks.
func (o Options) Validate() error {
	o.setDefaults()
	return o.check()
}

// missing reports which of the required are.
func (o *Options) missing() error {
	switch {
	case o.Temporal == nil:
		return errors.New("no Temporal client")
	case o.Acks == nil:
		return errors.New("no source of acks")
	}
	return nil
}

// check is called after setDefaults.
func (o *Options) check() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(o.Topic != o.DeadLetterTopic, "topic and dead-letter topic are both %q", o.Topic)
	need(o.WindowMin > 0 && o.WindowMin <= o.WindowMax, "window from %d to %d is empty or not positive", o.WindowMin, o.WindowMax)
	need(o.WindowMax <= maxWindow, "window %d is more than %d", o.WindowMax, maxWindow)
	need(o.GroupProtocol == ClassicProtocol || o.GroupProtocol == ConsumerProtocol, "group protocol %q is neither %q nor %q", o.GroupProtocol, ClassicProtocol, ConsumerProtocol)
	errs = append(errs, checkClasses(o.Classes), o.checkMemory())
	need(o.PartitionBytes >= device.MaxSignalBytes, "partition bytes %d are less than one signal's %d", o.PartitionBytes, device.MaxSignalBytes)
	need(o.TotalBytes >= o.PartitionBytes, "total bytes %d are less than partition bytes %d", o.TotalBytes, o.PartitionBytes)
	need(o.PartitionRecords > 0 && o.CommitRecords > 0, "partition records %d and commit records %d must be positive", o.PartitionRecords, o.CommitRecords)
	b := o.Budgets
	need(b.Sessions > 0 && b.NewSessions > 0 && b.Events > 0 && b.DeadLetterBytes > 0, "budgets of a RAE %+v must be positive", b)
	need(o.FetchBytes >= 1<<20 && o.FetchBytes <= 64<<20, "fetch bytes %d are not between 1 MiB and 64 MiB", o.FetchBytes)
	need(o.AckMin > 0 && o.AckMin <= o.AckMax, "ack cadence %s to %s is empty", o.AckMin, o.AckMax)
	for name, d := range map[string]time.Duration{
		"commit interval": o.CommitInterval, "ack timeout": o.AckTimeout, "stop retry": o.StopRetry,
		"revoke timeout": o.RevokeTimeout, "session timeout": o.SessionTimeout, "partition age": o.PartitionAge, "drain timeout": o.DrainTimeout,
	} {
		need(d > 0, "%s %s is not positive", name, d)
	}
	return errors.Join(errs...)
}
