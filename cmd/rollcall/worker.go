package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/groupcommit"
	"github.com/rollcall-platform/rollcall/internal/health"
	"github.com/rollcall-platform/rollcall/internal/identity"
	"github.com/rollcall-platform/rollcall/internal/request"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/session"
)

type workerCmd struct {
	Service  serviceFlags  `embed:"" set:"admin_addr=127.0.0.1:9403"`
	Temporal temporalFlags `embed:"" group:"temporal"`
	Database databaseFlags `embed:"" group:"database"`
	Kafka    kafkaFlags    `embed:"" group:"kafka"`
	Pool     poolFlags     `embed:"" group:"database"`

	TaskQueue        string        `help:"Task queue to take tasks from." default:"rollcall-sessions" env:"ROLLCALL_TASK_QUEUE"`
	Deployment       string        `help:"Worker Deployment that this worker belongs to. With it sessions stay on the version they run on until they continue as new, so that workflow code may change. Needs --build-id." env:"ROLLCALL_DEPLOYMENT,TEMPORAL_DEPLOYMENT_NAME" placeholder:"NAME"`
	BuildID          string        `name:"build-id" help:"Version of the Worker Deployment: what identifies the build, such as a commit or an image's tag." env:"ROLLCALL_BUILD_ID,TEMPORAL_WORKER_BUILD_ID" placeholder:"ID"`
	WorkflowPollers  int           `help:"Long polls for workflow tasks. With few, single signals get stuck behind the sticky queue's 5 s time-out." default:"64" env:"ROLLCALL_WORKFLOW_POLLERS"`
	WorkflowTasks    int           `help:"Workflow tasks at a time: bounds the load on the database." default:"256" env:"ROLLCALL_WORKFLOW_TASKS"`
	Activities       int           `help:"Regular activities at a time: sessions whose apply is in trouble." default:"100" env:"ROLLCALL_ACTIVITIES"`
	StickyCache      int           `help:"Sessions to keep in memory between signals, at some 50 kB each; others are replayed from their history. 0: the SDK's 10,000." default:"0" env:"ROLLCALL_STICKY_CACHE"`
	CommitSessions   int           `help:"Sessions that one database transaction takes at most." default:"32" env:"ROLLCALL_COMMIT_SESSIONS"`
	CommitLinger     time.Duration `help:"Longest wait of an update for others to share its transaction. It waits only while others are likely to come in that time; 0: never." default:"5ms" env:"ROLLCALL_COMMIT_LINGER"`
	History          bool          `help:"Keep what attributes were, not only what they are." default:"true" negatable:"" env:"ROLLCALL_HISTORY"`
	Committers       int           `help:"Transactions at a time, each on a connection of its own." default:"2" env:"ROLLCALL_COMMITTERS"`
	HoldOffline      time.Duration `help:"How long a device stays with its session after that went offline, before a session of another RAE whose evidence leads to the device gets it. Longer, a device that was moved is two for longer; shorter, one that restarts can be taken." default:"10m" env:"ROLLCALL_HOLD_OFFLINE"`
	HoldSilent       time.Duration `help:"The same after the last record of the session's RAE. It must outlast the pause between two snapshots of a quiet device." default:"7h" env:"ROLLCALL_HOLD_SILENT"`
	SearchAttributes string        `help:"Whether sessions set search attributes: ${enum}. auto asks the server whether it knows them." enum:"auto,on,off" default:"auto" env:"ROLLCALL_SEARCH_ATTRIBUTES"`
	SnapshotRate     float64       `help:"Snapshots to ask RAEs for in a second at most, where events are missing; the rest is asked for later. 0: none, and no Kafka is needed; sessions with a gap then wait for the snapshot that the RAE sends unasked." default:"20" env:"ROLLCALL_SNAPSHOT_RATE"`
	CommandsTopic    string        `help:"Kafka topic of the commands." default:"rollcall.device-commands" env:"ROLLCALL_COMMANDS_TOPIC"`
	StopTimeout      time.Duration `help:"When told to stop: how long to wait for tasks in progress." default:"10s" env:"ROLLCALL_STOP_TIMEOUT"`
}

// Help is printed by worker --help.
func (*workerCmd) Help() string {
	return `Hosts the workflow of every device session: each takes the folded events that the poller sends it, drops what it has seen, finds gaps, and writes what changed to the database, one apply at a time. While the database is away the sessions wait in Temporal, each visible there as a pending activity with its last error, and go on by themselves.

Where events stay missing for a few seconds, the worker asks the device's RAE for a snapshot, by Kafka; it starts and works without Kafka too, and asks when that is there.

Run any number; sessions move between them. Killing one loses nothing.

With --deployment and --build-id the worker is a version of a Worker Deployment: it gets sessions when "rollcall deployment roll" has made it the current one.

Examples:

    TEMPORAL_ADDRESS=temporal:7233 rollcall worker --database-url postgres://rollcall@db/rollcall

    rollcall worker --deployment rollcall --build-id 2026-11-21`
}

// Validate is called by kong before anything starts.
func (c *workerCmd) Validate() error {
	if c.WorkflowPollers < 2 || c.WorkflowTasks < 1 || c.Activities < 1 || c.StickyCache < 0 || c.StopTimeout <= 0 || c.SnapshotRate < 0 {
		return errors.New("--workflow-pollers must be at least 2, --workflow-tasks and --activities at least 1, --sticky-cache and --snapshot-rate not negative, --stop-timeout more than 0")
	}
	if c.HoldOffline <= 0 || c.HoldSilent <= 0 {
		return errors.New("--hold-offline and --hold-silent must be more than 0")
	}
	if c.CommitSessions < 1 || c.CommitLinger < 0 || c.Committers < 1 {
		return errors.New("--commit-sessions and --committers must be at least 1, --commit-linger not negative")
	}
	return errors.Join(c.version().Check(), c.Service.validate(), c.Temporal.validate(), c.Database.validate(), c.Kafka.validate())
}

func (c *workerCmd) version() session.Version {
	return session.Version{Deployment: c.Deployment, BuildID: c.BuildID}
}

// check is the name of the readiness check: it tells which version answers.
func (c *workerCmd) check() string {
	if v := c.version(); v != (session.Version{}) {
		return "worker " + v.String()
	}
	return "worker"
}

// Run works until ctx is cancelled, then finishes the tasks in progress.
func (c *workerCmd) Run(ctx context.Context, env cli.Env) error {
	return runService(ctx, env, c.check(), c.Service, func(ctx context.Context, s *service) error {
		db, err := s.openStore(ctx, &c.Database, c.Pool, nil, func(o *store.Options) {
			o.NoHistory, o.Hold = !c.History, identity.Hold{Offline: c.HoldOffline, Silent: c.HoldSilent}
		})
		if err != nil {
			return err
		}
		defer db.Close()
		polls := session.NewPolls()
		temporal, namespace, err := s.dialTemporal(ctx, &c.Temporal, grpc.WithChainUnaryInterceptor(polls.Intercept))
		if err != nil {
			return err
		}
		defer temporal.Close()
		commits, err := groupcommit.New(groupcommit.Options{
			Store: db, Sessions: c.CommitSessions, Linger: cmp.Or(c.CommitLinger, -1), Committers: c.Committers, Registerer: s.registry,
		})
		if err != nil {
			return err
		}
		defer func() { // the worker has stopped: what is left here is what it gave up
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := commits.Close(ctx); err != nil {
				s.logger.WarnContext(ctx, "stopped before every update was committed: those sessions are applied again", "err", err)
			}
		}()
		options := session.Options{
			Client: temporal, Store: db, Claims: db, Applier: commits, TaskQueue: c.TaskQueue, Namespace: namespace,
			WorkflowPollers: c.WorkflowPollers, WorkflowTasks: c.WorkflowTasks, Activities: c.Activities,
			StickyCache: c.StickyCache, SearchAttributes: session.SearchAttributes(c.SearchAttributes),
			StopTimeout: c.StopTimeout, Polls: polls, Version: c.version(), Logger: s.logger, Registerer: s.registry,
		}
		if c.SnapshotRate > 0 {
			commands, err := request.NewSender(c.Kafka.options("worker"), c.CommandsTopic, s.registry, kgo.WithLogger(kafkaLogger{s.logger}))
			if err != nil {
				return err
			}
			defer commands.Close()
			s.watch(health.Dependency{Name: "kafka", Ask: commands.Ping})
			options.Commands, options.SnapshotRate = commands, c.SnapshotRate
		}
		w, err := session.New(options)
		if err != nil {
			return err
		}
		return s.run(ctx, c.check(), w)
	})
}
