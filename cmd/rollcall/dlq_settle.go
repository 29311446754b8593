package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/dlq"
)

var errSelect = errors.New("say which letters: PARTITION/OFFSET …, a filter, or --all")

// dlqSettleFlags say which letters to replay or drop, and how carefully.
type dlqSettleFlags struct {
	dlqFlags       `embed:""`
	dlqFilterFlags `embed:""`
	Letters        []dlq.Coordinate `arg:"" optional:"" placeholder:"PARTITION/OFFSET" help:"Which letters: PARTITION/OFFSET, as dlq list shows them."`
	All            bool             `help:"All letters that were neither replayed nor dropped."`
	Limit          int              `help:"Of those that the filter chooses, only the first so many."`
	Again          bool             `help:"Also those that were replayed or dropped before."`
	DryRun         bool             `help:"Only say what would be done."`
	Yes            bool             `short:"y" help:"Do not ask."`
	Output         outputFlag       `short:"o" help:"Print the outcome as a ${enum}." enum:"table,json" default:"table"`
}

// Validate is called by kong before anything starts.
func (c *dlqSettleFlags) Validate() error {
	chosen := !c.empty() || c.All
	switch {
	case len(c.Letters) == 0 && !chosen:
		return errSelect
	case len(c.Letters) > 0 && (chosen || c.Limit != 0):
		return errors.New("letters are named: a filter, --all and --limit choose among all, and are not for these")
	case c.All && !c.empty():
		return errors.New("--all and a filter exclude each other")
	case c.Limit < 0:
		return errors.New("--limit must not be negative")
	}
	return c.validate()
}

func (c *dlqSettleFlags) selection(ctx context.Context, topic *dlq.Topic) (*dlq.Selection, error) {
	filter := c.filter(time.Now())
	filter.At, filter.Limit, filter.Settled = c.Letters, c.Limit, c.Again
	selection, err := topic.Select(ctx, filter)
	if err != nil || len(c.Letters) == 0 || c.Again {
		return selection, err
	}
	// Whoever names a letter shall know what was done with it.
	var before []error
	_, err = selection.Each(ctx, func(l dlq.Letter) error {
		if l.Settled != "" {
			before = append(before, fmt.Errorf("%s was %s before; --again does it once more", l.At, l.Settled))
		}
		return nil
	})
	return selection, errors.Join(append(before, err)...)
}

// settle does the verb to what is chosen.
func (c *dlqSettleFlags) settle(ctx context.Context, env cli.Env, who *terminal, verb dlq.Verb) error {
	return c.open(ctx, env, func(topic *dlq.Topic) error {
		selection, err := c.selection(ctx, topic)
		if err != nil {
			return err
		}
		summary, err := selection.Summary(ctx)
		if err != nil {
			return err
		}
		if verb == dlq.Replayed {
			if err := targets(ctx, env, topic, summary); err != nil {
				return err
			}
		}
		if c.DryRun {
			return c.Output.write(env.Stdout, summary, func(w *tabwriter.Writer) {
				row(w, "Would be "+string(verb)+": "+describe(summary, verb))
			})
		}
		if able(summary, verb) > 0 && !c.Yes {
			if err := who.confirm(env, question(summary, verb)); err != nil {
				return err
			}
		}
		result, err := selection.Settle(ctx, verb, func(l dlq.Letter, why error) {
			env.Logger.Warn("letter left as it is", "letter", l.At.String(), "reason", l.Reason, "err", cli.OneLine(why))
		})
		// What was done is said also when it ended early.
		written := c.Output.write(env.Stdout, result, func(w *tabwriter.Writer) { outcome(w, result, verb) })
		left := result.Incomplete + result.Failed
		switch {
		case err != nil:
			return err
		case written != nil:
			return written
		case left > 0:
			return fmt.Errorf("%d letters were left as they are", left)
		}
		return nil
	})
}

// targets checks where the records would go.
func targets(ctx context.Context, env cli.Env, topic *dlq.Topic, s dlq.Summary) error {
	for _, name := range slices.Sorted(maps.Keys(s.Topics)) {
		keeps, err := topic.Retention(ctx, name)
		if err != nil {
			return fmt.Errorf("%d letters belong into %s: %w", s.Topics[name], name, err)
		}
		if oldest := s.Oldest[name]; keeps > 0 && time.Since(oldest) > keeps {
			env.Logger.Warn("records keep their time, and the topic's retention goes by it: Kafka may delete the oldest before they are read; have a poller running",
				"topic", name, "retention", keeps, "oldest", stamp(oldest))
		}
	}
	return nil
}

// able is how many letters the verb can be done to.
func able(s dlq.Summary, verb dlq.Verb) int {
	if verb == dlq.Replayed {
		return s.Letters - s.Incomplete
	}
	return s.Letters
}

func question(s dlq.Summary, verb dlq.Verb) string {
	if verb == dlq.Replayed {
		return "Replay " + describe(s, verb) + "?"
	}
	return "Drop " + describe(s, verb) + "?"
}

func describe(s dlq.Summary, verb dlq.Verb) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d letters", able(s, verb))
	if len(s.Reasons) > 0 {
		fmt.Fprintf(&b, " (%s)", counts(s.Reasons))
	}
	if verb == dlq.Replayed && len(s.Topics) > 0 {
		fmt.Fprintf(&b, " to %s", printable(counts(s.Topics)))
	}
	if verb == dlq.Replayed && s.Incomplete > 0 {
		fmt.Fprintf(&b, "; %d more are incomplete and cannot be replayed", s.Incomplete)
	}
	if s.Settled > 0 {
		fmt.Fprintf(&b, "; %d of them were replayed or dropped before", s.Settled)
	}
	return b.String()
}

// counts is bad-seq 3, not-json 1.
func counts(m map[string]int) string {
	var parts []string
	for name, n := range sorted(m) {
		parts = append(parts, fmt.Sprintf("%s %d", printable(orElse(name, "no reason")), n))
	}
	return strings.Join(parts, ", ")
}

func outcome(w *tabwriter.Writer, r dlq.Result, verb dlq.Verb) {
	row(w, string(verb), r.Done)
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
	dlqSettleFlags `embed:""`
}

// Help is printed by dlq replay --help.
func (*dlqReplayCmd) Help() string {
	return `Produces the original record of each letter, with its key, value, headers and timestamp, to the topic that it was in, to the partition of its key, and waits for the acknowledgement of all replicas. Then it marks the letter as replayed, and the next replay leaves it out. A record that still cannot be applied becomes a new letter.

If it is killed between the two, a letter is replayed and not marked: it may then be replayed again, which changes nothing in the tables. A letter that was too large for the dead-letter topic was shortened, and cannot be replayed. Exits 1 when any letter was left as it is, 3 when one that is named does not exist.

Examples:

    rollcall dlq replay 0/17 0/18

    rollcall dlq replay --reason unknown-type --since 24h --dry-run`
}

// Run replays.
func (c *dlqReplayCmd) Run(ctx context.Context, env cli.Env, who *terminal) error {
	return c.settle(ctx, env, who, dlq.Replayed)
}

type dlqDropCmd struct {
	dlqSettleFlags `embed:""`
}

// Help is printed by dlq drop --help.
func (*dlqDropCmd) Help() string {
	return `Marks letters as dropped: they are listed and replayed no more. They stay in the topic, and dlq list --all shows them, until its retention takes them.

Examples:

    rollcall dlq drop 0/17

    rollcall dlq drop --reason not-json --rae RAE-DEMO-01`
}

// Run drops.
func (c *dlqDropCmd) Run(ctx context.Context, env cli.Env, who *terminal) error {
	return c.settle(ctx, env, who, dlq.Dropped)
}
