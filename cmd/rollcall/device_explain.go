package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type deviceExplainCmd struct {
	queryFlags   `embed:""`
	waitingFlags `embed:""`
	Device       string `arg:"" help:"Which device, or session."`
	Attribute    string `arg:"" optional:"" help:"Only this attribute."`
}

// Help is printed by device explain --help.
func (*deviceExplainCmd) Help() string {
	return `Says of each value which event set it (its CloudEvents id), when that was observed (by the edge's clock), received (by Kafka's, at the latest) and applied (by the database's), and whether it came as that event or only in a snapshot that listed it, as far as the tables prove either: "-" is not known. Then it counts what became of all events: those that were not needed (duplicate, stale), refused (after the close, over the limit) or quarantined, and which were missing and how each gap ended.

` + refHelp + ` With a session's, that session is explained. Exits 3 when there is none.

Examples:

    rollcall device explain living-room-tv

    rollcall device explain 4c:b1:17:20:11:01 network.ipv4 -o json`
}

// Validate is called by kong before anything starts.
func (c *deviceExplainCmd) Validate() error {
	return errors.Join(c.queryFlags.Validate(), c.waitingFlags.check())
}

// Run explains.
func (c *deviceExplainCmd) Run(ctx context.Context, env cli.Env) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		if c.Attribute != "" {
			if err := checkAttribute(ctx, db, "ATTRIBUTE", c.Attribute); err != nil {
				return err
			}
		}
		e, err := db.Explain(ctx, c.Device, c.Attribute)
		if err != nil {
			return err
		}
		out := struct {
			store.Explanation
			Waiting *waiting `json:"waiting,omitempty"`
		}{e, c.askWaiting(ctx, env, e.Session)}
		return c.Output.write(env.Stdout, out, func(w *tabwriter.Writer) { explanation(w, e, out.Waiting) })
	})
}

func explanation(w *tabwriter.Writer, e store.Explanation, waiting *waiting) {
	row(w, "Session", e.Session)
	row(w, "Device", e.Device)
	row(w, "RAE", e.RAE)
	row(w, "Applied", fmt.Sprintf("up to seq %d, at %s; newest snapshot at seq %d", e.AsOf, stamp(e.AppliedAt), e.Snapshot))
	row(w, "Waiting", waiting.text())
	section(w, "ATTRIBUTE", "VALUE", "SET BY EVENT", "CAME AS", "OBSERVED", "RECEIVED BY", "APPLIED")
	for _, a := range e.Attributes {
		row(w, a.Name, valueText(a.Attribute), a.Event, orElse(a.Carrier, "-"), stamp(a.Attribute.At), orElse(stamp(a.ReceivedAt), "-"), stamp(a.AppliedAt))
	}
	section(w, "OF ITS EVENTS", "COUNT", "")
	n := e.Counters
	row(w, "applied", n.Events, fmt.Sprintf("in %d records", n.Records))
	row(w, "duplicate", n.Duplicates, "had been applied before")
	row(w, "after the close", n.AfterClose, "refused: a closed session is final")
	row(w, "missing", e.Missing.Len(), orElse(ranges(e.Missing), "nothing"))
	section(w, "OF THEIR ATTRIBUTES", "COUNT", "")
	row(w, "stale", n.Stale, "lost against a newer seq")
	row(w, "over the limit", n.OverLimit, "refused: the state would not fit one event")
	row(w, "repaired", n.Repaired, "a snapshot had to correct them")
	section(w, "QUARANTINED", "COUNT", "")
	row(w, "batches", e.Quarantined.Batches, fmt.Sprintf("%d not resolved; rollcall quarantine list --session %s", e.Quarantined.Unresolved, e.Session))
	section(w, "GAPS", "COUNT", "")
	for _, by := range []struct{ name, means string }{
		{"open", "still missing"}, {"events", "ended by events that came late"}, {"snapshot", "ended by a snapshot"}, {"narrowed", "became smaller ones"},
	} {
		row(w, by.name, e.Gaps[by.name], by.means)
	}
}
