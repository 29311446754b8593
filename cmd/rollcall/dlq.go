package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/dlq"
)

type dlqCmd struct {
	List   dlqListCmd   `cmd:"" help:"List dead letters."`
	Show   dlqShowCmd   `cmd:"" help:"Show one dead letter, with its headers and its value."`
	Replay dlqReplayCmd `cmd:"" help:"Produce the records of dead letters again, to where they came from."`
	Drop   dlqDropCmd   `cmd:"" help:"Mark dead letters as dropped."`
}

// Help is printed by dlq --help.
func (*dlqCmd) Help() string {
	return `Works on the dead-letter topic, which holds records that can never be applied as they are. Kafka cannot delete one record: a letter that was replayed or dropped is marked so by a record behind it, is not listed any more, and is deleted by the topic's retention.

Example:

    rollcall dlq list --since 24h`
}

// dlqFlags say which dead-letter topic.
type dlqFlags struct {
	Kafka   kafkaFlags    `embed:"" group:"kafka"`
	Topic   string        `name:"dead-letter-topic" help:"The dead-letter topic." default:"rollcall.device-events.dlq" env:"ROLLCALL_DEAD_LETTER_TOPIC"`
	Timeout time.Duration `help:"Give up when Kafka has not answered for this long." default:"15s"`
}

func (f *dlqFlags) validate() error {
	if f.Timeout <= 0 {
		return errors.New("--timeout must be more than 0")
	}
	return f.Kafka.validate()
}

// open gives the topic to work, and turns a letter that is not found into exit
// code 3.
func (f *dlqFlags) open(ctx context.Context, env cli.Env, work func(*dlq.Topic) error) error {
	topic, err := dlq.Open(ctx, dlq.Options{
		Kafka: f.Kafka.options("dlq"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{env.Logger})},
		Topic: f.Topic, Patience: f.Timeout, Logger: env.Logger,
	})
	if err != nil {
		return fmt.Errorf("dead letters at %s: %w", strings.Join(f.Kafka.Brokers, ","), err)
	}
	defer topic.Close()
	err = work(topic)
	if errors.Is(err, dlq.ErrNotFound) {
		return &cli.Error{Code: cli.ExitNotFound, Err: err}
	}
	return err
}

// dlqFilterFlags choose letters.
type dlqFilterFlags struct {
	Reason  []string   `help:"Only those with one of these reasons." placeholder:"REASON"`
	RAE     string     `help:"Only those whose key names the RAE with this serial." placeholder:"SERIAL"`
	Session string     `help:"Only those whose key names this session." placeholder:"UUID"`
	Since   cli.Moment `help:"Only those whose record is not older than this: ${time_forms}." placeholder:"TIME"`
}

func (f *dlqFilterFlags) filter(now time.Time) dlq.Filter {
	return dlq.Filter{Reasons: f.Reason, RAE: f.RAE, Session: f.Session, Since: f.Since.Time(now)}
}

// check refuses a filter that matches nothing.
func (f *dlqFilterFlags) check() error {
	for _, reason := range f.Reason {
		if err := cli.CheckOneOf("--reason", reason, dlq.Reasons()); err != nil {
			return err
		}
	}
	if f.Session != "" {
		if err := device.CheckSession(f.Session); err != nil {
			return fmt.Errorf("--session: %w", err)
		}
	}
	return checkRAE(f.RAE)
}

func (f *dlqFilterFlags) empty() bool {
	return len(f.Reason) == 0 && f.RAE == "" && f.Session == "" && !f.Since.Given()
}

const maxLetters = 10_000

type dlqListCmd struct {
	dlqFlags       `embed:""`
	dlqFilterFlags `embed:""`
	Output         outputFlag      `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
	All            bool            `help:"List also those that were replayed or dropped."`
	Limit          int             `help:"How many, at most ${max_letters}." default:"${default_limit}"`
	After          *dlq.Coordinate `help:"Continue after this letter, as the page before printed it." placeholder:"PARTITION/OFFSET"`
}

// Help is printed by dlq list --help.
func (*dlqListCmd) Help() string {
	return `Lists dead letters by partition and offset: where each lies, when its record was made and where it was, its key, why it is here, and its size in bytes.

Examples:

    rollcall dlq list --since 24h

    rollcall dlq list --reason bad-seq,not-json --rae RAE-DEMO-01

    rollcall dlq list -o json | jq -r '.letters[].at'`
}

// Validate is called by kong before anything starts.
func (c *dlqListCmd) Validate() error {
	if c.Limit < 1 || c.Limit > maxLetters {
		return fmt.Errorf("--limit must be from 1 to %d", maxLetters)
	}
	return errors.Join(c.check(), c.validate())
}

// Run lists.
func (c *dlqListCmd) Run(ctx context.Context, env cli.Env) error {
	return c.open(ctx, env, func(topic *dlq.Topic) error {
		filter := c.filter(time.Now())
		filter.Limit, filter.After, filter.Resolved = c.Limit, c.After, c.All
		selection, err := topic.Select(ctx, filter)
		if err != nil {
			return err
		}
		page := struct {
			Letters []dlq.Letter    `json:"letters"`
			Next    *dlq.Coordinate `json:"next,omitempty"`
		}{Letters: []dlq.Letter{}}
		more, err := selection.Each(ctx, func(l dlq.Letter) error {
			l.Record = nil // its value is not shown, and a page of them would be large
			page.Letters = append(page.Letters, l)
			return nil
		})
		if err != nil {
			return err
		}
		if more {
			page.Next = &page.Letters[len(page.Letters)-1].At
		}
		if err := c.Output.write(env.Stdout, page, func(w *tabwriter.Writer) { letters(w, page.Letters) }); err != nil {
			return err
		}
		if more && c.Output != "json" {
			_, err = fmt.Fprintf(env.Stderr, "There are more: --after %s\n", page.Next)
		}
		return err
	})
}

func letters(w io.Writer, all []dlq.Letter) {
	row(w, "LETTER", "MADE", "WAS AT", "KEY", "REASON", "DETAIL", "SIZE", "STATE")
	for _, l := range all {
		row(w, l.At, orElse(stamp(l.Time), "-"), wasAt(l), orElse(clip(l.Key), "-"),
			orElse(clip(l.Reason), "-"), orElse(clip(l.Detail), "-"), l.Size, state(l))
	}
}

// wasAt is where the record was, or was meant for.
func wasAt(l dlq.Letter) string {
	switch {
	case l.Topic == "":
		return "-"
	case l.Partition < 0:
		return clip(l.Topic)
	}
	return fmt.Sprintf("%s/%d/%d", clip(l.Topic), l.Partition, l.Offset)
}

func state(l dlq.Letter) string {
	switch {
	case l.Resolution != "":
		return string(l.Resolution)
	case l.Incomplete != "":
		return "incomplete"
	}
	return "open"
}
