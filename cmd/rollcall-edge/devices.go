package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"text/tabwriter"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

type devicesCmd struct {
	dataFlags
	Output string `short:"o" help:"Print a ${enum}." default:"table" enum:"table,json"`
}

// Help is printed by devices --help.
func (*devicesCmd) Help() string {
	return `Lists every device in the registry, with its status and the seq of its newest event.

While an edge runs on the data directory, the command asks it through its control socket. Otherwise the command reads the registry's file.

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
		return cli.WriteJSON(env.Stdout, devices)
	}
	t := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	cli.WriteRow(t, "MAC", "STATUS", "IPV4", "NAME", "SEQ", "SEEN", "SESSION")
	for _, d := range devices {
		cli.WriteRow(t, d.MAC, d.Status, text(d, device.AttrIPv4), text(d, device.AttrHostname, device.AttrMDNSName, device.AttrSSDPServer),
			fmt.Sprint(d.Seq), d.Last.UTC().Format("2006-01-02 15:04:05Z"), d.Session)
	}
	return t.Flush()
}

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
