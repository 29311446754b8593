package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// output is what a service writes while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// A service whose database is away does not crash: it is alive, not ready, says
// what it waits for, where, and what to do, and stops when it is told to.
func TestServiceWaits(t *testing.T) {
	for _, command := range []string{"worker", "poller"} {
		t.Run(command, func(t *testing.T) {
			var out output
			a := app()
			a.Stdout, a.Stderr = &out, &out
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			addr := porttest.Addr(t)
			done := make(chan int, 1)
			go func() {
				done <- a.Run(ctx, []string{command, "--admin-addr=" + addr, "--database-url=postgres://u:hunter2@127.0.0.1:1/d"})
			}()
			require.Eventually(t, func() bool { return strings.Contains(out.String(), "waiting for a dependency") }, patience, 10*time.Millisecond)
			require.NoError(t, admin.Client{Addr: addr}.Probe(t.Context(), "/healthz"))
			require.ErrorContains(t, admin.Client{Addr: addr}.Probe(t.Context(), "/readyz"), "waiting for database at postgres://u:xxxxx@127.0.0.1:1/d")
			require.ErrorContains(t, (&admin.HealthcheckCmd{AdminAddr: addr, Timeout: patience}).Run(t.Context()), "503")
			cancel()
			require.Equal(t, cli.ExitOK, within(t, done), out.String())
			require.Contains(t, out.String(), "rollcall migrate up")
			require.Contains(t, out.String(), "msg=stopped")
			require.NotContains(t, out.String(), "hunter2")
		})
	}
}

// What the poller asks the database for is answered while there is one with the
// tables, and not else.
func TestPollerAsksForPositions(t *testing.T) {
	url := postgrestest.New(t)
	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	defer db.Close()
	require.Error(t, readPositions(t.Context(), db), "no tables")
	_, err = store.Migrate(t.Context(), url, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, readPositions(t.Context(), db))
}

func TestTakenAdminPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	code, _, stderr := run(t, "worker", "--database-url=postgres://u@127.0.0.1:1/d", "--admin-addr="+l.Addr().String())
	require.Equal(t, cli.ExitFailed, code)
	require.Equal(t, "rollcall: admin listener at "+l.Addr().String()+": bind: address already in use; set --admin-addr to another address\n", stderr)
}
