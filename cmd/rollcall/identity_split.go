package main

import (
	"context"
	"errors"
	"strings"
	"text/tabwriter"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type identitySplitCmd struct {
	queryFlags `embed:""`
	byFlag     `embed:""`
	tellFlags  `embed:""`
	Device     string   `arg:"" help:"Which device."`
	Session    []string `help:"A session that leaves it, or the beginning of its UUID. May be repeated." placeholder:"UUID"`
	Evidence   []string `help:"The sessions that have ever held this evidence leave it, and it leads to the new device. May be repeated." placeholder:"KIND=VALUE" sep:"none"`
}

// Help is printed by identity split --help.
func (*identitySplitCmd) Help() string {
	return `Undoes a merge, whether evidence or a person made it: sessions leave the device for a new one, with their timeline and history. Evidence that a session which stays has held too stays, unless it is named. Both devices have the test state that the one had: nobody knows whose it was. The split is remembered: no evidence merges the two again, but "identity merge" may. The kinds of evidence are esn, udn, serial, client and mac, as "identity show" prints them. Exits 3 when there is no such device, session or evidence.

` + refHelp + `

Examples:

    rollcall identity split living-room-tv --session 7d6bd6a0

    rollcall identity split living-room-tv --evidence mac=9c:b6:d0:00:00:07 --by jana`
}

// Validate is called by kong before anything starts.
func (c *identitySplitCmd) Validate() error {
	if len(c.Session)+len(c.Evidence) == 0 {
		return errors.New("say which sessions leave the device: --session or --evidence")
	}
	return errors.Join(c.queryFlags.Validate(), c.tellFlags.validate())
}

// Run splits.
func (c *identitySplitCmd) Run(ctx context.Context, env cli.Env) error {
	var open []store.Summary
	err := c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		split, err := db.SplitDevice(ctx, c.Device, store.SplitBy{Sessions: c.Session, Evidence: c.Evidence}, c.name())
		if err != nil {
			return err
		}
		open = openSessions(ctx, env, db, split.New)
		return c.Output.write(env.Stdout, split, func(w *tabwriter.Writer) {
			row(w, "DEVICE", "NEW DEVICE", "SESSIONS THAT WENT", "BY")
			row(w, split.Device, split.New, strings.Join(split.Sessions, " "), split.By)
		})
	})
	c.tell(ctx, env, open) // their device, and its test state, are others now
	return err
}
