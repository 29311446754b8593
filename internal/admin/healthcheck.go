package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// HealthcheckCmd is the kong command "healthcheck" of every binary: it asks a
// running command of the same machine or container how it is. Container health
// checks use it, because the images have no shell and no curl.
type HealthcheckCmd struct {
	AdminAddr string        `help:"Address of the command's admin listener." required:"" env:"ROLLCALL_ADMIN_ADDR" placeholder:"HOST:PORT"`
	Alive     bool          `help:"Ask whether the process is alive (/healthz), not whether it is ready for work (/readyz)."`
	Timeout   time.Duration `help:"Give up after this long." default:"3s"`
}

// Help is printed by healthcheck --help.
func (HealthcheckCmd) Help() string {
	return `Exits 0 when the command is ready and 1 when it is not or does not answer, and then says which check fails.

Example:

    rollcall healthcheck --admin-addr 127.0.0.1:9402`
}

// Run asks once.
func (c *HealthcheckCmd) Run(ctx context.Context) error {
	path := "/readyz"
	if c.Alive {
		path = "/healthz"
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return Probe(ctx, c.AdminAddr, path)
}

// Probe asks the listener at addr for path. It returns nil for a 200 and else
// an error with what the listener said.
func Probe(ctx context.Context, addr, path string) error {
	addr, err := loopback(addr)
	if err != nil {
		return fmt.Errorf("admin address %q: %w", addr, err)
	}
	// An address to listen at on every interface is reached through loopback.
	for _, every := range []string{"0.0.0.0:", "[::]:"} {
		if port, ok := strings.CutPrefix(addr, every); ok {
			addr = "127.0.0.1:" + port
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return errors.Join(fmt.Errorf("%s says %s: %s", path, res.Status, strings.Join(strings.Fields(string(body)), " ")), err)
}
