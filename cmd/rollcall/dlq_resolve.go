package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/dlq"
	"github.com/rollcall-platform/rollcall/internal/printable"
	"github.com/rollcall-platform/rollcall/internal/resolve"
)

// dlqResolveFlags say which letters to replay or drop, and how carefully.
type dlqResolveFlags struct {
	dlqFlags       `embed:""`
	dlqFilterFlags `embed:""`
	Letters        []dlq.Coordinate `arg:"" optional:"" placeholder:"PARTITION/OFFSET" help:"Which letters: PARTITION/OFFSET, as dlq list shows them."`
	All            bool             `help:"All letters that were neither replayed nor dropped."`
	Limit          int              `help:"Of those that the filter chooses, only the first so many."`
	Again          bool             `help:"Take also those that were replayed or dropped before."`
	DryRun         bool             `help:"Only say what would be done."`
	Yes            bool             `short:"y" help:"Do not ask."`
	Output         outputFlag       `short:"o" help:"Print the outcome as a ${enum}." enum:"table,json" default:"table"`
}

// Validate is called by kong before anything starts.
func (c *dlqResolveFlags) Validate() error {
	choice := resolve.Choice{Named: len(c.Letters), Filtered: !c.empty(), All: c.All}
	if err := choice.Check("letters", "PARTITION/OFFSET"); err != nil {
		return err
	}
	switch {
	case len(c.Letters) > 0 && c.Limit != 0:
		return errors.New("letters are named: --limit is for a filter or --all")
	case c.Limit < 0:
		return errors.New("--limit must not be negative")
	}
	return errors.Join(c.check(), c.validate())
}

// dlqPlan is what is chosen, and what it holds.
type dlqPlan struct {
	*dlq.Selection
	dlq.Summary
	resolution resolve.Resolution
}

// Able implements resolve.Plan.
func (p dlqPlan) Able() int { return p.Summary.Able(p.resolution) }

func (c *dlqResolveFlags) plan(ctx context.Context, env cli.Env, topic *dlq.Topic, to resolve.Resolution) (dlqPlan, error) {
	filter := c.filter(time.Now())
	filter.At, filter.Limit, filter.Resolved = c.Letters, c.Limit, c.Again
	plan := dlqPlan{resolution: to}
	var err error
	if plan.Selection, err = topic.Select(ctx, filter); err != nil {
		return plan, err
	}
	if len(c.Letters) > 0 && !c.Again {
		if err := plan.ResolvedBefore(ctx); err != nil {
			return plan, err
		}
	}
	if plan.Summary, err = plan.Selection.Summary(ctx); err != nil || to != resolve.Replayed {
		return plan, err
	}
	return plan, topic.CheckTargets(ctx, plan.Summary, func(name string, retention time.Duration) {
		env.Logger.Warn("replayed records keep their timestamps, and Kafka's retention goes by these: it may delete the oldest before they are read; have a poller running",
			"topic", name, "retention", retention, "oldest", stamp(plan.Oldest[name]))
	})
}

// run resolves what is chosen.
func (c *dlqResolveFlags) run(ctx context.Context, env cli.Env, who *cli.Terminal, to resolve.Resolution) error {
	return c.open(ctx, env, func(topic *dlq.Topic) error {
		return resolve.Command[dlqPlan, dlq.Result]{
			Items: "letters", Resolution: to, DryRun: c.DryRun, Confirm: who.Confirm(env, c.Yes, ", or look first with --dry-run"), Describe: describe,
			Plan: func(ctx context.Context) (dlqPlan, error) { return c.plan(ctx, env, topic, to) },
			Resolve: func(ctx context.Context, p dlqPlan) (dlq.Result, error) {
				return p.Resolve(ctx, to, func(l dlq.Letter, why error) {
					env.Logger.Warn("letter left as it is", "letter", l.At.String(), "reason", l.Reason, "err", cli.OneLine(why))
				})
			},
			ShowPlan: func(p dlqPlan) error {
				return c.Output.write(env.Stdout, p.Summary, func(w *tabwriter.Writer) { row(w, "Would be "+string(to)+": "+describe(p)) })
			},
			ShowReport: func(r dlq.Result) error {
				return c.Output.write(env.Stdout, r, func(w *tabwriter.Writer) { outcome(w, r, to) })
			},
		}.Run(ctx)
	})
}

// describe is "3 letters (bad-seq 2, not-json 1) to rollcall.device-events 3".
func describe(p dlqPlan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d letters", p.Able())
	if len(p.Reasons) > 0 {
		fmt.Fprintf(&b, " (%s)", counts(p.Reasons))
	}
	replay := p.resolution == resolve.Replayed
	if replay && len(p.Topics) > 0 {
		fmt.Fprintf(&b, " to %s", counts(p.Topics))
	}
	if replay && p.Incomplete > 0 {
		fmt.Fprintf(&b, "; %d more are incomplete and cannot be replayed", p.Incomplete)
	}
	if p.Resolved > 0 {
		fmt.Fprintf(&b, "; %d of them were replayed or dropped before", p.Resolved)
	}
	return b.String()
}

// counts is bad-seq 3, not-json 1.
func counts(m map[string]int) string {
	var parts []string
	for name, n := range sorted(m) {
		parts = append(parts, fmt.Sprintf("%s %d", printable.Text(orElse(name, "no reason")), n))
	}
	return strings.Join(parts, ", ")
}

func outcome(w *tabwriter.Writer, r dlq.Result, to resolve.Resolution) {
	row(w, string(to), r.Done)
	if r.Incomplete > 0 {
		row(w, "incomplete, left", r.Incomplete)
	}
	if r.Failed > 0 {
		row(w, "failed, left", r.Failed)
	}
	if r.Unmarked > 0 {
		row(w, "replayed, not marked", r.Unmarked)
	}
}

type dlqReplayCmd struct {
	dlqResolveFlags `embed:""`
}

// Help is printed by dlq replay --help.
func (*dlqReplayCmd) Help() string {
	return `Produces the original record of each letter, with its key, value, headers and timestamp, to the topic that it was in, to the partition of its key, and waits for the acknowledgement of all replicas. Then it marks the letter as replayed, and the next replay leaves it out. A record that still cannot be applied becomes a new letter.

If the command is killed between the two, a letter is replayed and not marked: it may then be replayed again, which changes nothing in the tables. A letter that was too large for the dead-letter topic was shortened, and cannot be replayed. Exits 1 when any letter was left as it is, 3 when one that is named does not exist.

Examples:

    rollcall dlq replay 0/17 0/18

    rollcall dlq replay --reason unknown-type --since 24h --dry-run`
}

// Run replays.
func (c *dlqReplayCmd) Run(ctx context.Context, env cli.Env, who *cli.Terminal) error {
	return c.run(ctx, env, who, resolve.Replayed)
}

type dlqDropCmd struct {
	dlqResolveFlags `embed:""`
}

// Help is printed by dlq drop --help.
func (*dlqDropCmd) Help() string {
	return `Marks letters as dropped: they are listed and replayed no more. They stay in the topic, and dlq list --all shows them, until its retention takes them.

Examples:

    rollcall dlq drop 0/17

    rollcall dlq drop --reason not-json --rae RAE-DEMO-01`
}

// Run drops.
func (c *dlqDropCmd) Run(ctx context.Context, env cli.Env, who *cli.Terminal) error {
	return c.run(ctx, env, who, resolve.Dropped)
}
