package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

const (
	tv     = "11111111-1111-4111-8111-111111111111"
	server = "22222222-2222-4222-8222-222222222222"
)

// seeded is a database with two devices.
func seeded(t *testing.T) (url string) {
	t.Helper()
	url = postgrestest.New(t)
	_, err := store.Migrate(t.Context(), url, nil)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	defer db.Close()
	at := time.Date(2026, 11, 21, 9, 12, 4, 25e7, time.UTC)
	apply := func(session string, seq int64, attributes map[string]string) {
		u := store.Update{
			RAE: "RAE-1", Session: session, AsOf: seq, Seen: device.SeqSet{{From: 1, To: seq}},
			First: at, Last: at.Add(time.Duration(seq) * time.Minute), Received: at,
			Positions: []device.Position{{Topic: device.KafkaEvents, Next: seq}},
			Events:    1, Records: 1, Write: map[string]device.Attribute{},
		}
		for name, value := range attributes {
			u.Write[name] = device.Attribute{Value: json.RawMessage(value), Seq: seq, At: u.Last}
		}
		require.NoError(t, db.Apply(t.Context(), []store.Update{u}))
	}
	apply(tv, 1, map[string]string{
		"network.mac": `"02:00:00:00:00:01"`, "network.ipv4": `"192.168.77.31"`, "network.hostname": `"living-room-tv"`, "dhcp.hostname": `"Kitchen display"`,
		"lab.shelf": `"7"`, "upnp.model": `"Evil\u001b[2J\tTV"`, "connection.status": `"online"`,
	})
	apply(tv, 2, map[string]string{"network.ipv4": `"192.168.77.32"`})
	apply(server, 1, map[string]string{"network.mac": `"02:00:00:00:00:02"`, "connection.status": `"offline"`})
	return url
}

func TestDevices(t *testing.T) {
	url := seeded(t)
	ask := func(args ...string) (int, string, string) { return run(t, append(args, "--database-url="+url)...) }

	code, stdout, stderr := ask("device", "list")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, stdout, "SESSION ")
	require.Regexp(t, tv+`  02:00:00:00:00:01  192.168.77.32  living-room-tv +Evil�\[2J�TV +online +available +2026-11-21 09:14:04Z  RAE-1`, stdout)
	require.Regexp(t, server+`  02:00:00:00:00:02  - +- +- +offline `, stdout)
	require.NotContains(t, stdout, "\x1b", "a device does not speak to the terminal")

	_, stdout, _ = ask("device", "list", "--status=offline")
	require.NotContains(t, stdout, tv)
	require.Contains(t, stdout, server)
	_, stdout, stderr = ask("device", "list", "--attr=network.hostname=living-room-tv", "-o", "json")
	var page store.Page
	require.NoError(t, json.Unmarshal([]byte(stdout), &page), stderr)
	require.Len(t, page.Devices, 1)
	require.Equal(t, "Evil\x1b[2J\tTV", page.Devices[0].Model, "JSON has it as it is")

	code, stdout, stderr = ask("device", "list", "--limit=1")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `^There are more: --after [0-9a-f-]{36}\n$`, stderr)
	require.NotContains(t, stdout, "There are more", "a program reads stdout")

	for _, ref := range []string{"02:00:00:00:00:01", "living-room-tv", tv, "living", "Kitchen display", "kitchen DISPLAY"} {
		code, stdout, stderr = ask("device", "get", ref)
		require.Equal(t, cli.ExitOK, code, stderr)
		require.Regexp(t, `(?m)^Workflow +device-session-`+tv+`$`, stdout)
		require.Regexp(t, `(?m)^network.ipv4 +"192.168.77.32" +2 +2026-11-21 09:14:04Z$`, stdout)
		require.Regexp(t, `(?m)^Missing +nothing$`, stdout)
	}
	code, _, stderr = ask("device", "get", "toaster")
	require.Equal(t, cli.ExitNotFound, code)
	require.Contains(t, stderr, `begins with "toaster"`)
	code, _, stderr = ask("device", "get", "02:00")
	require.Equal(t, cli.ExitUsage, code)
	require.Regexp(t, `"02:00" names several devices; give the UUID or the MAC of one: [0-9a-f-]{36} MAC "02:00:00:00:00:0[12]" .* RAE "RAE-1"; [0-9a-f-]{36} MAC `, stderr)

	code, stdout, stderr = ask("device", "history", "living-room-tv", "--attribute=network.ipv4")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `(?s)192.168.77.32.*192.168.77.31`, stdout, "newest first")
	_, _, stderr = ask("device", "history", tv, "--limit=2")
	require.Regexp(t, `^There are more: --before `+tv+`/1/[a-z.0-9]+\n$`, stderr)
	before := stderr[len("There are more: ") : len(stderr)-1]
	code, stdout, stderr = ask("device", "history", tv, "--before="+before[len("--before "):])
	require.Equal(t, cli.ExitOK, code, stderr)
	require.NotContains(t, stdout, "192.168.77.32")
}

// Every form of a time that a table or JSON prints, or --help names, is taken,
// and means the row that it was copied from.
func TestRecordOfThePast(t *testing.T) {
	url := seeded(t)
	ask := func(args ...string) (int, string, string) {
		return run(t, append([]string{"device", "history", tv, "--database-url=" + url}, args...)...)
	}
	const first, second = `(?m)^network.ipv4 +"192.168.77.31" `, `(?m)^network.ipv4 +"192.168.77.32" `
	for at, want := range map[string]string{
		"2026-11-21 09:13:04Z": first, "2026-11-21 09:14:03Z": first, "2026-11-21 09:14:04Z": second, // as the table has it
		"2026-11-21T09:13:04.25Z": first, "2026-11-21T09:14:04.25Z": second, "2026-11-21T10:14:04.25+01:00": second, // as JSON has it
		"2026-11-22": second, "1s": second, "1s ago": second,
	} {
		code, stdout, stderr := ask("--at=" + at)
		require.Equal(t, cli.ExitOK, code, "%s: %s", at, stderr)
		require.Regexp(t, want, stdout, at)
	}
	for _, at := range []string{"2026-11-21", "2026-11-21 09:13:03Z", "36500d ago"} {
		code, _, stderr := ask("--at=" + at)
		require.Equal(t, cli.ExitNotFound, code, at)
		require.Contains(t, stderr, `" had no record at `, at)
	}
}

func TestTestStates(t *testing.T) {
	url := seeded(t)
	ask := func(args ...string) (int, string, string) { return run(t, append(args, "--database-url="+url)...) }
	set := func(args ...string) (int, string, string) {
		return ask(append(append([]string{"device"}, args...), "--no-tell")...)
	}
	code, stdout, stderr := set("reserve", "living-room-tv", "--holder=jana", "--for=2h", "--reason=smoke")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `in_test +jana +2\d{3}-\S+ \S+Z +smoke`, stdout)
	code, _, stderr = set("reserve", "living-room-tv", "--holder=karl", "--for=2h")
	require.Equal(t, cli.ExitFailed, code)
	require.Regexp(t, `^rollcall: reserve: device [0-9a-f-]{36} is held by "jana" until 2\S+Z \("smoke"\): rollcall device list --available has others; its holder can renew it\n$`, stderr)
	_, stdout, _ = ask("device", "list", "--available")
	require.NotContains(t, stdout, tv)
	_, stdout, _ = ask("device", "list")
	require.Regexp(t, tv+`.* online +in_test \(jana\) `, stdout)
	_, stdout, _ = ask("device", "get", tv)
	require.Regexp(t, `(?m)^Test state +in_test \(jana\)\n +by jana since \S+ \S+Z until \S+ \S+Z: smoke$`, stdout)
	require.Regexp(t, `(?m)^02:00:00:00:00:01 +192.168.77.32 +- +living-room-tv `, stdout, "its interface")
	code, stdout, stderr = set("renew", tv, "--holder=jana", "--for=3h", "-o", "json")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, stdout, `"lease_until"`)
	code, stdout, stderr = set("release", tv, "--holder=jana")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, stdout, "available")
	_, stdout, _ = ask("device", "list", "--available")
	require.Contains(t, stdout, tv)
	code, stdout, stderr = set("set-state", tv, "maintenance", "--by=ops")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `maintenance +ops +- +-`, stdout)
	code, _, _ = set("reserve", "toaster", "--for=1h")
	require.Equal(t, cli.ExitNotFound, code)
}

func TestIdentities(t *testing.T) {
	url := seeded(t)
	ask := func(args ...string) (int, string, string) { return run(t, append(args, "--database-url="+url)...) }
	db, err := store.Open(t.Context(), store.Options{URL: url})
	require.NoError(t, err)
	defer db.Close()
	bring := func(session string, seq int64, esn, serial string) {
		at := time.Date(2026, 11, 21, 10, 0, int(seq), 0, time.UTC)
		u := store.Update{RAE: "RAE-1", Session: session, AsOf: seq, Seen: device.SeqSet{{From: 1, To: seq}}, Last: at, Write: map[string]device.Attribute{}}
		for name, v := range map[string]string{"netflix.esn": esn, "device.serial": serial} {
			if v != "" {
				u.Write[name] = device.Attribute{Value: json.RawMessage(v), Seq: seq, At: at}
			}
		}
		require.NoError(t, db.Apply(t.Context(), []store.Update{u}))
	}
	bring(tv, 3, `"NF-0001"`, "")
	bring(tv, 4, `"NF-0002"`, "")
	bring(server, 3, "", `"SN-000001"`)
	bring(server, 4, "", `"SN-000002"`)
	bring(server, 5, `"NF-0002"`, "")

	code, stdout, stderr := ask("identity", "show", "living-room-tv")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `(?m)^esn +NF-0002 +2026-11-21 10:00:04Z +now +netflix.esn +`+tv+`$`, stdout)
	require.Regexp(t, `(?m)^esn +NF-0001 +2026-11-21 10:00:03Z +2026-11-21 10:00:04Z +netflix.esn `, stdout)
	code, stdout, stderr = ask("identity", "conflicts", "-o", "json")
	require.Equal(t, cli.ExitOK, code, stderr)
	var page struct{ Conflicts []store.Conflict }
	require.NoError(t, json.Unmarshal([]byte(stdout), &page))
	require.Len(t, page.Conflicts, 1)
	id := page.Conflicts[0].ID
	_, stdout, _ = ask("identity", "conflicts")
	require.Regexp(t, `(?m)^`+id[:8]+`  \S+ \S+Z  [0-9a-f]{8} +serial SN-000002  [0-9a-f]{8} living-room-tv  esn NF-0002  open$`, stdout)

	code, stdout, stderr = ask("identity", "keep-apart", id[:8], "--by=jana")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, stdout, "kept-apart by jana at ")
	_, stdout, _ = ask("identity", "conflicts")
	require.NotContains(t, stdout, id[:8])
	code, stdout, stderr = ask("identity", "merge", server, "living-room-tv", "--by=karl", "--yes", "--temporal-address=127.0.0.1:1")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, stdout, "karl")
	for _, session := range []string{tv, server} {
		require.Contains(t, stderr, "session "+session+" was not told", "of the test state that may be another one now")
	}
	_, stdout, _ = ask("identity", "conflicts", "--all")
	require.Contains(t, stdout, "merged by karl at ")
	code, _, stderr = ask("identity", "merge", id, "--no-tell", "--yes")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "decided before: merged by karl")
	code, _, _ = ask("identity", "merge", "00000000", "--no-tell", "--yes")
	require.Equal(t, cli.ExitNotFound, code)
}

func TestMigrate(t *testing.T) {
	url := postgrestest.New(t)
	code, stdout, stderr := run(t, "device", "list", "--database-url="+url)
	require.Equal(t, cli.ExitFailed, code, stdout)
	require.Contains(t, stderr, "rollcall migrate")

	_, stdout, stderr = run(t, "migrate", "status", "--database-url="+url)
	require.Contains(t, stdout, "pending", stderr)
	code, stdout, stderr = run(t, "migrate", "up", "--database-url="+url)
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, stdout, "steps applied; the database is up to date")
	_, stdout, _ = run(t, "migrate", "up", "--database-url="+url)
	require.Equal(t, "0 steps applied; the database is up to date\n", stdout)
	_, stdout, _ = run(t, "migrate", "status", "--database-url="+url)
	require.NotContains(t, stdout, "pending")
}

func TestMigrateSaysWhatItWaitsFor(t *testing.T) {
	var out output
	a := app()
	a.Stdout, a.Stderr = &out, &out
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan int, 1)
	go func() {
		done <- a.Run(ctx, []string{"migrate", "up", "--wait=1h", "--database-url=postgres://u:hunter2@127.0.0.1:1/d"})
	}()
	require.Eventually(t, func() bool {
		return strings.Contains(out.String(), `msg="waiting for a dependency" dependency=database`)
	}, patience, 10*time.Millisecond)
	require.Contains(t, out.String(), `do="start the database, or set ROLLCALL_DATABASE_URL"`)
	cancel()
	within(t, done)
	require.NotContains(t, out.String(), "hunter2")
}

func TestMigrateGivesUpWaiting(t *testing.T) {
	code, _, stderr := run(t, "migrate", "up", "--wait=1s", "--database-url=postgres://u:hunter2@127.0.0.1:1/d")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "rollcall: gave up after 1s; database at postgres://u:xxxxx@127.0.0.1:1/d: ")
	require.NotContains(t, stderr, "hunter2")
}
