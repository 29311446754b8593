package main

import (
	"fmt"

	"github.com/rollcall-platform/rollcall/internal/cli"
)

type versionCmd struct{}

// Help is printed by version --help.
func (versionCmd) Help() string {
	return `Prints the name of the binary and its version, as --version does.

Example:

    rollcall version`
}

// Run prints what the Go tool recorded in the binary.
func (versionCmd) Run(env cli.Env) error {
	_, err := fmt.Fprintln(env.Stdout, "rollcall", cli.Version())
	return err
}
