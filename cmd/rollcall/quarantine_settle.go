package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/quarantine"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// quarantineSettleFlags say which batches to replay or drop, and how carefully.
type quarantineSettleFlags struct {
	queryFlags       `embed:""`
	batchFilterFlags `embed:""`
	Batches          []string `arg:"" optional:"" placeholder:"ID" help:"Which batches, as quarantine list shows them."`
	All              bool     `help:"All batches that were neither replayed nor dropped, up to ${max_limit}."`
	Again            bool     `help:"Also one that is named and was replayed or dropped before."`
	By               string   `help:"Who does it, for whoever looks later. Default: you." placeholder:"NAME"`
	DryRun           bool     `help:"Only say what would be done."`
	Yes              bool     `short:"y" help:"Do not ask."`
}

// Validate is called by kong before anything starts.
func (c *quarantineSettleFlags) Validate() error {
	switch {
	case len(c.Batches) == 0 && c.empty() && !c.All:
		return errors.New("say which batches: ID …, a filter, or --all")
	case len(c.Batches) > 0 && (!c.empty() || c.All):
		return errors.New("batches are named: a filter and --all choose among all, and are not for these")
	case c.All && !c.empty():
		return errors.New("--all and a filter exclude each other")
	}
	return errors.Join(c.check(), c.queryFlags.Validate())
}

func (c *quarantineSettleFlags) chosen(ctx context.Context, db *store.Store) ([]store.QuarantinedBatch, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if len(c.Batches) == 0 {
		batches, _, err := db.ListQuarantine(ctx, store.QuarantineFilter{RAE: c.RAE, Session: c.Session, Causes: c.Cause, Limit: store.MaxLimit})
		return batches, err
	}
	batches, err := db.GetQuarantine(ctx, c.Batches)
	if err != nil || c.Again {
		return batches, err
	}
	// Whoever names a batch shall know what was done with it.
	var before []error
	for _, q := range batches {
		if q.Outcome != "" {
			before = append(before, fmt.Errorf("%s was %s by %s at %s; --again does it once more", q.ID, q.Outcome, orElse(q.SettledBy, "-"), stamp(q.SettledAt)))
		}
	}
	return batches, errors.Join(before...)
}

// settled is what the commands print.
type settled struct {
	Done    int      `json:"done"`
	Records int      `json:"records,omitempty"`
	Left    []string `json:"left,omitempty"` // batches that stay as they are
}

// verb is what is done to batches.
type verb struct {
	outcome string
	// look says how many records it would be, do does it. An error that wraps
	// quarantine.ErrGone is the batch's own, any other would meet the next too.
	look, do func(context.Context, store.QuarantinedBatch) (int, error)
}

// settle does it to each chosen batch, and writes the outcome behind it. What
// is done stays done when a later one fails.
func (c *quarantineSettleFlags) settle(ctx context.Context, env cli.Env, who *terminal, v verb) error {
	return c.work(ctx, func(ctx context.Context, db *store.Store) error {
		batches, err := c.chosen(ctx, db)
		if err != nil {
			return err
		}
		do, said := v.look, "would be "+v.outcome
		if !c.DryRun {
			do, said = func(ctx context.Context, q store.QuarantinedBatch) (int, error) { return c.settleOne(ctx, db, q, v) }, v.outcome
			if len(batches) > 0 && !c.Yes {
				if err := who.confirm(env, fmt.Sprintf("%d batches will be %s.", len(batches), v.outcome)); err != nil {
					return err
				}
			}
		}
		var result settled
		for _, q := range batches {
			n, failed := do(ctx, q)
			if failed == nil {
				result.Done, result.Records = result.Done+1, result.Records+n
				continue
			}
			env.Logger.Warn("batch left as it is", "batch", q.ID, "session", q.Session, "err", cli.OneLine(failed))
			if result.Left = append(result.Left, q.ID); !errors.Is(failed, quarantine.ErrGone) {
				err = failed
				break
			}
		}
		written := c.Output.write(env.Stdout, result, func(w *tabwriter.Writer) {
			row(w, said, result.Done)
			if v.outcome == store.OutcomeReplayed {
				row(w, "records", result.Records)
			}
			if len(result.Left) > 0 {
				row(w, "left as they are", len(result.Left))
			}
		})
		if len(result.Left) > 0 && err == nil {
			err = fmt.Errorf("%d batches were left as they are", len(result.Left))
		}
		return errors.Join(err, written)
	})
}

func (c *quarantineSettleFlags) settleOne(ctx context.Context, db *store.Store, q store.QuarantinedBatch, v verb) (int, error) {
	n, err := v.do(ctx, q)
	if err != nil {
		return n, err
	}
	// It is done: the word of it is due, whoever is in a hurry.
	ctx, cancel := c.bound(context.WithoutCancel(ctx))
	defer cancel()
	return n, db.SettleQuarantine(ctx, []string{q.ID}, orElse(c.By, user()), v.outcome)
}

type quarantineReplayCmd struct {
	quarantineSettleFlags `embed:""`
	Kafka                 kafkaFlags `embed:"" group:"kafka"`
	Topic                 string     `help:"The events' topic: what was quarantined from another is not replayed." default:"rollcall.device-events" env:"ROLLCALL_TOPIC"`
}

// Help is printed by quarantine replay --help.
func (*quarantineReplayCmd) Help() string {
	return `Produces the session's records of each batch, with their key, value, headers and timestamp, to the events' topic once more, and waits for the acknowledgement of all replicas; only then is the batch marked as replayed. Do it after what made them refused was mended, else the batch is quarantined again, at its new offsets. Killed in between, it may be done again: that changes nothing in the tables.

A batch whose records Kafka's retention has deleted, also in part, is left as it is and named, with exit code 1: the session's next snapshot has healed it, or rollcall device request-snapshot asks for one. Then drop it. Exits 3 when a batch that is named does not exist.

Examples:

    rollcall quarantine replay --cause database --dry-run

    rollcall quarantine replay 5f0c1f6e-0d6c-5f0a-8a5e-1f2a3b4c5d6e --yes`
}

// Validate is called by kong before anything starts.
func (c *quarantineReplayCmd) Validate() error {
	return errors.Join(c.quarantineSettleFlags.Validate(), c.Kafka.validate())
}

// Run replays.
func (c *quarantineReplayCmd) Run(ctx context.Context, env cli.Env, who *terminal) error {
	log, err := openLog(&c.Kafka, env, c.Timeout)
	if err != nil {
		return err
	}
	defer log.Close()
	ours := func(then func(context.Context, store.QuarantinedBatch) (int, error)) func(context.Context, store.QuarantinedBatch) (int, error) {
		return func(ctx context.Context, q store.QuarantinedBatch) (int, error) {
			if q.Topic != "" && q.Topic != c.Topic {
				return 0, fmt.Errorf("%w: they are of topic %q, which is not the events' (--topic)", quarantine.ErrGone, q.Topic)
			}
			return then(ctx, q)
		}
	}
	return c.settle(ctx, env, who, verb{
		outcome: store.OutcomeReplayed,
		look: ours(func(ctx context.Context, q store.QuarantinedBatch) (n int, err error) {
			err = quarantine.Each(ctx, log, q, func(*kgo.Record) error { n++; return nil })
			return n, err
		}),
		do: ours(func(ctx context.Context, q store.QuarantinedBatch) (int, error) {
			return quarantine.Replay(ctx, log, q)
		}),
	})
}

type quarantineDropCmd struct {
	quarantineSettleFlags `embed:""`
}

// Help is printed by quarantine drop --help.
func (*quarantineDropCmd) Help() string {
	return `Marks batches as given up: they are listed no more, but with --all, and leave with the history. Kafka's records are not touched. Exits 1 when a batch that is named was replayed or dropped before, 3 when it does not exist.

Examples:

    rollcall quarantine drop 5f0c1f6e-0d6c-5f0a-8a5e-1f2a3b4c5d6e

    rollcall quarantine drop --rae demo-lan --dry-run`
}

// Run drops.
func (c *quarantineDropCmd) Run(ctx context.Context, env cli.Env, who *terminal) error {
	nothing := func(context.Context, store.QuarantinedBatch) (int, error) { return 0, nil }
	return c.settle(ctx, env, who, verb{outcome: store.OutcomeDropped, look: nothing, do: nothing})
}
