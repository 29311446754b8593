package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/cli"
)

type forgetCmd struct {
	dataFlags
	MAC    string `arg:"" help:"MAC address of the device, as devices prints it."`
	Reason string `help:"Why, for the closed event." default:"forgotten by an operator"`
	Yes    bool   `short:"y" help:"Do not ask."`
}

// Help is printed by forget --help.
func (*forgetCmd) Help() string {
	return `Closes the device's session with an event and removes its record. If the device is seen again, it opens a new session. It asks first; without a terminal it wants --yes.

Example:

    rollcall-edge forget 4c:b1:17:20:11:01 --reason "returned to the lab"`
}

// Run closes the session of the device.
func (c *forgetCmd) Run(ctx context.Context, env cli.Env, who *cli.Terminal) error {
	mac := strings.ToLower(c.MAC)
	if err := who.Ask(env, c.Yes, fmt.Sprintf("close the session of device %q for good?", mac), ""); err != nil {
		return err
	}
	err := edge.Control(ctx, c.DataDir, http.MethodPost, "/devices/"+url.PathEscape(mac)+"/forget?reason="+url.QueryEscape(c.Reason), &struct{}{})
	if errors.Is(err, edge.ErrNotRunning) {
		err = c.forgetInFile(ctx, mac)
	}
	if errors.Is(err, registry.ErrUnknownDevice) {
		return cli.NotFoundf("no device %q; rollcall-edge devices lists them", mac)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "forgotten: %s\n", mac)
	return err
}

// forgetInFile forgets the device in the file of an edge that does not run.
func (c *forgetCmd) forgetInFile(ctx context.Context, mac string) error {
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
