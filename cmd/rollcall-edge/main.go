// Command rollcall-edge is the Local Registry: it runs on a Reference
// Automation Environment, recognises the devices on its LAN and publishes every
// change to the cloud.
package main

import (
	"github.com/alecthomas/kong"

	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/cli"
)

// grammar is the command line. Each command is in the file of its name.
type grammar struct {
	cli.Flags

	Run         runCmd               `cmd:"" help:"Recognise devices on a LAN, or in a capture of one, and publish what changes."`
	Devices     devicesCmd           `cmd:"" help:"List the devices that this edge has a record of."`
	Events      eventsCmd            `cmd:"" help:"Show the events that wait for the broker."`
	Forget      forgetCmd            `cmd:"" help:"Close a device's session and forget it."`
	Healthcheck admin.HealthcheckCmd `cmd:"" help:"Exit 0 if a running edge is ready."`
	Version     versionCmd           `cmd:"" help:"Print the version."`
}

const description = `Keeps the record of the devices on the LAN side of a RAE, and publishes every change over MQTT.

It reads DHCP, ARP, IPv6 neighbour discovery, SSDP and mDNS. One file in the data directory holds the records and the events that the broker has not acknowledged yet. It survives kill -9 and loss of power.

A setting comes from its flag, else its environment variable, else the YAML file of --config, else its default.`

func app() cli.App {
	return cli.App{
		Name: "rollcall-edge", Description: description, Grammar: &grammar{},
		Options: []kong.Option{kong.ExplicitGroups([]kong.Group{
			{Key: "source", Title: "What to read:"},
			{Key: "mqtt", Title: "MQTT:"},
			{Key: "record", Title: "Records:"},
		}), kong.Bind(cli.Stdin())},
	}
}

func main() { cli.Main(app()) }
