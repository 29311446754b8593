package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/request"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type deviceRequestCmd struct {
	queryFlags    `embed:""`
	Kafka         kafkaFlags    `embed:"" group:"kafka"`
	Device        string        `arg:"" help:"Which device."`
	Wait          time.Duration `help:"Wait so long for the reply. 0: do not wait." default:"10s"`
	Expires       time.Duration `help:"The edge must not do it later than so long from now, at most ${max_command_life}." default:"1m"`
	Reason        string        `help:"Why, for whoever reads the edge's log." placeholder:"TEXT"`
	CommandsTopic string        `help:"Kafka topic of the commands." default:"rollcall.device-commands" env:"ROLLCALL_COMMANDS_TOPIC"`
	RepliesTopic  string        `help:"Kafka topic of the replies." default:"rollcall.device-replies" env:"ROLLCALL_REPLIES_TOPIC"`
}

// Help is printed by device request-snapshot --help.
func (*deviceRequestCmd) Help() string {
	return `Asks the device's RAE to send a snapshot now, and prints the reply. The command goes through Kafka and the bridge to the RAE; a RAE that is away gets it when it comes back, unless it has expired by then.

The reply is "done" with the snapshot's seq, "refused" (too many; ask again later), "expired" (it came too late, by the RAE's clock) or "unknown-session" (the RAE has closed it). Exit code 0 is for "done", and with --wait 0 for a command that Kafka has.

` + refHelp + `

Examples:

    rollcall device request-snapshot 4c:b1:17:20:11:01

    rollcall device request-snapshot living-room-tv --wait 1m --expires 1m -o json`
}

// Validate is called by kong before anything starts.
func (c *deviceRequestCmd) Validate() error {
	if c.Wait < 0 || c.Expires < time.Second || c.Expires > device.MaxCommandLife {
		return fmt.Errorf("--wait must not be less than 0, --expires from 1s to %s", device.MaxCommandLife)
	}
	return errors.Join(c.queryFlags.Validate(), c.Kafka.validate())
}

// requested is what the command prints.
type requested struct {
	Command string         `json:"command"`
	RAE     string         `json:"rae"`
	Session string         `json:"session_id"`
	Expires time.Time      `json:"expires"`
	Outcome device.Outcome `json:"outcome,omitempty"` // empty: no reply was waited for
	Seq     int64          `json:"seq,omitempty"`
	Detail  string         `json:"detail,omitempty"`
	Took    float64        `json:"took_seconds,omitempty"`
}

// Run asks, waits and prints.
func (c *deviceRequestCmd) Run(ctx context.Context, env cli.Env) error {
	var summary store.Summary
	err := c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		d, err := db.GetDevice(ctx, c.Device)
		summary = d.Summary
		return err
	})
	if err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	command := device.Command{
		ID: uuid.NewString(), Source: device.CommandSource("cli"), RAE: summary.RAE, Session: summary.Session,
		Action: device.ActionSnapshot, Time: now, Expires: now.Add(c.Expires), Reason: c.Reason,
	}
	out, err := c.request(ctx, env, command)
	if err != nil {
		return err
	}
	if err := c.Output.write(env.Stdout, out, func(w *tabwriter.Writer) {
		row(w, "COMMAND", "RAE", "SESSION", "OUTCOME", "SEQ", "TOOK", "DETAIL")
		took := time.Duration(out.Took * float64(time.Second)).Round(time.Millisecond)
		row(w, out.Command, out.RAE, out.Session, orElse(string(out.Outcome), "sent"), out.Seq, took, orElse(out.Detail, "-"))
	}); err != nil {
		return err
	}
	if out.Outcome != "" && out.Outcome != device.Done {
		return fmt.Errorf("the RAE did not do it: %s", out.Outcome)
	}
	return nil
}

func (c *deviceRequestCmd) request(ctx context.Context, env cli.Env, command device.Command) (requested, error) {
	out := requested{Command: command.ID, RAE: command.RAE, Session: command.Session, Expires: command.Expires}
	sending, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no answer from Kafka within %s", c.Timeout))
	defer cancel()
	r, err := request.Open(sending, request.Options{
		Kafka: c.Kafka.options("cli"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{env.Logger})},
		CommandsTopic: c.CommandsTopic, RepliesTopic: c.RepliesTopic, Logger: env.Logger,
	})
	if err != nil {
		return out, err
	}
	defer r.Close()
	if c.Wait == 0 {
		return out, r.Send(sending, command)
	}
	waiting, cancel := context.WithTimeoutCause(ctx, c.Wait, fmt.Errorf("none within %s", c.Wait))
	defer cancel()
	start := time.Now()
	reply, err := r.Ask(waiting, command)
	if err != nil {
		return out, err
	}
	out.Outcome, out.Seq, out.Detail, out.Took = reply.Outcome, reply.SnapshotSeq(), reply.Detail, time.Since(start).Seconds()
	return out, nil
}
