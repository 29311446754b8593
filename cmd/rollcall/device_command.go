package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/request"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// commandFlags are what every command to a device's RAE takes.
type commandFlags struct {
	queryFlags   `embed:""`
	requestFlags `embed:""`
	Device       string        `arg:"" help:"Which device."`
	Wait         time.Duration `help:"Wait this long for the reply. 0: do not wait." default:"10s"`
	Expires      time.Duration `help:"The command expires after this long, at most ${max_command_life}; then the RAE does not do it. Default: the action's deadline."`
	Reason       string        `help:"Why, for whoever reads the RAE's log." placeholder:"TEXT"`
}

// check is Validate, for who embeds commandFlags.
func (c *commandFlags) check() error {
	if c.Wait < 0 || c.Expires != 0 && (c.Expires < time.Second || c.Expires > device.MaxCommandLife) {
		return fmt.Errorf("--wait must not be less than 0, --expires from 1s to %s", device.MaxCommandLife)
	}
	return errors.Join(c.queryFlags.Validate(), c.Kafka.validate())
}

const (
	commandHelp = `The command goes through Kafka and the bridge to the RAE. A RAE that is away gets it when it comes back, unless it has expired by then.

The outcome is "done" with a result, "refused" (too many: ask again later), "expired" (it came too late, by the RAE's clock), "unknown-session" (the RAE has closed it) or "unsupported" (the RAE's version does not know the action). Exits 0 for "done", and with --wait 0 when Kafka has the command; 1 for another outcome and when no reply came in time; 3 when there is no such device.`

	deviceCommandHelp = `Sends a command to the RAE of a device, about its current session or the one that is named, and prints the reply. ARGUMENTS are a JSON object; they are checked before anything is sent.

` + commandHelp

	requestSnapshotHelp = `Asks the RAE of a device to send a snapshot of its session now, and prints the reply with the snapshot's seq. It is the short form of rollcall device command DEVICE snapshot.

` + commandHelp
)

type deviceCommandCmd struct {
	commandFlags `embed:""`
	Action       device.Action `arg:"" help:"What the RAE is to do: one of the actions above."`
	Arguments    string        `arg:"" optional:"" placeholder:"JSON" help:"The action's arguments."`
}

// Help is printed by device command --help.
func (*deviceCommandCmd) Help() string {
	return deviceCommandHelp + "\n\n" + refHelp + "\n\nActions:\n\n" + actionsText(device.Actions) + `
Examples:

    rollcall device command living-room-tv ping '{"text":"hello"}'

    rollcall device command "Kitchen display" snapshot --wait 1m -o json`
}

// actionsText lists actions with their arguments and results.
func actionsText(actions []device.ActionSpec) string {
	var b strings.Builder
	for _, a := range actions {
		fmt.Fprintf(&b, "    %s: %s (deadline %s)\n", a.Name, a.About, a.Deadline)
		for _, part := range []struct {
			name   string
			fields []device.Field
		}{{"argument", a.Arguments}, {"result", a.Result}} {
			for _, f := range part.fields {
				optional := ", optional"
				if f.Required {
					optional = ""
				}
				fmt.Fprintf(&b, "      %-8s  %s (%s%s): %s\n", part.name, f.Name, f.Type, optional, f.About)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Validate is called by kong before anything starts.
func (c *deviceCommandCmd) Validate() error {
	spec, ok := device.SpecOfAction(c.Action)
	if !ok {
		var known []string
		for _, a := range device.Actions {
			known = append(known, string(a.Name))
		}
		return cli.CheckOneOf("ACTION", string(c.Action), known)
	}
	if err := spec.CheckArguments(json.RawMessage(c.Arguments)); err != nil {
		return fmt.Errorf("%s: %w", c.Action, err)
	}
	return c.check()
}

// Run sends, waits and prints.
func (c *deviceCommandCmd) Run(ctx context.Context, env cli.Env) error {
	return c.send(ctx, env, c.Action, json.RawMessage(c.Arguments))
}

type deviceRequestSnapshotCmd struct {
	commandFlags `embed:""`
}

// Help is printed by device request-snapshot --help.
func (*deviceRequestSnapshotCmd) Help() string {
	return requestSnapshotHelp + "\n\n" + refHelp + `

Examples:

    rollcall device request-snapshot 4c:b1:17:20:11:01

    rollcall device request-snapshot living-room-tv --wait 1m --expires 1m -o json`
}

// Validate is called by kong before anything starts.
func (c *deviceRequestSnapshotCmd) Validate() error { return c.check() }

// Run sends, waits and prints.
func (c *deviceRequestSnapshotCmd) Run(ctx context.Context, env cli.Env) error {
	return c.send(ctx, env, device.ActionSnapshot, nil)
}

// sentCommand is what the command prints.
type sentCommand struct {
	Command string          `json:"command"`
	Action  device.Action   `json:"action"`
	RAE     string          `json:"rae"`
	Session string          `json:"session_id"`
	Expires time.Time       `json:"expires"`
	Outcome device.Outcome  `json:"outcome,omitempty"` // empty: no reply was waited for
	Result  json.RawMessage `json:"result,omitempty"`
	Detail  string          `json:"detail,omitempty"`
	Took    float64         `json:"took_seconds,omitempty"`
}

// send sends one command, waits for the reply and prints it.
func (c *commandFlags) send(ctx context.Context, env cli.Env, action device.Action, arguments json.RawMessage) error {
	var to store.Summary
	err := c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		d, err := db.GetDevice(ctx, c.Device)
		to = d.Summary
		return err
	})
	if err != nil {
		return err
	}
	command, err := request.NewCommand("cli", to.RAE, to.Session, action, arguments, time.Now(), c.Expires)
	if err != nil {
		return err
	}
	command.Reason = c.Reason
	out, err := c.exchange(ctx, env, command)
	if err != nil {
		return err
	}
	if err := c.Output.write(env.Stdout, out, func(w *tabwriter.Writer) { sentCommandRows(w, out) }); err != nil {
		return err
	}
	if out.Outcome != "" && out.Outcome != device.Done {
		return fmt.Errorf("the RAE did not do it: outcome %s, detail %q", out.Outcome, out.Detail)
	}
	return nil
}

func sentCommandRows(w *tabwriter.Writer, s sentCommand) {
	row(w, "COMMAND", "ACTION", "RAE", "SESSION", "OUTCOME", "RESULT", "TOOK", "DETAIL")
	took := time.Duration(s.Took * float64(time.Second)).Round(time.Millisecond)
	row(w, s.Command, s.Action, s.RAE, s.Session, cmp.Or(string(s.Outcome), "sent"), cmp.Or(clip(string(s.Result)), "-"), took, cmp.Or(s.Detail, "-"))
}

// exchange sends the command and waits for the reply, if it is to.
func (c *commandFlags) exchange(ctx context.Context, env cli.Env, command device.Command) (sentCommand, error) {
	out := sentCommand{Command: command.ID, Action: command.Action, RAE: command.RAE, Session: command.Session, Expires: command.Expires}
	sending, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no answer from Kafka within %s", c.Timeout))
	defer cancel()
	r, err := c.requester(sending, env)
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
	out.Outcome, out.Result, out.Detail, out.Took = reply.Outcome, reply.Result, reply.Detail, time.Since(start).Seconds()
	return out, nil
}
