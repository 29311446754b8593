package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
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
	InstanceID      string `help:"Static group membership under this name: a poller that comes back in time keeps its partitions without a rebalance. Each poller needs its own." env:"ROLLCALL_INSTANCE_ID"`
	TaskQueue       string `help:"Task queue of the workers." default:"rollcall-sessions" env:"ROLLCALL_TASK_QUEUE"`

	Window        int           `help:"Sessions that may have a batch sent and not yet applied. Fewer leave the workers idle between acks; past about 64 on a two-core Temporal the workers' sticky queues time out." default:"48" env:"ROLLCALL_WINDOW"`
	PartitionMiB  int           `name:"partition-mib" help:"Most MiB to hold in memory of one partition; beyond it the partition is paused." default:"16" env:"ROLLCALL_PARTITION_MIB"`
	TotalMiB      int           `name:"total-mib" help:"Most MiB to hold in memory of all partitions." default:"64" env:"ROLLCALL_TOTAL_MIB"`
	DrainTimeout  time.Duration `help:"When told to stop: how long to wait for what has been fetched to be applied. What is not by then is read again by the next owner." default:"20s" env:"ROLLCALL_DRAIN_TIMEOUT"`
	AckTimeout    time.Duration `help:"Signal a batch again when it has not been applied for this long." default:"30s" env:"ROLLCALL_ACK_TIMEOUT"`
	RevokeTimeout time.Duration `help:"How long a rebalance waits for what is in flight." default:"5s" env:"ROLLCALL_REVOKE_TIMEOUT"`
}

// Help is printed by poller --help.
func (*pollerCmd) Help() string {
	return `Reads the devices' events from Kafka, folds what belongs to one device session, and sends it as a signal to the session's workflow, which it starts if it does not run. It commits an offset only when all before it is in the database: it reads the ingest positions back, and needs the database for that alone. What can never be applied goes to the dead-letter topic, with the reason in its headers. When workers or database are slow it folds more, then pauses partitions; nothing is dropped.

Run as many as there are partitions, at most. Killing one loses nothing.

Examples:

    rollcall poller --kafka-brokers kafka-1:9092,kafka-2:9092 --database-url postgres://rollcall@db/rollcall

    rollcall poller --config /etc/rollcall.yaml --check-config`
}

// Validate is called by kong before anything starts.
func (c *pollerCmd) Validate() error {
	if c.Window < 1 || c.PartitionMiB < 1 || c.TotalMiB < c.PartitionMiB {
		return errors.New("--window and --partition-mib must be at least 1, --total-mib at least --partition-mib")
	}
	if c.DrainTimeout <= 0 || c.AckTimeout <= 0 || c.RevokeTimeout <= 0 {
		return errors.New("--drain-timeout, --ack-timeout and --revoke-timeout must be more than 0")
	}
	return errors.Join(c.Service.validate(), c.Kafka.validate(), c.Temporal.validate(), c.Database.validate())
}

// Run polls until ctx is cancelled, then drains.
func (c *pollerCmd) Run(ctx context.Context, env cli.Env) error {
	return runService(ctx, env, "poller", c.Service, func(ctx context.Context, s *service) error {
		db, err := s.openStore(ctx, &c.Database, c.Pool)
		if err != nil {
			return err
		}
		defer db.Close()
		temporal, _, err := s.dialTemporal(ctx, &c.Temporal)
		if err != nil {
			return err
		}
		defer temporal.Close()
		p, err := poller.New(poller.Options{
			Kafka: c.Kafka.options("poller"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{s.logger})},
			Group: c.Group, InstanceID: c.InstanceID, Topic: c.Topic, DeadLetterTopic: c.DeadLetterTopic,
			Temporal: temporal, TaskQueue: c.TaskQueue, Acks: db,
			Window: c.Window, PartitionBytes: c.PartitionMiB << 20, TotalBytes: c.TotalMiB << 20,
			AckTimeout: c.AckTimeout, RevokeTimeout: c.RevokeTimeout, DrainTimeout: c.DrainTimeout,
			Logger: s.logger, Registerer: s.registry,
		})
		if err != nil {
			return err
		}
		return s.run(ctx, "poller", p)
	})
}
