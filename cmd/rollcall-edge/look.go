package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

var discard = slog.New(slog.DiscardHandler)

type devicesCmd struct {
	dataFlags
	Output string `short:"o" help:"Print a ${enum}." default:"table" enum:"table,json"`
}

// Help is printed by devices --help.
func (*devicesCmd) Help() string {
	return `While an edge runs on the data directory, it is asked through its control socket; bbolt lets no second process read its file. Otherwise the file is read.

Examples:

    rollcall-edge devices

    rollcall-edge devices --data-dir edge-data -o json | jq '.[].attributes["network.ipv4"].value'`
}

// Run lists the devices.
func (c *devicesCmd) Run(ctx context.Context, env cli.Env) error {
	devices := []registry.Device{}
	err := edge.Control(ctx, c.DataDir, http.MethodGet, "/devices", &devices)
	if errors.Is(err, edge.ErrNotRunning) {
		var content registry.Contents
		if content, err = registry.Inspect(c.file(), 0); err == nil {
			devices = append(devices, content.Devices...)
		}
	}
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(env.Stdout, devices)
	}
	t := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	row(t, "MAC", "STATUS", "IPV4", "NAME", "SEQ", "SEEN", "SESSION")
	for _, d := range devices {
		row(t, d.MAC, d.Status, text(d, discovery.AttrIPv4), text(d, discovery.AttrHostname, discovery.AttrMDNSName, discovery.AttrSSDPServer),
			fmt.Sprint(d.Seq), d.Last.UTC().Format("2006-01-02 15:04:05Z"), d.Session)
	}
	return t.Flush()
}

func (f dataFlags) file() string { return filepath.Join(f.DataDir, edge.DatabaseFile) }

// text is the first of names that the device has, as text.
func text(d registry.Device, names ...string) string {
	for _, name := range names {
		if a, ok := d.Attributes[name]; ok {
			var s string
			if json.Unmarshal(a.Value, &s) == nil {
				return s
			}
			return string(a.Value)
		}
	}
	return "-"
}

type eventsCmd struct {
	dataFlags
	Most   int    `short:"n" help:"Show the oldest so many." default:"20"`
	Output string `short:"o" help:"Print a ${enum}." default:"table" enum:"table,json"`
}

// Help is printed by events --help.
func (*eventsCmd) Help() string {
	return `Shows the oldest events of the outbox, without taking them out. An edge with a broker has none for long.

Example:

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
		return printJSON(env.Stdout, events)
	}
	t := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	row(t, "KEY", "TIME", "TYPE", "SEQ", "SESSION", "ATTRIBUTES")
	for _, entry := range p.Events {
		e, err := device.DecodeRecord(entry.Topic, entry.Payload)
		if err != nil {
			return err
		}
		row(t, fmt.Sprint(entry.Key), e.Time.Format(time.RFC3339), string(e.Type), fmt.Sprint(e.Seq), e.Session, fmt.Sprint(len(e.Attributes)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "%d of %d events, %d bytes in all\n", len(p.Events), p.Pending, p.Bytes)
	return err
}

type forgetCmd struct {
	dataFlags
	MAC    string `arg:"" help:"MAC address of the device, as devices prints it."`
	Reason string `help:"Why, for the closed event." default:"forgotten by an operator"`
}

// Help is printed by forget --help.
func (*forgetCmd) Help() string {
	return `Writes a closed event and removes the record. A device that is met again opens a new session.

Example:

    rollcall-edge forget 4c:b1:17:20:11:01 --reason "returned to the lab"`
}

// Run forgets the device.
func (c *forgetCmd) Run(ctx context.Context, env cli.Env) error {
	mac := strings.ToLower(c.MAC)
	err := edge.Control(ctx, c.DataDir, http.MethodPost, "/devices/"+url.PathEscape(mac)+"/forget?reason="+url.QueryEscape(c.Reason), &struct{}{})
	if errors.Is(err, edge.ErrNotRunning) {
		err = c.offline(ctx, mac)
	}
	if errors.Is(err, registry.ErrUnknownDevice) {
		return cli.NotFoundf("no device %s; rollcall-edge devices lists them", mac)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "forgotten: %s\n", mac)
	return err
}

// offline forgets the device in the file of an edge that does not run.
func (c *forgetCmd) offline(ctx context.Context, mac string) error {
	content, err := registry.Inspect(c.file(), 0)
	if err != nil {
		return err
	}
	r, err := registry.Open(registry.Options{Path: c.file(), RAE: content.RAE, Logger: discard})
	if err != nil {
		return err
	}
	return errors.Join(r.Forget(ctx, mac, c.Reason), r.Close())
}

type versionCmd struct{}

// Run prints what the Go tool recorded in the binary.
func (versionCmd) Run(env cli.Env) error {
	_, err := fmt.Fprintln(env.Stdout, "rollcall-edge", cli.Version())
	return err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// row writes cells. What they hold came from devices: a terminal must not be
// told anything by it, nor the table lose its shape.
func row(w *tabwriter.Writer, cells ...string) {
	for i, cell := range cells {
		cells[i] = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return '\uFFFD'
			}
			return r
		}, cell)
	}
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
}
