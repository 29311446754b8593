package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/store"
)

type migrateCmd struct {
	Up     migrateUpCmd     `cmd:"" help:"Create the tables, or bring them up to date."`
	Status migrateStatusCmd `cmd:"" help:"Show which steps the database has."`
}

// Help is printed by migrate --help.
func (*migrateCmd) Help() string {
	return `Creates the database's tables and brings them up to date. Services wait until that is done.

Example:

    rollcall migrate up --database-url postgres://rollcall@db/rollcall`
}

// migrateFlags are what both subcommands take.
type migrateFlags struct {
	Database databaseFlags `embed:"" group:"database"`
	Wait     time.Duration `help:"Wait this long for the database to take a connection." default:"30s" env:"ROLLCALL_MIGRATE_WAIT"`
}

// Validate is called by kong before anything starts.
func (c *migrateFlags) Validate() error {
	if c.Wait < 0 {
		return errors.New("--wait must not be negative")
	}
	return c.Database.validate()
}

// reach returns the URL of the database when it answers.
func (c *migrateFlags) reach(ctx context.Context, env cli.Env) (cli.URL, error) {
	url, err := c.Database.url()
	if err != nil {
		return cli.URL{}, err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, max(c.Wait, time.Second), fmt.Errorf("gave up after %s", c.Wait))
	defer cancel()
	return url, await(waiting, env.Logger, dependency{
		name: "database", where: url.String(), try: connect(url),
		hint: "start the database, or set ROLLCALL_DATABASE_URL",
	})
}

type migrateUpCmd struct {
	migrateFlags `embed:""`
}

// Help is printed by migrate up --help.
func (*migrateUpCmd) Help() string {
	return `Runs the steps that the database lacks, in order, each in a transaction where the database can. It may be run at any time and by several at once: one does the work, the others wait for it. Run it before a new release's services start.

Example:

    rollcall migrate up --database-url postgres://rollcall@db/rollcall --wait 2m`
}

// Run migrates.
func (c *migrateUpCmd) Run(ctx context.Context, env cli.Env) error {
	url, err := c.reach(ctx, env)
	if err != nil {
		return err
	}
	n, err := store.Migrate(ctx, url.Reveal(), env.Logger)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "%d steps applied; the database is up to date\n", n)
	return err
}

type migrateStatusCmd struct {
	migrateFlags `embed:""`
	Output       outputFlag `short:"o" help:"Print ${enum}." enum:"table,json" default:"table"`
}

// Help is printed by migrate status --help.
func (*migrateStatusCmd) Help() string {
	return `Lists the steps and when each was applied. Changes no table of the devices.

Example:

    rollcall migrate status --database-url postgres://rollcall@db/rollcall`
}

// Run lists the steps.
func (c *migrateStatusCmd) Run(ctx context.Context, env cli.Env) error {
	url, err := c.reach(ctx, env)
	if err != nil {
		return err
	}
	steps, err := store.MigrationStatus(ctx, url.Reveal())
	if err != nil {
		return err
	}
	return c.Output.write(env.Stdout, steps, func(w *tabwriter.Writer) {
		row(w, "VERSION", "STEP", "APPLIED")
		for _, step := range steps {
			row(w, step.Version, step.Name, orElse(stamp(step.AppliedAt), "pending"))
		}
	})
}
