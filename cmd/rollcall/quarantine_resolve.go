package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/quarantine"
	"github.com/rollcall-platform/rollcall/internal/resolve"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// quarantineResolveFlags say which batches to replay or drop, and how carefully.
type quarantineResolveFlags struct {
	queryFlags       `embed:""`
	batchFilterFlags `embed:""`
	byFlag           `embed:""`
	Batches          []string `arg:"" optional:"" placeholder:"ID" help:"Which batches, as quarantine list shows them."`
	All              bool     `help:"All batches that were neither replayed nor dropped, up to ${max_limit}."`
	Again            bool     `help:"Take also a named batch that was replayed or dropped before."`
	DryRun           bool     `help:"Only say what would be done."`
	Yes              bool     `short:"y" help:"Do not ask."`
}

// Validate is called by kong before anything starts.
func (c *quarantineResolveFlags) Validate() error {
	choice := resolve.Choice{Named: len(c.Batches), Filtered: !c.empty(), All: c.All}
	return errors.Join(choice.Check("batches", "ID"), c.check(), c.queryFlags.Validate())
}

// chosen are the batches to resolve. One that is named and was resolved before
// is an error, unless --again is given.
func (c *quarantineResolveFlags) chosen(ctx context.Context, db *store.Store) ([]store.QuarantinedBatch, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if len(c.Batches) == 0 {
		batches, _, err := db.ListQuarantine(ctx, store.QuarantineFilter{RAE: c.RAE, Session: c.Session, Causes: c.Cause, Limit: store.MaxLimit})
		return batches, err
	}
	batches, err := db.GetQuarantine(ctx, c.Batches)
	if err == nil && !c.Again {
		err = quarantine.ResolvedBefore(batches)
	}
	return batches, err
}

// run resolves what is chosen. A drop needs no source.
func (c *quarantineResolveFlags) run(ctx context.Context, env cli.Env, who *cli.Terminal, to resolve.Resolution, source quarantine.Source) error {
	return c.work(ctx, func(ctx context.Context, db *store.Store) error {
		if err := hintRAE(ctx, env, db, c.RAE); err != nil {
			return err
		}
		resolver := &quarantine.Resolver{
			Resolution: to, Source: source, Database: db, By: c.name(), Timeout: c.Timeout,
			Refused: func(q store.QuarantinedBatch, why error) {
				env.Logger.Warn("batch left as it is", "batch", q.ID, "session", q.Session, "err", cli.OneLine(why))
			},
		}
		show := func(r quarantine.Report, done string) error {
			return c.Output.write(env.Stdout, r, func(w *tabwriter.Writer) { batchReport(w, r, done, to) })
		}
		return resolve.Command[quarantine.Plan, quarantine.Report]{
			Items: "batches", Resolution: to, DryRun: c.DryRun, Confirm: who.Confirm(env, c.Yes, ", or look first with --dry-run"),
			Plan: func(ctx context.Context) (quarantine.Plan, error) {
				batches, err := c.chosen(ctx, db)
				if err != nil {
					return quarantine.Plan{}, err
				}
				return resolver.Plan(ctx, batches)
			},
			Resolve:  resolver.Resolve,
			Describe: func(p quarantine.Plan) string { return describeBatches(p, to) },
			ShowPlan: func(p quarantine.Plan) error {
				return errors.Join(resolve.LeftError("batches", p.Left()), show(p.Report, "would be "+string(to)))
			},
			ShowReport: func(r quarantine.Report) error { return show(r, string(to)) },
		}.Run(ctx)
	})
}

// describeBatches is "3 batches of 17 records; 1 more cannot be replayed".
func describeBatches(p quarantine.Plan, to resolve.Resolution) string {
	text := fmt.Sprintf("%d batches", p.Able())
	if to == resolve.Replayed {
		text += fmt.Sprintf(" of %d records", p.Records)
	}
	if p.Left() > 0 {
		text += fmt.Sprintf("; %d more cannot be replayed", p.Left())
	}
	return text
}

func batchReport(w *tabwriter.Writer, r quarantine.Report, done string, to resolve.Resolution) {
	row(w, done, r.Done)
	if to == resolve.Replayed {
		row(w, "records", r.Records)
	}
	if r.Left() > 0 {
		row(w, "left as they are", r.Left())
	}
}

type quarantineReplayCmd struct {
	quarantineResolveFlags `embed:""`
	Kafka                  kafkaFlags `embed:"" group:"kafka"`
	Topic                  string     `help:"The events' topic: what was quarantined from another is not replayed." default:"rollcall.device-events" env:"ROLLCALL_TOPIC"`
}

// Help is printed by quarantine replay --help.
func (*quarantineReplayCmd) Help() string {
	return `Produces the session's records of each batch, with their key, value, headers and timestamp, to the events' topic once more, and waits for the acknowledgement of all replicas; only then is the batch marked as replayed. First correct what made the database or the worker refuse them; else the batch is quarantined again, at its new offsets. If the command is killed between the two, run it again: that changes nothing in the tables.

A batch whose records Kafka's retention has deleted, also in part, is named and left as it is, with exit code 1: drop it; the session's next snapshot restores what it held, and rollcall device request-snapshot asks for one. Exits 3 when a batch that is named does not exist.

Examples:

    rollcall quarantine replay --cause database --dry-run

    rollcall quarantine replay 5f0c1f6e-0d6c-5f0a-8a5e-1f2a3b4c5d6e --yes`
}

// Validate is called by kong before anything starts.
func (c *quarantineReplayCmd) Validate() error {
	return errors.Join(c.quarantineResolveFlags.Validate(), c.Kafka.validate())
}

// Run replays.
func (c *quarantineReplayCmd) Run(ctx context.Context, env cli.Env, who *cli.Terminal) error {
	log, err := openLog(&c.Kafka, env, c.Timeout)
	if err != nil {
		return err
	}
	defer log.Close()
	return c.run(ctx, env, who, resolve.Replayed, quarantine.Kafka{Log: log, Topic: c.Topic})
}

type quarantineDropCmd struct {
	quarantineResolveFlags `embed:""`
}

// Help is printed by quarantine drop --help.
func (*quarantineDropCmd) Help() string {
	return `Marks batches as dropped: only list --all shows them then, and retention deletes them with the history. Kafka's records are not touched. Exits 1 when a batch that is named was replayed or dropped before, 3 when it does not exist.

Examples:

    rollcall quarantine drop 5f0c1f6e-0d6c-5f0a-8a5e-1f2a3b4c5d6e

    rollcall quarantine drop --rae demo-lan --dry-run`
}

// Run drops.
func (c *quarantineDropCmd) Run(ctx context.Context, env cli.Env, who *cli.Terminal) error {
	return c.run(ctx, env, who, resolve.Dropped, nil)
}
