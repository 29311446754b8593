// Command rollcall is the cloud side of the platform: every service of the data
// path and the commands that look into it, in one binary.
package main

import (
	"strconv"

	"github.com/alecthomas/kong"

	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workers/bridge"
)

// grammar is the command line. Each command is in the file of its name.
//
// When adding a subcommand: a field here, or in the command above it (deviceCmd
// in device.go); its struct with Help, Validate and Run in a file of its own,
// which holds flags and output alone: the logic is in a package; what it refuses
// in TestRefusals. go test ./cmd/rollcall -update writes the golden file of its
// help, which must hold an example.
type grammar struct {
	cli.Flags

	Bridge  bridgeCmd  `cmd:"" group:"services" help:"Carry events from the MQTT broker to Kafka."`
	Poller  pollerCmd  `cmd:"" group:"services" help:"Carry events from Kafka to the sessions' workflows."`
	Worker  workerCmd  `cmd:"" group:"services" help:"Run the sessions' workflows, which write the database."`
	Migrate migrateCmd `cmd:"" group:"operation" help:"Create or upgrade the database's tables."`

	DLQ        dlqCmd        `cmd:"" name:"dlq" group:"operation" help:"Look at dead letters; replay or drop them."`
	Quarantine quarantineCmd `cmd:"" group:"operation" help:"Look at batches that sessions could not apply; replay or drop them."`
	Retention  retentionCmd  `cmd:"" group:"services" help:"Delete rows that have been kept long enough."`
	Deployment deploymentCmd `cmd:"" group:"operation" help:"Show the workers' versions, and roll to a new one."`

	Healthcheck admin.HealthcheckCmd `cmd:"" group:"operation" help:"Ask a running service whether it is ready."`
	Device      deviceCmd            `cmd:"" group:"look" help:"Find devices, read their history, reserve them, send them commands."`
	Session     sessionCmd           `cmd:"" group:"look" help:"Ask what a session's workflow is doing, drain it or close it."`
	Verify      verifyCmd            `cmd:"" group:"look" help:"Compare sessions at the edge, in their workflows and in the database."`
	Identity    identityCmd          `cmd:"" group:"look" help:"Show what devices are known by, and decide conflicts."`
	RAE         raeCmd               `cmd:"" name:"rae" group:"look" help:"List RAEs, and put them into labs."`
	Attributes  attributesCmd        `cmd:"" group:"look" help:"List the attributes that the platform knows."`
	Version     versionCmd           `cmd:"" name:"version" group:"look" help:"Print the version."`
}

const description = `Keeps a true, current record of every device that is plugged into any Reference Automation Environment of a fleet.

A setting comes from its flag, else its environment variable, else the YAML file of --config, else its default. Exit codes: 0 done, 1 failed, 2 called wrongly, 3 not found.`

var groups = []kong.Group{
	{Key: "services", Title: "Services:"},
	{Key: "operation", Title: "Operation:"},
	{Key: "look", Title: "Devices and sessions:"},
	{Key: "mqtt", Title: "MQTT:"},
	{Key: "kafka", Title: "Kafka:"},
	{Key: "temporal", Title: "Temporal:", Description: "The Temporal CLI's other variables are read too: TEMPORAL_API_KEY, TEMPORAL_TLS, TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_TLS_CLIENT_KEY_PATH, TEMPORAL_TLS_SERVER_CA_CERT_PATH, …"},
	{Key: "database", Title: "Database:"},
}

func app() cli.App {
	return cli.App{
		Name: "rollcall", Description: description, Grammar: &grammar{},
		Options: []kong.Option{
			kong.ExplicitGroups(groups),
			kong.Vars{"default_limit": strconv.Itoa(store.DefaultLimit), "max_limit": strconv.Itoa(store.MaxLimit), "max_letters": strconv.Itoa(maxLetters), "commands_group": bridge.DefaultGroup, "max_command_life": device.MaxCommandLife.String(), "time_forms": cli.TimeForms},
			kong.Bind(cli.Stdin()),
		},
	}
}

func main() { cli.Main(app()) }
