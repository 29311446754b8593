package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type identityCmd struct {
	Conflicts identityConflictsCmd `cmd:"" help:"List pairs of devices that may be one, for a person to decide."`
	Show      identityShowCmd      `cmd:"" help:"Show by what evidence a device was known, and when."`
	Merge     identityMergeCmd     `cmd:"" help:"Decide a conflict: it is one device. Or merge any two devices."`
	KeepApart identityKeepApartCmd `cmd:"" help:"Decide a conflict: they are two devices."`
	Split     identitySplitCmd     `cmd:"" help:"Undo a merge: sessions leave a device for a new one."`
}

// Help is printed by identity --help.
func (*identityCmd) Help() string {
	return `Shows by what evidence devices are told apart, and takes a person's decisions where it contradicts itself. Evidence is strong (ESN; UPnP device name, serial) or weak (DHCP client identifier, MAC); where evidence of one session leads to two known devices, nothing is merged, and a conflict waits here for a person. A session of another RAE that brings evidence of a device whose own session is open does not get it: its claim is contested, and waits until that session lets go, or for a person.

Example:

    rollcall identity conflicts`
}

// byFlag says who decides.
type byFlag struct {
	By string `help:"Who decides. Default: whoever runs the command." placeholder:"NAME"`
}

func (b byFlag) name() string { return orElse(b.By, user()) }

type identityConflictsCmd struct {
	queryFlags `embed:""`
	Device     string `arg:"" optional:"" help:"Only those of this device."`
	All        bool   `help:"List also those that are decided."`
}

// Help is printed by identity conflicts --help.
func (*identityConflictsCmd) Help() string {
	return `Lists conflicts, newest first: the two devices, and the evidence of one session that leads to each. The session belongs to the first. Of a contested claim the second is held by a session of another RAE; the claim is honoured some seconds after that has let go: is closed, is offline for ten minutes, or its RAE is silent for seven hours. UUIDs are shortened, and may be given so; -o json has them whole. Exits 0 also when there is none.

` + refHelp + `

Examples:

    rollcall identity conflicts

    rollcall identity conflicts living-room-tv --all -o json`
}

// Run lists.
func (c *identityConflictsCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		conflicts, err := db.Conflicts(ctx, c.Device, c.All)
		if err != nil {
			return err
		}
		page := struct {
			Conflicts []store.Conflict `json:"conflicts"`
		}{append([]store.Conflict{}, conflicts...)}
		return c.Output.write(env.Stdout, page, func(w *tabwriter.Writer) { conflictRows(w, conflicts) })
	})
}

func conflictRows(w io.Writer, conflicts []store.Conflict) {
	row(w, "CONFLICT", "NOTED", "DEVICE", "KNOWN BY", "OR DEVICE", "KNOWN BY", "DECISION")
	for _, c := range conflicts {
		decision := "open"
		if c.Contested {
			decision = "contested claim, open"
		}
		if c.Decision != "" {
			decision = fmt.Sprintf("%s by %s at %s", c.Decision, c.DecidedBy, stamp(c.DecidedAt))
		}
		row(w, shortID(c.ID), stamp(c.NotedAt), sideText(c.A), evidenceText(c.A), sideText(c.B), evidenceText(c.B), decision)
	}
}

func sideText(s store.Side) string { return strings.TrimSpace(shortID(s.Device) + " " + clip(s.Name)) }

func evidenceText(s store.Side) string {
	return orElse(strings.TrimSpace(s.Kind+" "+clip(s.Value)), "-")
}

// shortID is the beginning of a UUID, enough to name it.
func shortID(id string) string { return id[:min(len(id), 8)] }

type identityShowCmd struct {
	queryFlags `embed:""`
	Device     string `arg:"" help:"Which device."`
}

// Help is printed by identity show --help.
func (*identityShowCmd) Help() string {
	return `Shows the evidence from the device's sessions, newest first: from when (observed) until when, and by which attribute of which session. When a session closes, its evidence ends. Below are the device's conflicts, open and decided. Exits 3 when there is no such device.

` + refHelp + `

Example:

    rollcall identity show living-room-tv`
}

// Run shows.
func (c *identityShowCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		device, spans, err := db.Timeline(ctx, c.Device)
		if err != nil {
			return err
		}
		conflicts, err := db.Conflicts(ctx, device.Device, true)
		if err != nil {
			return err
		}
		out := struct {
			Device     string           `json:"device_id"`
			Name       string           `json:"name,omitempty"`
			Identities []store.Identity `json:"identities"`
			Conflicts  []store.Conflict `json:"conflicts"`
		}{device.Device, device.Name, append([]store.Identity{}, spans...), append([]store.Conflict{}, conflicts...)}
		return c.Output.write(env.Stdout, out, func(w *tabwriter.Writer) {
			row(w, "Device", device.Device)
			row(w, "Name", orElse(clip(device.Name), "-"))
			section(w, identityHeads...)
			for _, i := range spans {
				spanRow(w, i)
			}
			if len(conflicts) > 0 {
				_, _ = fmt.Fprintln(w)
				_ = w.Flush()
				conflictRows(w, conflicts)
			}
		})
	})
}

var identityHeads = []any{"IDENTITY", "VALUE", "FROM", "UNTIL", "ATTRIBUTE", "SESSION"}

func spanRow(w io.Writer, i store.Identity) {
	row(w, i.Kind, clip(i.Value), stamp(i.ValidFrom), orElse(stamp(i.ValidTo), "now"), i.Attribute, i.Session)
}

type identityMergeCmd struct {
	queryFlags `embed:""`
	byFlag     `embed:""`
	tellFlags  `embed:""`
	What       string `arg:"" help:"The conflict; or with INTO, the device that is merged away."`
	Into       string `arg:"" optional:"" help:"The device that stays."`
	Yes        bool   `short:"y" help:"Do not ask."`
}

// Help is printed by identity merge --help.
func (*identityMergeCmd) Help() string {
	return `Merges two devices: sessions, identities and open conflicts of one become the other's. The stricter test state stays (quarantined, then maintenance, then in test; of two leases the one that ends later), and the open sessions are told of it. Of a conflict, the device that has been known for longer stays. To undo a merge, split the device. Exits 3 when there is no such conflict or device.

` + refHelp + `

Examples:

    rollcall identity merge 5f0c1f6e

    rollcall identity merge --yes 9c:b6:d0:00:00:07 living-room-tv --by jana`
}

// Validate is called by kong before anything starts.
func (c *identityMergeCmd) Validate() error {
	return errors.Join(c.queryFlags.Validate(), c.tellFlags.validate())
}

// Run merges.
func (c *identityMergeCmd) Run(ctx context.Context, env cli.Env, who *cli.Terminal) error {
	question := fmt.Sprintf("merge the devices of conflict %q?", clip(c.What))
	if c.Into != "" {
		question = fmt.Sprintf("merge device %q into %q?", clip(c.What), clip(c.Into))
	}
	if err := who.Ask(env, c.Yes, question, ""); err != nil {
		return err
	}
	var open []store.Summary
	err := c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		var m store.Merge
		var err error
		if c.Into == "" {
			m, err = db.MergeConflict(ctx, c.What, c.name())
		} else {
			m, err = db.MergeDevices(ctx, c.What, c.Into, c.name())
		}
		if err != nil {
			return err
		}
		open = openSessions(ctx, env, db, m.Device)
		return c.Output.write(env.Stdout, m, func(w *tabwriter.Writer) {
			row(w, "DEVICE", "MERGED INTO IT", "BY")
			row(w, m.Device, m.Gone, m.By)
		})
	})
	c.tell(ctx, env, open) // the test state may be the other device's now
	return err
}

type identityKeepApartCmd struct {
	queryFlags `embed:""`
	byFlag     `embed:""`
	Conflict   string `arg:"" help:"Which conflict."`
}

// Help is printed by identity keep-apart --help.
func (*identityKeepApartCmd) Help() string {
	return `Decides a conflict: the devices are two. The decision is kept: no later event opens the conflict again. Exits 3 when there is no such conflict.

Example:

    rollcall identity keep-apart 5f0c1f6e --by jana`
}

// Run decides.
func (c *identityKeepApartCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		conflict, err := db.KeepApart(ctx, c.Conflict, c.name())
		if err != nil {
			return err
		}
		return c.Output.write(env.Stdout, conflict, func(w *tabwriter.Writer) { conflictRows(w, []store.Conflict{conflict}) })
	})
}
