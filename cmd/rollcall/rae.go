package main

import (
	"context"
	"errors"
	"text/tabwriter"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type raeCmd struct {
	List  raeListCmd  `cmd:"" help:"List the RAEs that have sent anything, with their labs."`
	Label raeLabelCmd `cmd:"" help:"Put a RAE into a lab."`
}

// Help is printed by rae --help.
func (*raeCmd) Help() string {
	return `Shows RAEs and puts them into labs. A lab is the scope in which evidence identifies: what RAEs of two labs say never leads to one device. A RAE that nobody has labelled is of the lab "default".

Example:

    rollcall rae list`
}

type raeListCmd struct {
	queryFlags `embed:""`
}

// Help is printed by rae list --help.
func (*raeListCmd) Help() string {
	return `Lists the RAEs by serial: the lab, how many sessions are open, and when anything came first and last.

Example:

    rollcall rae list -o json`
}

// Run lists.
func (c *raeListCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		raes, err := db.LabelledRAEs(ctx)
		if err != nil {
			return err
		}
		page := struct {
			RAEs []store.RAE `json:"raes"`
		}{append([]store.RAE{}, raes...)}
		return c.Output.write(env.Stdout, page, func(w *tabwriter.Writer) {
			row(w, "RAE", "LAB", "OPEN SESSIONS", "FIRST SEEN", "LAST HEARD OF")
			for _, r := range raes {
				row(w, r.Serial, r.Lab, r.Open, stamp(r.FirstSeen), orElse(stamp(r.Heard), "-"))
			}
		})
	})
}

type raeLabelCmd struct {
	queryFlags `embed:""`
	RAE        string `arg:"" name:"rae" help:"Its serial."`
	Lab        string `help:"The lab." required:"" placeholder:"NAME"`
}

// Help is printed by rae label --help.
func (*raeLabelCmd) Help() string {
	return `Puts a RAE into a lab. Devices stay as they are. What the RAE's sessions hold leads to their devices in the new lab too, unless it leads to others there already; in the lab that it leaves, evidence that no other RAE there has brought leads nowhere any more. Exits 3 when no such RAE has sent anything.

Example:

    rollcall rae label RAE-0042 --lab annex`
}

// Validate is called by kong before anything starts.
func (c *raeLabelCmd) Validate() error {
	return errors.Join(device.CheckRAE(c.RAE), store.CheckLab(c.Lab), c.queryFlags.Validate())
}

// Run labels.
func (c *raeLabelCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		if err := db.LabelRAE(ctx, c.RAE, c.Lab); err != nil {
			return err
		}
		labelled := struct {
			RAE string `json:"rae"`
			Lab string `json:"lab"`
		}{c.RAE, c.Lab}
		return c.Output.write(env.Stdout, labelled, func(w *tabwriter.Writer) {
			row(w, "RAE", "LAB")
			row(w, c.RAE, c.Lab)
		})
	})
}
