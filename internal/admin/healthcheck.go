package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// HealthcheckCmd is the kong command "healthcheck" of every binary: it asks a
// running command of the same machine or container how it is. Container health
// checks use it, because the images have no shell and no curl.
type HealthcheckCmd struct {
	AdminAddr string        `help:"Address of the command's admin listener." required:"" env:"ROLLCALL_ADMIN_ADDR" placeholder:"HOST:PORT"`
	TokenFile string        `name:"admin-token-file" help:"Show the first token in this file to be told which check fails." env:"ROLLCALL_ADMIN_TOKEN_FILE" placeholder:"FILE"`
	Cert      string        `name:"admin-tls-cert" help:"The listener speaks TLS with this certificate, PEM; no other is trusted." env:"ROLLCALL_ADMIN_TLS_CERT" placeholder:"FILE"`
	Alive     bool          `help:"Ask whether the process is alive (/healthz), not whether it is ready for work (/readyz)."`
	Timeout   time.Duration `help:"Give up after this long." default:"3s"`
}

// Help is printed by healthcheck --help.
func (HealthcheckCmd) Help() string {
	return `Exits 0 when the command is ready and 1 when it is not or does not answer, and then says which check fails. Started with the environment of the command that it asks, as in a container, it needs no flags.

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
	return Client{Addr: c.AdminAddr, TokenFile: c.TokenFile, Cert: c.Cert}.Probe(ctx, path)
}

// Client asks an admin listener.
type Client struct {
	Addr      string // as in Options
	TokenFile string // whose first token is shown; empty: none
	Cert      string // PEM file of the listener's certificate; empty: it speaks no TLS
}

// Probe asks for path. It returns nil for a 200 and else an error with what the
// listener said.
func (c Client) Probe(ctx context.Context, path string) error {
	addr, err := loopback(c.Addr)
	if err != nil {
		return fmt.Errorf("admin address %q: %w", c.Addr, err)
	}
	// An address to listen at on every interface is reached through loopback.
	for _, every := range []string{"0.0.0.0:", "[::]:"} {
		if port, ok := strings.CutPrefix(addr, every); ok {
			addr = "127.0.0.1:" + port
		}
	}
	transport := &http.Transport{DisableKeepAlives: true}
	scheme := "http://"
	if c.Cert != "" {
		scheme = "https://"
		if transport.TLSClientConfig, err = pinned(c.Cert); err != nil {
			return fmt.Errorf("--admin-tls-cert: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+addr+path, nil)
	if err != nil {
		return err
	}
	if c.TokenFile != "" {
		tokens, err := readTokens(c.TokenFile)
		if err != nil {
			return fmt.Errorf("--admin-token-file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+string(tokens[0]))
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
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

// pinned trusts the certificate in a PEM file and no other, whatever name and
// authority it has: it is asked for on the same host.
func pinned(path string) (*tls.Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(c tls.ConnectionState) error {
			if !bytes.Equal(c.PeerCertificates[0].Raw, block.Bytes) {
				return fmt.Errorf("the listener's certificate is not that of %s", path)
			}
			return nil
		},
	}, nil
}
