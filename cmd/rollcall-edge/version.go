package main

import (
	"fmt"

	"github.com/rollcall-platform/rollcall/internal/cli"
)

type versionCmd struct{}

// Run prints what the Go tool recorded in the binary.
func (versionCmd) Run(env cli.Env) error {
	_, err := fmt.Fprintln(env.Stdout, "rollcall-edge", cli.Version())
	return err
}
