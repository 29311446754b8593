package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cli"
)

// A filter that nothing can match is a usage error that names the nearest.
func TestFiltersThatNothingMatches(t *testing.T) {
	url := seeded(t)
	for _, c := range []struct {
		args []string
		want string // in the error
	}{
		{[]string{"device", "list", "--status=onlin"}, `--status: "onlin" is none of online, offline, closed; did you mean "online"?`},
		{[]string{"device", "list", "--status=ONLINE"}, `did you mean "online"?`},
		{[]string{"device", "list", "--status="}, ""},
		{[]string{"device", "list", "--attr=nosuch=x"}, `--attr: no device has an attribute "nosuch"; rollcall attributes lists`},
		{[]string{"device", "list", "--attr=network.ipv=x"}, `no device has an attribute "network.ipv"; did you mean "network.ipv4"?`},
		{[]string{"device", "list", "--attr=connection.status=onlin"}, `--attr connection.status: "onlin" is none of online, offline; did you mean "online"?`},
		{[]string{"device", "list", "--attr=network.ipv4=tv"}, `"tv" is no value of network.ipv4, which is of type ipv4`},
		{[]string{"device", "list", "--attr=network.mac_local=yes"}, `"yes" is no value of network.mac_local, which is of type bool`},
		{[]string{"device", "list", "--attr=network.ipv6=fe80"}, `"fe80" is no value of network.ipv6, which is of type ipv6s`},
		{[]string{"device", "list", "--attr=network.ipv6=fe80::1"}, ""},
		{[]string{"device", "list", "--attr=network.mac_local=true"}, ""},
		{[]string{"device", "list", "--attr=lab.shelf=7"}, ""}, // a row has it
		{[]string{"device", "list", "--rae=not/a/serial"}, `--rae: `},
		{[]string{"device", "list", "--available", "--status=offline"}, `--available and --status=offline exclude each other`},
		{[]string{"device", "history", tv, "--attribute=network.ipv"}, `did you mean "network.ipv4"?`},
		{[]string{"device", "history", tv, "--at=1s", "--attribute=nosuch"}, `no device has an attribute "nosuch"`},
		{[]string{"device", "explain", tv, "network.ipv"}, `did you mean "network.ipv4"?`},
		{[]string{"device", "command", tv, "pin"}, `"pin" is none of `},
		{[]string{"device", "set-state", tv, "quarantine"}, `must be one of`},
		{[]string{"quarantine", "list", "--cause=databse"}, `--cause: "databse" is none of payload, version, invalid, foreign, database; did you mean "database"?`},
		{[]string{"quarantine", "drop", "--cause=databse"}, `did you mean "database"?`},
		{[]string{"quarantine", "list", "--rae=not/a/serial"}, `--rae: `},
		{[]string{"verify", "--rae=not/a/serial"}, `--rae: `},
		{[]string{"dlq", "list", "--reason=bad-sequence"}, `did you mean "bad-seq"?`},
		{[]string{"dlq", "drop", "--reason=notjson"}, `did you mean "not-json"?`},
		{[]string{"dlq", "list", "--session=tv"}, `--session: `},
		{[]string{"dlq", "replay", "--rae=not/a/serial"}, `--rae: `},
	} {
		args := c.args
		if args[0] != "dlq" {
			args = append(args, "--database-url="+url)
		}
		code, stdout, stderr := run(t, args...)
		if c.want == "" {
			require.Equal(t, cli.ExitOK, code, "%s: %s", args, stderr)
			continue
		}
		require.Equal(t, cli.ExitUsage, code, "%s: %s", args, stderr)
		require.Contains(t, stderr, c.want, args)
		require.Empty(t, stdout)
	}

	code, _, stderr := run(t, "device", "list", "--rae=RAE-01", "--database-url="+url)
	require.Equal(t, cli.ExitOK, code, "it may be new")
	require.Equal(t, "rollcall: warning: nothing has ever come from a RAE \"RAE-01\"; did you mean \"RAE-1\"?\n", stderr)
}

// What ends something for good asks first, and does nothing without a yes.
func TestWhatEndsSomethingAsks(t *testing.T) {
	url := seeded(t)
	for _, args := range [][]string{
		{"session", "close", tv, "--reason=x", "--temporal-address=127.0.0.1:1"},
		{"identity", "merge", tv, server, "--no-tell"},
		{"retention", "--once"},
	} {
		ask := func(in string, person bool) (int, string) {
			var out, errs bytes.Buffer
			a := app()
			a.Stdout, a.Stderr = &out, &errs
			a.Options = append(a.Options, kong.Bind(&cli.Terminal{In: strings.NewReader(in), Person: person}))
			code := a.Run(t.Context(), append(args, "--database-url="+url))
			require.Empty(t, out.String(), "nothing is done")
			return code, errs.String()
		}
		code, stderr := ask("y\n", false)
		require.Equal(t, cli.ExitUsage, code, "%s: %s", args, stderr)
		require.Contains(t, stderr, "? nobody is there to confirm it: give --yes")
		for _, no := range []string{"n\n", "\n", "", "yeah\n"} {
			code, stderr = ask(no, true)
			require.Equal(t, cli.ExitFailed, code)
			require.Regexp(t, `\? \[y/N\] rollcall: not confirmed: nothing was done\n$`, stderr)
		}
	}
	code, _, stderr := run(t, "device", "get", tv, "--database-url="+url)
	require.Equal(t, cli.ExitOK, code, stderr)
	code, stdout, stderr := run(t, "identity", "merge", "--yes", tv, server, "--no-tell", "--database-url="+url)
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, stdout, "MERGED INTO IT")
}

// Only what a person can use is reserved without a word.
func TestReservingWhatIsNotOnline(t *testing.T) {
	url := seeded(t)
	reserve := func(device string, args ...string) (int, string) {
		code, _, stderr := run(t, append([]string{"device", "reserve", device, "--holder=jana", "--for=1h", "--no-tell", "--database-url=" + url}, args...)...)
		return code, stderr
	}
	code, stderr := reserve(server)
	require.Equal(t, cli.ExitFailed, code)
	require.Regexp(t, `^rollcall: reserve: device [0-9a-f-]{36} is not online but offline on RAE "RAE-1": --offline reserves it all the same; rollcall device list --available has others\n$`, stderr)
	code, stderr = reserve(server, "--offline")
	require.Equal(t, cli.ExitOK, code, stderr)
	execute(t, url, `UPDATE device_session SET closed_seq = as_of_seq, close_reason = 'gone' WHERE session_id = $1`, tv)
	for _, args := range [][]string{{}, {"--offline"}} {
		code, stderr = reserve("living-room-tv", args...)
		require.Equal(t, cli.ExitFailed, code)
		require.Regexp(t, `has no open session: the last, on RAE "RAE-1", was closed \("gone"\); rollcall device list --available has others\n$`, stderr)
	}
	_, stdout, _ := run(t, "device", "get", "living-room-tv", "--database-url="+url)
	require.Regexp(t, `(?m)^Test state +available$`, stdout)
}

func execute(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = c.Close(t.Context()) }()
	_, err = c.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// get and explain are two views of one record.
func TestExplainSaysWhatGetSays(t *testing.T) {
	url := seeded(t)
	_, _, stderr := run(t, "device", "reserve", tv, "--holder=jana", "--for=1h", "--no-tell", "--database-url="+url)
	require.Empty(t, stderr)
	for _, ref := range []string{tv, server, "living-room-tv"} {
		requireSameAnswers(t, url, ref)
	}
}

// requireSameAnswers compares every field that both commands print.
func requireSameAnswers(t *testing.T, url, ref string) {
	t.Helper()
	answer := func(command string) (out map[string]json.RawMessage) {
		code, stdout, stderr := run(t, "device", command, ref, "-o", "json", "--database-url="+url)
		require.Equal(t, cli.ExitOK, code, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &out))
		return out
	}
	get, explain := answer("get"), answer("explain")
	for field, value := range explain {
		if other, both := get[field]; both && field != "attributes" && field != "gaps" {
			require.JSONEq(t, string(other), string(value), field)
		}
	}
	for _, field := range []string{"name", "model", "mac", "ipv4", "status", "test", "counters"} {
		require.Equal(t, get[field] != nil, explain[field] != nil, field)
	}
}
