package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka/replay"
	"github.com/rollcall-platform/rollcall/internal/quarantine"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

type quarantineCmd struct {
	List   quarantineListCmd   `cmd:"" help:"List quarantined batches."`
	Show   quarantineShowCmd   `cmd:"" help:"Show one quarantined batch, and its records."`
	Replay quarantineReplayCmd `cmd:"" help:"Produce the records of quarantined batches again."`
	Drop   quarantineDropCmd   `cmd:"" help:"Mark quarantined batches as dropped."`
}

// Help is printed by quarantine --help.
func (*quarantineCmd) Help() string {
	return `Works on the batches that a session could never apply and left out: the database refuses their values, or the worker cannot read their payload. The database has a row about each, with its Kafka coordinates; the records themselves are in Kafka for as long as its retention keeps them. A session's next snapshot restores what it misses, too.

Example:

    rollcall quarantine list --cause database`
}

// batchFilterFlags choose quarantined batches.
type batchFilterFlags struct {
	RAE     string   `help:"Only those of sessions on the RAE with this serial." placeholder:"SERIAL"`
	Session string   `help:"Only those of this session." placeholder:"UUID"`
	Cause   []string `help:"Only those with one of these causes: payload, version, invalid, foreign, database." placeholder:"CAUSE"`
}

var causes = []string{workflows.CausePayload, workflows.CauseVersion, workflows.CauseInvalid, workflows.CauseForeign, workflows.CauseDatabase}

// check refuses a filter that matches nothing: a misspelt word would look like an
// empty quarantine.
func (f *batchFilterFlags) check() error {
	for _, c := range f.Cause {
		if err := cli.CheckOneOf("--cause", c, causes); err != nil {
			return err
		}
	}
	if _, err := uuid.Parse(f.Session); err != nil && f.Session != "" {
		return fmt.Errorf("--session: %q is not a UUID: rollcall device get DEVICE says which its session is", f.Session)
	}
	return checkRAE(f.RAE)
}

func (f *batchFilterFlags) empty() bool { return f.RAE == "" && f.Session == "" && len(f.Cause) == 0 }

type quarantineListCmd struct {
	queryFlags       `embed:""`
	batchFilterFlags `embed:""`
	All              bool   `help:"List also those that were replayed or dropped."`
	Limit            int    `help:"How many, at most ${max_limit}." default:"${default_limit}"`
	After            string `help:"Continue after this batch, as the page before printed it." placeholder:"ID"`
}

// Help is printed by quarantine list --help.
func (*quarantineListCmd) Help() string {
	return `Lists quarantined batches, the oldest first: when it happened, which session's they are, where in Kafka, and why they could not be applied. Exits 0 also when there is none.

Examples:

    rollcall quarantine list --cause database

    rollcall quarantine list --rae demo-lan --all -o json | jq -r '.batches[].detail'`
}

// Validate is called by kong before anything starts.
func (c *quarantineListCmd) Validate() error {
	if c.Limit < 1 || c.Limit > store.MaxLimit {
		return fmt.Errorf("--limit must be from 1 to %d", store.MaxLimit)
	}
	return errors.Join(c.check(), c.queryFlags.Validate())
}

// Run lists.
func (c *quarantineListCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		if err := hintRAE(ctx, env, db, c.RAE); err != nil {
			return err
		}
		batches, more, err := db.ListQuarantine(ctx, store.QuarantineFilter{
			RAE: c.RAE, Session: c.Session, Causes: c.Cause, Resolved: c.All, Limit: c.Limit, After: c.After,
		})
		if err != nil {
			return err
		}
		page := struct {
			Batches []store.QuarantinedBatch `json:"batches"`
			Next    string                   `json:"next,omitempty"`
		}{Batches: append([]store.QuarantinedBatch{}, batches...)}
		if more {
			page.Next = batches[len(batches)-1].ID
		}
		if err := c.Output.write(env.Stdout, page, func(w *tabwriter.Writer) { quarantined(w, batches) }); err != nil {
			return err
		}
		if more && c.Output != "json" {
			_, err = fmt.Fprintf(env.Stderr, "There are more: --after %s\n", page.Next)
		}
		return err
	})
}

func quarantined(w io.Writer, batches []store.QuarantinedBatch) {
	row(w, "BATCH", "SINCE", "RAE", "SESSION", "WAS AT", "CAUSE", "DETAIL", "STATE")
	for _, q := range batches {
		row(w, q.ID, stamp(q.At), q.RAE, q.Session, batchAt(q), q.Cause, orElse(clip(q.Detail), "-"), orElse(q.Outcome, "open"))
	}
}

// batchAt is where in Kafka the batch is.
func batchAt(q store.QuarantinedBatch) string {
	if q.Topic == "" {
		return "-"
	}
	return fmt.Sprintf("%s/%d/%d-%d", clip(q.Topic), q.Partition, q.First, q.Last)
}

type quarantineShowCmd struct {
	queryFlags `embed:""`
	Kafka      kafkaFlags `embed:"" group:"kafka"`
	Batch      string     `arg:"" placeholder:"ID" help:"Which batch, as quarantine list shows it."`
	Records    bool       `help:"Show also its records, from Kafka."`
}

// Help is printed by quarantine show --help.
func (*quarantineShowCmd) Help() string {
	return `Shows a quarantined batch, and with --records the records it was made of: those of the session between the batch's offsets. Characters that do not print are replaced; -o json has the bytes as they are. Exits 3 when there is no such batch, or Kafka does not have its records any more.

Example:

    rollcall quarantine show 5f0c1f6e-0d6c-5f0a-8a5e-1f2a3b4c5d6e --records --kafka-brokers kafka:9092`
}

// Validate is called by kong before anything starts.
func (c *quarantineShowCmd) Validate() error {
	return errors.Join(c.queryFlags.Validate(), c.Kafka.validate())
}

// wholeBatch is a batch with its records.
type wholeBatch struct {
	store.QuarantinedBatch
	Records []wholeRecord `json:"records,omitempty"`
}

type wholeRecord struct {
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Time      time.Time `json:"time"`
	Key       string    `json:"key"`
	Headers   []header  `json:"headers"`
	Value     []byte    `json:"value_base64"`
}

// Run shows.
func (c *quarantineShowCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		found, err := db.GetQuarantine(ctx, []string{c.Batch})
		if err != nil {
			return err
		}
		whole := wholeBatch{QuarantinedBatch: found[0]}
		var missing error
		if c.Records {
			missing = c.read(ctx, env, &whole)
		}
		err = c.Output.write(env.Stdout, whole, func(w *tabwriter.Writer) { batch(w, whole.QuarantinedBatch) })
		if err == nil && c.Output != "json" {
			for _, r := range whole.Records {
				if _, err := fmt.Fprintf(env.Stdout, "\nRECORD %d/%d of %s\n", r.Partition, r.Offset, stamp(r.Time)); err != nil {
					return err
				}
				if err := value(env.Stdout, r.Value); err != nil {
					return err
				}
			}
		}
		return errors.Join(missing, err)
	})
}

// read takes the batch's records from Kafka.
func (c *quarantineShowCmd) read(ctx context.Context, env cli.Env, whole *wholeBatch) error {
	log, err := openLog(&c.Kafka, env, c.Timeout)
	if err != nil {
		return err
	}
	defer log.Close()
	err = quarantine.Each(ctx, log, whole.QuarantinedBatch, func(r *kgo.Record) error {
		out := wholeRecord{Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UTC(), Key: string(r.Key), Value: r.Value, Headers: []header{}}
		for _, h := range r.Headers {
			out.Headers = append(out.Headers, header{h.Key, h.Value})
		}
		whole.Records = append(whole.Records, out)
		return nil
	})
	if errors.Is(err, quarantine.ErrGone) {
		return &cli.Error{Code: cli.ExitNotFound, Err: err}
	}
	return err
}

// openLog returns Kafka as package quarantine reads it.
func openLog(flags *kafkaFlags, env cli.Env, patience time.Duration) (*replay.Log, error) {
	return replay.Open(replay.Options{
		Kafka: flags.options("quarantine"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{env.Logger})}, Patience: patience,
	})
}

func batch(w io.Writer, q store.QuarantinedBatch) {
	row(w, "Batch", q.ID)
	row(w, "State", orElse(q.Outcome, "open"))
	if q.Outcome != "" {
		row(w, "", fmt.Sprintf("by %s at %s", orElse(q.ResolvedBy, "-"), stamp(q.ResolvedAt)))
	}
	row(w, "Since", stamp(q.At))
	row(w, "RAE", q.RAE)
	row(w, "Session", q.Session)
	row(w, "Workflow", device.WorkflowID(q.Session))
	row(w, "Records were at", batchAt(q))
	row(w, "Cause", q.Cause)
	for i, line := range strings.Split(q.Detail, "\n") {
		head := "Detail"
		if i > 0 {
			head = ""
		}
		row(w, head, line)
	}
}

// user is who runs the command, as far as the environment tells.
func user() string {
	for _, name := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if u := os.Getenv(name); u != "" {
			return u
		}
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}
