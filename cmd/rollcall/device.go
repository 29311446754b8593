package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type deviceCmd struct {
	List    deviceListCmd    `cmd:"" help:"List devices."`
	Get     deviceGetCmd     `cmd:"" help:"Show all that is known of one device."`
	History deviceHistoryCmd `cmd:"" help:"Show what changed on one device, newest first."`

	Explain deviceExplainCmd `cmd:"" help:"Show which event set each value of a device, and what was refused."`

	Reserve  deviceReserveCmd  `cmd:"" help:"Reserve an available device until its lease ends."`
	Renew    deviceRenewCmd    `cmd:"" help:"Change when the lease of a reserved device ends."`
	Release  deviceReleaseCmd  `cmd:"" help:"Make a reserved device available before its lease ends."`
	SetState deviceSetStateCmd `cmd:"" help:"Put a device in quarantine or maintenance, or make it available."`

	Command         deviceCommandCmd         `cmd:"" help:"Send a command to a device's RAE, and wait for its reply."`
	RequestSnapshot deviceRequestSnapshotCmd `cmd:"" help:"Ask a device's RAE for a snapshot now, and wait for its reply."`
}

// Help is printed by device --help.
func (*deviceCmd) Help() string {
	return `Finds devices, shows what is known of one and how it came to be, reserves them, and sends commands to their RAEs.

` + refHelp + `

Examples:

    rollcall device list --status online

    rollcall device get "Kitchen display"`
}

// queryFlags are what every look into the database takes.
type queryFlags struct {
	Database databaseFlags `embed:"" group:"database"`
	Output   outputFlag    `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
	Timeout  time.Duration `help:"Give up after this long." default:"15s"`
}

// Validate is called by kong before anything starts.
func (q *queryFlags) Validate() error {
	if q.Timeout <= 0 {
		return errors.New("--timeout must be more than 0")
	}
	return q.Database.validate()
}

// bound limits one question to --timeout.
func (q *queryFlags) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, q.Timeout, fmt.Errorf("no answer within %s", q.Timeout))
}

// ask opens the store for one question.
func (q *queryFlags) ask(ctx context.Context, question func(context.Context, *store.Store) error) error {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	return q.work(ctx, question)
}

// work opens the store without a limit on how long the work may take.
func (q *queryFlags) work(ctx context.Context, question func(context.Context, *store.Store) error) error {
	opening, cancel := q.bound(ctx)
	db, err := q.Database.open(opening, nil)
	cancel()
	if err != nil {
		return err
	}
	defer db.Close()
	err = question(ctx, db)
	var ambiguous *store.AmbiguousError
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &cli.Error{Code: cli.ExitNotFound, Err: err}
	case errors.As(err, &ambiguous):
		return &cli.Error{Code: cli.ExitUsage, Err: err}
	}
	return err
}

const refHelp = `DEVICE is the UUID of a device or a session, a MAC, any of the device's names (such as device list shows, in upper or lower case; quote one that has a space: "Kitchen display"), or the beginning of one of these, three characters at least. Where it names several devices they are listed, with what tells them apart.`

type deviceListCmd struct {
	queryFlags   `embed:""`
	waitingFlags `embed:""`
	RAE          string            `help:"Only those on the RAE with this serial." placeholder:"SERIAL"`
	Status       string            `help:"Only those with this connection status: online, offline, or closed." placeholder:"STATUS"`
	Text         string            `help:"Only those with this text in a name or model, in upper or lower case." placeholder:"TEXT"`
	Attr         map[string]string `help:"Only those with this value of an attribute, or with it among its values. May be repeated: then all must match. rollcall attributes lists the names." placeholder:"NAME=VALUE"`
	Available    bool              `help:"Only those that are online and whose test state is available."`
	Limit        int               `help:"How many, at most ${max_limit}." default:"${default_limit}"`
	After        string            `help:"Continue after this device, as the page before printed it." placeholder:"DEVICE"`
}

// Help is printed by device list --help.
func (*deviceListCmd) Help() string {
	return `Lists devices, each by its current session: the open one, or the one seen last. The session's UUID is in the workflow's name, device-session-UUID.

Examples:

    rollcall device list --status online

    rollcall device list --available --attr device.model=NovaBox

    rollcall device list --text tv --rae demo-lan

    rollcall device list -o json | jq -r '.devices[].mac'`
}

// Validate is called by kong before anything starts.
func (c *deviceListCmd) Validate() error {
	if c.Limit < 1 || c.Limit > store.MaxLimit {
		return fmt.Errorf("--limit must be from 1 to %d", store.MaxLimit)
	}
	if c.Status != "" {
		if err := cli.CheckOneOf("--status", c.Status, []string{device.Online, device.Offline, store.StatusClosed}); err != nil {
			return err
		}
	}
	if c.Available && c.Status != "" && c.Status != device.Online {
		return fmt.Errorf("--available and --status=%s exclude each other: what is available is online", c.Status)
	}
	for name, value := range sorted(c.Attr) {
		if err := checkFilterValue(name, value); err != nil {
			return err
		}
	}
	return errors.Join(checkRAE(c.RAE), c.queryFlags.Validate(), c.waitingFlags.check())
}

// Run lists.
func (c *deviceListCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		for name := range sorted(c.Attr) {
			if err := checkAttribute(ctx, db, "--attr", name); err != nil {
				return err
			}
		}
		if err := hintRAE(ctx, env, db, c.RAE); err != nil {
			return err
		}
		page, err := db.ListDevices(ctx, store.Filter{
			RAE: c.RAE, Status: c.Status, Text: c.Text, Attributes: c.Attr, Available: c.Available, Limit: c.Limit, After: c.After,
		})
		if err != nil {
			return err
		}
		out := struct {
			store.Page
			Waiting *waiting `json:"waiting,omitempty"`
		}{page, c.askWaiting(ctx, env, "")}
		if err := c.Output.write(env.Stdout, out, func(w *tabwriter.Writer) { summaries(w, page.Devices) }); err != nil {
			return err
		}
		if text := out.Waiting.text(); out.Waiting != nil && text != "nothing" && c.Output != "json" {
			warn(env, "the list may be older than it seems: %s", text)
		}
		if page.Next != "" && c.Output != "json" {
			_, err = fmt.Fprintf(env.Stderr, "There are more: --after %s\n", page.Next)
		}
		return err
	})
}

func summaries(w io.Writer, devices []store.Summary) {
	row(w, "SESSION", "MAC", "ADDRESS", "NAME", "MODEL", "STATUS", "TEST", "LAST SEEN", "RAE")
	for _, d := range devices {
		row(w, d.Session, orElse(d.MAC, "-"), orElse(d.IPv4, "-"), orElse(clip(d.Name), "-"), orElse(clip(d.Model), "-"),
			orElse(d.Status, "-"), testStateText(d.Test), orElse(stamp(d.LastObserved), "-"), d.RAE)
	}
}

type deviceGetCmd struct {
	queryFlags   `embed:""`
	waitingFlags `embed:""`
	Device       string `arg:"" help:"Which device."`
}

// Validate is called by kong before anything starts.
func (c *deviceGetCmd) Validate() error {
	return errors.Join(c.queryFlags.Validate(), c.waitingFlags.check())
}

// Help is printed by device get --help.
func (*deviceGetCmd) Help() string {
	return `Shows a device's current session: its attributes with the event that last set each, how far it has come, what is missing, what waits in Kafka and Temporal and is not applied, and the evidence of its identity.

` + refHelp + ` With a session's, that session is shown. Exits 3 when there is none, 2 when there are several.

Examples:

    rollcall device get 4c:b1:17:20:11:01

    rollcall device get living-room-tv -o json | jq .attributes`
}

// Run shows.
func (c *deviceGetCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		d, err := db.GetDevice(ctx, c.Device)
		if err != nil {
			return err
		}
		out := struct {
			store.Device
			Waiting *waiting `json:"waiting,omitempty"`
		}{d, c.askWaiting(ctx, env, d.Session)}
		return c.Output.write(env.Stdout, out, func(w *tabwriter.Writer) { details(w, d, out.Waiting) })
	})
}

func details(w *tabwriter.Writer, d store.Device, waiting *waiting) {
	row(w, "Device", d.Device)
	row(w, "Session", d.Session)
	row(w, "Workflow", device.WorkflowID(d.Session))
	row(w, "RAE", d.RAE+", last heard of "+orElse(stamp(d.RAEReceivedAt), "-"))
	row(w, "Status", statusText(d))
	if d.Reason != "" {
		row(w, "Closed because", d.Reason)
	}
	row(w, "Test state", testStateText(d.Test))
	if d.Test.State != store.StateAvailable {
		row(w, "", fmt.Sprintf("by %s since %s%s%s", d.Test.Holder, stamp(d.Test.Since), prefixed(" until ", stamp(d.Test.LeaseUntil)), prefixed(": ", clip(d.Test.Reason))))
	}
	for _, c := range d.Claims {
		text := fmt.Sprintf("by RAE %s, which shows it as device %s", c.RAE, c.Device)
		if c.Mine {
			text = fmt.Sprintf("of this device to %s, which a session of another RAE holds", c.Device)
		}
		row(w, "Contested claim", fmt.Sprintf("%s, by %s %s since %s", text, c.Kind, clip(c.Value), stamp(c.NotedAt)))
	}
	row(w, "Seen", fmt.Sprintf("%s to %s", orElse(stamp(d.FirstObserved), "-"), orElse(stamp(d.LastObserved), "-")))
	row(w, "Changed", orElse(stamp(d.ChangedAt), "-"))
	row(w, "Confirmed", orElse(prefixed("by a snapshot at ", stamp(d.ConfirmedAt)), "-"))
	row(w, "Applied", fmt.Sprintf("up to seq %d, at %s; newest snapshot at seq %d", d.AsOf, stamp(d.AppliedAt), d.Snapshot))
	row(w, "Missing", missingText(d))
	row(w, "Waiting", waiting.text())
	row(w, "Events", fmt.Sprintf("%d in %d records; %d duplicates, %d after the close, %d attributes repaired, %d over the limit, reopened %d times",
		d.Counters.Events, d.Counters.Records, d.Counters.Duplicates, d.Counters.AfterClose, d.Counters.Repaired, d.Counters.OverLimit, d.Counters.Reopened))
	section(w, "ATTRIBUTE", "VALUE", "SEQ", "OBSERVED")
	for name, a := range sorted(d.Attributes) {
		row(w, name, clip(string(a.Value)), a.Seq, stamp(a.At))
	}
	if len(d.Identities) > 0 {
		section(w, identityHeads...)
		for _, i := range d.Identities {
			spanRow(w, i)
		}
	}
	if len(d.Interfaces) > 0 {
		section(w, "INTERFACE", "ADDRESS", "IPV6", "HOST NAME", "SINCE", "CHANGED", "SESSION")
		for _, n := range d.Interfaces {
			mac := n.MAC
			if n.MACLocal {
				mac += " (local)"
			}
			row(w, orElse(mac, "-"), orElse(n.IPv4, "-"), orElse(strings.Join(n.IPv6, " "), "-"), orElse(clip(n.Hostname), "-"),
				stamp(n.FirstSeen), stamp(n.ChangedAt), n.Session)
		}
	}
	if len(d.Gaps) > 0 {
		section(w, "GAP", "OPENED", "ENDED", "BY")
		for _, g := range d.Gaps {
			row(w, ranges(device.SeqSet{g.Range}), stamp(g.OpenedAt), orElse(stamp(g.EndedAt), "still missing"), orElse(g.EndedBy, "-"))
		}
	}
	if len(d.Sessions) > 1 {
		_, _ = fmt.Fprintln(w)
		summaries(w, d.Sessions)
	}
}
