package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type deviceHistoryCmd struct {
	queryFlags `embed:""`
	Device     string     `arg:"" help:"Which device."`
	Attribute  string     `help:"Only this attribute." placeholder:"NAME"`
	Limit      int        `help:"How many, at most ${max_limit}." default:"${default_limit}"`
	Before     cursor     `help:"Continue before this change, as the page before printed it." placeholder:"SESSION/SEQ/NAME"`
	At         cli.Moment `help:"Show the record as it was then: ${time_forms}." placeholder:"TIME"`
	By         string     `help:"With --at, by which clock: observed (the edge's: what was true) or applied (the database's: what the platform knew)." enum:"observed,applied" default:"observed"`
}

// cursor is a store.Cursor as text.
type cursor struct{ at *store.Cursor }

// UnmarshalText reads SESSION/SEQ/NAME.
func (c *cursor) UnmarshalText(b []byte) error {
	p := strings.SplitN(string(b), "/", 3)
	at := store.Cursor{}
	if len(p) != 3 || device.CheckSession(p[0]) != nil || device.CheckName(p[2]) != nil {
		return errors.New("not of the form SESSION/SEQ/NAME")
	}
	if _, err := fmt.Sscanf(p[1], "%d", &at.Seq); err != nil || fmt.Sprint(at.Seq) != p[1] {
		return errors.New("not of the form SESSION/SEQ/NAME")
	}
	at.Session, at.Name = p[0], p[2]
	c.at = &at
	return nil
}

// Help is printed by device history --help.
func (*deviceHistoryCmd) Help() string {
	return `Shows the values that attributes have had, in all sessions of the device, or in the one that is named. A value that was replaced before it was applied, because the newer one came in the same batch, is not in it. OBSERVED is by the edge's clock, RECEIVED (at the latest) by Kafka's, APPLIED by the database's.

With --at it shows the record as it was at a time: of each attribute the change with the highest seq among those observed by then, however late they came. With --by applied it is what a query would have shown then. Changes are ordered by seq, not by clock: a change that lost against a newer one is not shown. Of a device with several sessions it shows the one that began last. Where retention has deleted changes, the command says since when history is whole; before that, values may be missing but none is wrong.

` + refHelp + ` Exits 3 when there is no such device, or it had no record then.

Examples:

    rollcall device history 4c:b1:17:20:11:01 --attribute network.ipv4

    rollcall device history living-room-tv --at "2h ago"

    rollcall device history "Kitchen display" --at "2026-11-21 09:00:00Z" --by applied`
}

// Validate is called by kong before anything starts.
func (c *deviceHistoryCmd) Validate() error {
	if c.Limit < 1 || c.Limit > store.MaxLimit {
		return fmt.Errorf("--limit must be from 1 to %d", store.MaxLimit)
	}
	if !c.At.Given() && c.By != "observed" {
		return errors.New("--by is for --at")
	}
	if c.At.Given() && c.Before.at != nil {
		return errors.New("--at and --before exclude each other")
	}
	return c.queryFlags.Validate()
}

// Run shows.
func (c *deviceHistoryCmd) Run(ctx context.Context, env cli.Env) error {
	if at := c.At.Last(time.Now()); !at.IsZero() {
		return c.past(ctx, env, at)
	}
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		if err := c.checkAttribute(ctx, db); err != nil {
			return err
		}
		page, err := db.History(ctx, c.Device, store.HistoryFilter{Attribute: c.Attribute, Limit: c.Limit, Before: c.Before.at})
		if err != nil {
			return err
		}
		err = c.Output.write(env.Stdout, page, func(w *tabwriter.Writer) {
			row(w, "OBSERVED", "ATTRIBUTE", "VALUE", "SEQ", "RECEIVED", "APPLIED", "SESSION")
			for _, change := range page.Changes {
				row(w, stamp(change.Attribute.At), change.Name, valueText(change.Attribute), change.Attribute.Seq,
					orElse(stamp(change.ReceivedAt), "-"), stamp(change.AppliedAt), change.Session)
			}
		})
		if err == nil && page.Next != nil && c.Output != "json" {
			_, err = fmt.Fprintf(env.Stderr, "There are more: --before %s/%d/%s\n", page.Next.Session, page.Next.Seq, page.Next.Name)
		}
		return err
	})
}

func (c *deviceHistoryCmd) checkAttribute(ctx context.Context, db *store.Store) error {
	if c.Attribute == "" {
		return nil
	}
	return checkAttribute(ctx, db, "--attribute", c.Attribute)
}

// valueText is a value as tables show it.
func valueText(a device.Attribute) string {
	if a.Removed() {
		return "(removed)"
	}
	return clip(string(a.Value))
}

// past shows the record as it was.
func (c *deviceHistoryCmd) past(ctx context.Context, env cli.Env, at time.Time) error {
	return c.ask(ctx, func(ctx context.Context, db *store.Store) error {
		if err := c.checkAttribute(ctx, db); err != nil {
			return err
		}
		record, err := db.AsOf(ctx, c.Device, at, store.Clock(c.By))
		if err != nil {
			return err
		}
		if c.Attribute != "" {
			record.Changes = slices.DeleteFunc(record.Changes, func(change store.Change) bool { return change.Name != c.Attribute })
			record.Unrecorded = slices.DeleteFunc(record.Unrecorded, func(name string) bool { return name != c.Attribute })
		}
		whole := ""
		if !record.HistoryBegins.IsZero() {
			whole = fmt.Sprintf("history begins at %s: values that were replaced before that are deleted, and missing here", stamp(record.HistoryBegins))
		}
		if len(record.Changes) == 0 {
			what := "no record"
			if c.Attribute != "" {
				what = fmt.Sprintf("no %q", c.Attribute)
			}
			return &cli.Error{Code: cli.ExitNotFound, Err: fmt.Errorf("%q had %s at %s, by what was %s; %s", c.Device, what, stamp(at), c.By, orElse(whole, "history is whole from before then"))}
		}
		if whole != "" {
			env.Logger.Warn("history does not reach back so far: values that were replaced before it begins are deleted, and missing here", "history_begins", stamp(record.HistoryBegins))
		}
		if len(record.Unrecorded) > 0 {
			env.Logger.Warn("written while no history was kept (worker --no-history): what these were is not sure", "attributes", strings.Join(record.Unrecorded, ","))
		}
		return c.Output.write(env.Stdout, record, func(w *tabwriter.Writer) {
			row(w, "Device", record.Device)
			row(w, "Session", record.Session)
			row(w, "RAE", record.RAE)
			row(w, "As of", fmt.Sprintf("%s, by what was %s", stamp(record.At), record.By))
			section(w, "ATTRIBUTE", "VALUE", "SEQ", "OBSERVED", "RECEIVED", "APPLIED")
			for _, change := range record.Changes {
				row(w, change.Name, valueText(change.Attribute), change.Attribute.Seq, stamp(change.Attribute.At), orElse(stamp(change.ReceivedAt), "-"), stamp(change.AppliedAt))
			}
		})
	})
}
