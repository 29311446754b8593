package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

type eventsCmd struct {
	dataFlags
	Most   int    `short:"n" help:"Show this many, the oldest first." placeholder:"COUNT" default:"20"`
	Output string `short:"o" help:"Print a ${enum}." default:"table" enum:"table,json"`
}

// Help is printed by events --help.
func (*eventsCmd) Help() string {
	return `Shows the oldest events of the outbox and leaves them there. While the broker is reachable, an event waits for milliseconds only.

Examples:

    rollcall-edge events

    rollcall-edge events -n 5 -o json`
}

// Run shows events.
func (c *eventsCmd) Run(ctx context.Context, env cli.Env) error {
	var p edge.Peek
	err := edge.Control(ctx, c.DataDir, http.MethodGet, fmt.Sprintf("/events?most=%d", c.Most), &p)
	if errors.Is(err, edge.ErrNotRunning) {
		var content registry.Contents
		if content, err = registry.Inspect(c.file(), c.Most); err == nil {
			p = edge.Peek{Pending: content.Pending, Bytes: content.Bytes, Events: content.Events}
		}
	}
	if err != nil {
		return err
	}
	if c.Output == "json" {
		events := make([]json.RawMessage, len(p.Events))
		for i, e := range p.Events {
			events[i] = e.Payload
		}
		return cli.WriteJSON(env.Stdout, events)
	}
	t := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	cli.WriteRow(t, "KEY", "TIME", "TYPE", "SEQ", "SESSION", "ATTRIBUTES")
	for _, entry := range p.Events {
		e, err := device.DecodeRecord(entry.Topic, entry.Payload)
		if err != nil {
			return err
		}
		cli.WriteRow(t, fmt.Sprint(entry.Key), e.Time.Format(time.RFC3339), string(e.Type), fmt.Sprint(e.Seq), e.Session, fmt.Sprint(len(e.Attributes)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "%d of %d events, %d bytes in all\n", len(p.Events), p.Pending, p.Bytes)
	return err
}
