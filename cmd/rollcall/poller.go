package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/health"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

type pollerCmd struct {
	Service  serviceFlags  `embed:"" set:"admin_addr=127.0.0.1:9402"`
	Kafka    kafkaFlags    `embed:"" group:"kafka"`
	Temporal temporalFlags `embed:"" group:"temporal"`
	Database databaseFlags `embed:"" group:"database"`
	Pool     poolFlags     `embed:"" group:"database"`

	Topic           string `help:"Kafka topic of the devices' events." default:"rollcall.device-events" env:"ROLLCALL_TOPIC"`
	DeadLetterTopic string `help:"Kafka topic for records that can never be applied." default:"rollcall.device-events.dlq" env:"ROLLCALL_DEAD_LETTER_TOPIC"`
	Group           string `help:"Consumer group: pollers of one group share the partitions." default:"rollcall-poller" env:"ROLLCALL_GROUP"`
	TaskQueue       string `help:"Task queue of the workers." default:"rollcall-sessions" env:"ROLLCALL_TASK_QUEUE"`

	GroupProtocol  string        `help:"Who assigns the partitions: ${enum}. classic is the members, cooperatively; consumer is the broker (KIP-848, Kafka 4.0 or later, better 4.3)." enum:"classic,consumer" default:"classic" env:"ROLLCALL_GROUP_PROTOCOL" placeholder:"PROTOCOL"`
	InstanceID     string        `help:"Static group membership under this name: a poller that comes back in time keeps its partitions without a rebalance. Each poller needs its own." env:"ROLLCALL_INSTANCE_ID"`
	SessionTimeout time.Duration `help:"How long a poller that was killed keeps its partitions from the others. Brokers allow none below 6s as they come. Of the classic protocol; the broker sets it in the other." default:"10s" env:"ROLLCALL_SESSION_TIMEOUT"`
	RevokeTimeout  time.Duration `help:"How long a rebalance waits for what is in flight." default:"5s" env:"ROLLCALL_REVOKE_TIMEOUT"`

	Class      []string      `help:"Give RAEs whose serials match PATTERN (* ? [a-z]) a share of the window of their own, of this WEIGHT; the others' is 4. The first that matches counts. Repeat it for more." env:"ROLLCALL_CLASS" placeholder:"PATTERN=WEIGHT"`
	WindowMin  int           `help:"Sessions that may always have a batch sent and not yet applied." default:"4" env:"ROLLCALL_WINDOW_MIN"`
	WindowMax  int           `help:"Most sessions that may; between the two the number follows the workers and the database. Past about 64 on a two-core Temporal the workers' sticky queues time out." default:"64" env:"ROLLCALL_WINDOW_MAX"`
	Window     int           `help:"Fix the number, so that nothing adapts." default:"0" env:"ROLLCALL_WINDOW" placeholder:"SESSIONS"`
	AckTimeout time.Duration `help:"Signal a batch again when it has not been applied for this long." default:"30s" env:"ROLLCALL_ACK_TIMEOUT"`

	MemoryMiB          int `name:"memory-mib" help:"Most MiB that the process may come to, whatever the backlog. What is held and fetched is derived from it, unless the flags below say otherwise." default:"256" env:"ROLLCALL_MEMORY_MIB"`
	TotalMiB           int `name:"total-mib" help:"Most MiB to hold of all partitions; beyond it they are paused." default:"0" env:"ROLLCALL_TOTAL_MIB" placeholder:"MIB"`
	PartitionMiB       int `name:"partition-mib" help:"Most MiB to hold of one partition; beyond it the partition is paused." default:"0" env:"ROLLCALL_PARTITION_MIB" placeholder:"MIB"`
	FetchMiB           int `name:"fetch-mib" help:"Most MiB of one fetch, compressed." default:"0" env:"ROLLCALL_FETCH_MIB" placeholder:"MIB"`
	RAESessions        int `name:"rae-sessions" help:"Open sessions of one RAE at most; the records of more are dead-lettered." default:"2000" env:"ROLLCALL_RAE_SESSIONS"`
	RAENewSessions     int `name:"rae-new-sessions" help:"New sessions of one RAE in an hour at most; the records of more are dead-lettered." default:"2000" env:"ROLLCALL_RAE_NEW_SESSIONS"`
	RAEEvents          int `name:"rae-events" help:"Events of one RAE in a second, over a minute; beyond them the RAE is served in a class of its own, of weight 1." default:"100" env:"ROLLCALL_RAE_EVENTS"`
	RAEDeadLetterBytes int `name:"rae-dead-letter-bytes" help:"Bytes of one RAE that are dead-lettered whole in an hour; beyond them without the value." default:"16777216" env:"ROLLCALL_RAE_DEAD_LETTER_BYTES"`

	PartitionRecords int           `help:"Most records of a partition that are fetched and not committable; beyond it the partition is paused. A restart reads no more than that again." default:"100000" env:"ROLLCALL_PARTITION_RECORDS"`
	PartitionAge     time.Duration `help:"The same, by how long ago the oldest was fetched." default:"10m" env:"ROLLCALL_PARTITION_AGE"`

	DrainTimeout time.Duration `help:"When told to stop: how long to wait for what has been fetched to be applied. What is not by then is read again by the next owner." default:"20s" env:"ROLLCALL_DRAIN_TIMEOUT"`
}

// Help is printed by poller --help.
func (*pollerCmd) Help() string {
	return `Reads the devices' events from Kafka, folds what belongs to one device session, and sends it as a signal to the session's workflow, which it starts if it does not run. It commits an offset only when all before it is in the database: it reads the ingest positions back, and needs the database for that alone. What can never be applied goes to the dead-letter topic, with the reason in its headers. When workers or database are slow it folds more, then pauses partitions; nothing is dropped.

Run as many as there are partitions, at most. Killing one loses nothing.

SIGTERM, or POST /drain on the admin listener, drains: the poller fetches no more, waits for what it has to be applied, commits, leaves the group, and prints a report as JSON: what was fetched, applied, dead-lettered, applied before, and what is left, by partition and offsets. It exits 0 when nothing is left, 3 when --drain-timeout passed before. A second signal ends it at once, without a report.

Examples:

    rollcall poller --kafka-brokers kafka-1:9092,kafka-2:9092 --database-url postgres://rollcall@db/rollcall

    rollcall poller --class 'canary-*=1' --class 'import-*=1' --instance-id poller-0

    rollcall poller --config /etc/rollcall.yaml --check-config`
}

// Validate is called by kong before anything starts.
func (c *pollerCmd) Validate() error {
	o, err := c.options()
	if err == nil {
		err = o.Validate()
	}
	return errors.Join(err, c.Service.validate(), c.Kafka.validate(), c.Temporal.validate(), c.Database.validate())
}

// options are those that the command line decides.
func (c *pollerCmd) options() (poller.Options, error) {
	if c.Window < 0 || c.WindowMin < 1 || c.WindowMax < 1 || c.MemoryMiB < 1 || min(c.TotalMiB, c.PartitionMiB, c.FetchMiB) < 0 || c.PartitionRecords < 1 {
		return poller.Options{}, errors.New("--window-min, --window-max, --memory-mib and --partition-records must be at least 1, --window, --total-mib, --partition-mib and --fetch-mib not negative")
	}
	if min(c.DrainTimeout, c.AckTimeout, c.RevokeTimeout, c.SessionTimeout, c.PartitionAge) <= 0 {
		return poller.Options{}, errors.New("--drain-timeout, --ack-timeout, --revoke-timeout, --session-timeout and --partition-age must be more than 0")
	}
	o := poller.Options{
		Kafka: c.Kafka.options("poller"), Group: c.Group, GroupProtocol: c.GroupProtocol, InstanceID: c.InstanceID,
		SessionTimeout: c.SessionTimeout, Topic: c.Topic, DeadLetterTopic: c.DeadLetterTopic, TaskQueue: c.TaskQueue,
		Window: c.Window, WindowMin: c.WindowMin, WindowMax: c.WindowMax,
		Memory: c.MemoryMiB << 20, TotalBytes: c.TotalMiB << 20, PartitionBytes: c.PartitionMiB << 20, FetchBytes: c.FetchMiB << 20,
		Budgets:          poller.Budgets{Sessions: c.RAESessions, NewSessions: c.RAENewSessions, Events: c.RAEEvents, DeadLetterBytes: c.RAEDeadLetterBytes},
		PartitionRecords: c.PartitionRecords, PartitionAge: c.PartitionAge,
		AckTimeout: c.AckTimeout, RevokeTimeout: c.RevokeTimeout, DrainTimeout: c.DrainTimeout,
	}
	for _, s := range c.Class {
		class, err := poller.ParseClass(s)
		if err != nil {
			return o, fmt.Errorf("--class: %w", err)
		}
		o.Classes = append(o.Classes, class)
	}
	return o, nil
}

// Run polls until ctx is cancelled or it is asked to drain, and prints the
// report.
func (c *pollerCmd) Run(ctx context.Context, env cli.Env) error {
	return runService(ctx, env, "poller", c.Service, func(ctx context.Context, s *service) error {
		db, err := s.openStore(ctx, &c.Database, c.Pool, readPositions)
		if err != nil {
			return err
		}
		defer db.Close()
		temporal, _, err := s.dialTemporal(ctx, &c.Temporal)
		if err != nil {
			return err
		}
		defer temporal.Close()
		o, err := c.options()
		if err != nil {
			return err
		}
		o.KafkaOpts = []kgo.Opt{kgo.WithLogger(kafkaLogger{s.logger})}
		o.Temporal, o.Acks, o.Logger, o.Registerer = temporal, db, s.logger, s.registry
		limitMemory(o.Memory)
		return runPoller(ctx, s, env.Stdout, o)
	})
}

// readPositions asks the database for what the poller needs of it, of a session
// that does not exist.
func readPositions(ctx context.Context, db *store.Store) error {
	_, err := db.Positions(ctx, []string{uuid.NewString()})
	return err
}

// runPoller is what the command does once everything is connected.
func runPoller(ctx context.Context, s *service, reports io.Writer, o poller.Options) error {
	p, err := poller.New(o)
	if err != nil {
		return err
	}
	s.admin.AddLiveness("poller", p.Alive)
	s.watch(health.Dependency{Name: "kafka", Ask: p.Ping})
	s.admin.Handle("POST /drain", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.Drain()
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "draining\n") // the client went away
	}))
	if err := s.run(ctx, "poller", p); err != nil {
		return err
	}
	report, _ := p.DrainReport()
	if err := json.NewEncoder(reports).Encode(report); err != nil {
		return fmt.Errorf("report of the drain: %w", err)
	}
	if !report.Complete {
		return &cli.Error{Code: exitIncomplete, Err: errors.New("not everything that was fetched was applied before --drain-timeout: the next owner reads it again")}
	}
	return nil
}

// exitIncomplete is the exit code of a drain that its deadline ended.
const exitIncomplete = 3

// limitMemory has the garbage collector work harder near the bound, unless
// GOMEMLIMIT says otherwise.
func limitMemory(bytes int) {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(int64(bytes) / 10 * 9)
	}
}
