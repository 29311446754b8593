package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/retention"
)

type retentionCmd struct {
	Service  serviceFlags  `embed:"" set:"admin_addr=127.0.0.1:9406"`
	Database databaseFlags `embed:"" group:"database"`

	History        cli.Days      `help:"Keep replaced values of attributes for so long. The newest of each stays." default:"90d" env:"ROLLCALL_KEEP_HISTORY" placeholder:"DAYS"`
	Tombstones     cli.Days      `help:"Keep tombstones of removed attributes for so long, and until a snapshot covers them." default:"30d" env:"ROLLCALL_KEEP_TOMBSTONES" placeholder:"DAYS"`
	ClosedSessions cli.Days      `help:"Keep closed sessions for so long after their last record was received." default:"180d" env:"ROLLCALL_KEEP_CLOSED_SESSIONS" placeholder:"DAYS"`
	KafkaRetention cli.Days      `help:"How long Kafka keeps a record of the events' topic. Nothing is deleted sooner." default:"7d" env:"ROLLCALL_KAFKA_RETENTION" placeholder:"DAYS"`
	Every          time.Duration `help:"Time between passes. A pass reads the history of all sessions." default:"6h" env:"ROLLCALL_RETENTION_EVERY"`
	Batch          int           `help:"Rows of history that one transaction deletes at most." default:"5000" env:"ROLLCALL_RETENTION_BATCH"`
	Once           bool          `help:"Make one pass, print what was deleted, and end: for cron. No listener is opened." env:"ROLLCALL_RETENTION_ONCE"`
	Output         outputFlag    `short:"o" help:"With --once, print a ${enum}." enum:"table,json" default:"table" env:"ROLLCALL_RETENTION_OUTPUT"`
	Yes            bool          `short:"y" help:"With --once, do not ask." env:"ROLLCALL_RETENTION_YES"`
}

// Help is printed by retention --help.
func (*retentionCmd) Help() string {
	return `Deletes what has been kept long enough, in small transactions, session by session: changes of attributes that were replaced, with gaps that ended and quarantined batches that were resolved; tombstones; closed sessions with all their rows. The newest change of each attribute stays, so do devices and the evidence of their identity, and a closed session with a quarantined batch that nobody has resolved.

It goes by the clocks of the database and of Kafka, never by an edge's. Run it as a service, or with --once, which asks before it deletes (without a terminal it wants --yes) and exits 1 when its pass ended early; several at a time do no harm.

DAYS is such as 90d, or a duration such as 36h.

Examples:

    rollcall retention --database-url postgres://rollcall@db/rollcall --history 30d

    rollcall retention --once --yes -o json`
}

func (c *retentionCmd) keep() retention.Keep {
	return retention.Keep{
		History: time.Duration(c.History), Tombstones: time.Duration(c.Tombstones),
		ClosedSessions: time.Duration(c.ClosedSessions), Kafka: time.Duration(c.KafkaRetention),
	}
}

// Validate is called by kong before anything starts.
func (c *retentionCmd) Validate() error {
	if c.Batch < 1 || c.Every <= 0 {
		return errors.New("--batch must be at least 1, --every more than 0")
	}
	keep := c.keep()
	if err := keep.Check(); err != nil {
		return err
	}
	return errors.Join(c.Service.validate(), c.Database.validate())
}

// Run makes passes until ctx is cancelled, or one.
func (c *retentionCmd) Run(ctx context.Context, env cli.Env, who *cli.Terminal) error {
	o := retention.Options{Keep: c.keep(), Batch: c.Batch, Every: c.Every, Logger: env.Logger}
	if c.Once {
		question := fmt.Sprintf("delete history older than %s, tombstones older than %s, and sessions closed for %s, for good?", c.History, c.Tombstones, c.ClosedSessions)
		if err := who.Ask(env, c.Yes, question, ""); err != nil {
			return err
		}
		return c.once(ctx, env, o)
	}
	return runService(ctx, env, "retention", c.Service, func(ctx context.Context, s *service) error {
		// One connection for the pass, one for readiness: a pass takes minutes.
		db, err := s.openStore(ctx, &c.Database, poolFlags{MaxConns: 2}, nil)
		if err != nil {
			return err
		}
		defer db.Close()
		o.Store, o.Registerer = db, s.registry
		r, err := retention.New(o)
		if err != nil {
			return err
		}
		return s.run(ctx, "retention", r)
	})
}

func (c *retentionCmd) once(ctx context.Context, env cli.Env, o retention.Options) error {
	db, err := c.Database.open(ctx, env.Logger)
	if err != nil {
		return err
	}
	defer db.Close()
	o.Store = db
	r, err := retention.New(o)
	if err != nil {
		return err
	}
	gone, err := r.Pass(ctx)
	return errors.Join(err, c.Output.write(env.Stdout, gone, func(w *tabwriter.Writer) {
		row(w, "TABLE", "ROWS DELETED")
		for table, n := range sorted(gone) {
			row(w, table, n)
		}
	}))
}
