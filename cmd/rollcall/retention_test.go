package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

func TestRetentionOnce(t *testing.T) {
	url := seeded(t)
	exec := func(sql string) {
		c, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		defer func() { _ = c.Close(t.Context()) }()
		_, err = c.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	exec(`UPDATE attribute_change SET applied_at = now() - INTERVAL '40 days'`)
	code, stdout, stderr := run(t, "retention", "--once", "--yes", "-o", "json", "--database-url="+url)
	require.Equal(t, cli.ExitOK, code, stderr)
	var gone store.Expired
	require.NoError(t, json.Unmarshal([]byte(stdout), &gone))
	require.Zero(t, gone["attribute_change"], "90 days are kept")
	code, stdout, stderr = run(t, "retention", "--once", "--yes", "--history=30d", "--database-url="+url)
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `(?m)^attribute_change +1$`, stdout, "the address that was replaced")

	code, stdout, stderr = run(t, "device", "history", tv, "--at=60d", "--by=applied", "--database-url="+url)
	require.Equal(t, cli.ExitNotFound, code, stdout)
	require.Contains(t, stderr, "history begins at 2")
}

func TestRetentionService(t *testing.T) {
	url := seeded(t)
	var out output
	a := app()
	a.Stdout, a.Stderr = &out, &out
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addr := porttest.Addr(t)
	done := make(chan int, 1)
	go func() { done <- a.Run(ctx, []string{"retention", "--admin-addr=" + addr, "--database-url=" + url}) }()
	require.Eventually(t, func() bool {
		return strings.Contains(out.String(), "deleted old rows") && admin.Client{Addr: addr}.Probe(t.Context(), "/readyz") == nil
	}, patience, 10*time.Millisecond)
	resp, err := http.Get("http://" + addr + "/metrics")
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Contains(t, string(b), `rollcall_retention_passes_total{outcome="ok"} 1`)
	cancel()
	require.Equal(t, cli.ExitOK, within(t, done), out.String())
}

func TestDeviceAtATime(t *testing.T) {
	url := seeded(t)
	ask := func(args ...string) (int, string, string) { return run(t, append(args, "--database-url="+url)...) }
	code, stdout, stderr := ask("device", "history", "living-room-tv", "--at=2026-11-21T09:13:30Z")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `(?m)^As of +2026-11-21 09:13:30Z, by what was observed$`, stdout)
	require.Regexp(t, `(?m)^network.ipv4 +"192.168.77.31" +1 +2026-11-21 09:13:04Z +2026-11-21 09:12:04Z +20`, stdout)
	require.NotContains(t, stdout, "192.168.77.32")
	code, stdout, stderr = ask("device", "history", "living-room-tv", "--at=1s ago", "--by=applied", "--attribute=network.ipv4", "-o", "json")
	if code == cli.ExitOK { // the seed is a second old
		require.Contains(t, stdout, "192.168.77.32", stderr)
	}
	code, _, stderr = ask("device", "history", "living-room-tv", "--at=2020-01-01")
	require.Equal(t, cli.ExitNotFound, code)
	require.Contains(t, stderr, `"living-room-tv" had no record at 2020-01-01 00:00:00Z, by what was observed; history is whole from before then`)
}

func TestDeviceExplain(t *testing.T) {
	url := seeded(t)
	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Apply(t.Context(), []store.Update{{
		RAE: "RAE-1", Session: tv, Stale: 3, Duplicates: 4, AfterClose: 5, Positions: []device.Position{{Topic: device.KafkaEvents, Next: 9}},
		Quarantined: []store.Quarantined{{Topic: device.KafkaEvents, Cause: "database", At: time.Now()}},
	}}))
	code, stdout, stderr := run(t, "device", "explain", "living-room-tv", "--database-url="+url)
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `(?m)^network.ipv4 +"192.168.77.32" +`+tv+`/2 +event +2026-11-21 09:14:04Z +2026-11-21 09:12:04Z +20`, stdout)
	for _, want := range []string{`applied +2 +in 2 records`, `duplicate +4 `, `after the close +5 `, `stale +3 `, `batches +1 +1 not resolved; rollcall quarantine list --session ` + tv, `open +0 `} {
		require.Regexp(t, `(?m)^`+want, stdout)
	}
	require.NotContains(t, stdout, "\x1b")
	code, stdout, stderr = run(t, "device", "explain", tv, "network.ipv4", "-o", "json", "--database-url="+url)
	require.Equal(t, cli.ExitOK, code, stderr)
	var e store.Explanation
	require.NoError(t, json.Unmarshal([]byte(stdout), &e))
	require.Len(t, e.Attributes, 1)
	require.Equal(t, tv+"/2", e.Attributes[0].Event)
	code, _, stderr = run(t, "device", "explain", tv, "no.such", "--database-url="+url)
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, stderr, `"no.such"`)
}
