package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/printable/printabletest"
)

const tv = "02:00:00:00:00:01"

func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	a := app()
	a.Stdout, a.Stderr = &out, &errs
	code = a.Run(t.Context(), args)
	return code, out.String(), errs.String()
}

// stopped is the data directory of an edge that knows one device and does not run.
func stopped(t *testing.T) string {
	dir := t.TempDir()
	r, err := registry.Open(registry.Options{Path: filepath.Join(dir, edge.DatabaseFile), RAE: "RAE-1", Logger: discard})
	require.NoError(t, err)
	require.NoError(t, r.Observe(t.Context(), registry.Step{Observations: []discovery.Observation{{
		MAC: tv, Time: time.Now(), Set: map[string]any{device.AttrIPv4: "192.168.1.7", device.AttrHostname: "tv\x1b[2J"},
	}}}))
	require.NoError(t, r.Close())
	return dir
}

func TestCommandsReadTheFileOfAStoppedEdge(t *testing.T) {
	dir := stopped(t)
	code, out, _ := call(t, "devices", "--data-dir", dir)
	require.Zero(t, code)
	require.Regexp(t, `MAC +STATUS +IPV4 +NAME +SEQ +SEEN +SESSION\n`+tv+` +online +192\.168\.1\.7 +tv.\[2J +1 +2`, out)
	require.NotContains(t, out, "\x1b", "a device tells the terminal nothing")

	_, out, _ = call(t, "devices", "--data-dir", dir, "-o", "json")
	var devices []registry.Device
	require.NoError(t, json.Unmarshal([]byte(out), &devices))
	require.Equal(t, `"192.168.1.7"`, string(devices[0].Attributes[device.AttrIPv4].Value))

	_, out, _ = call(t, "events", "--data-dir", dir)
	require.Contains(t, out, "opened")
	require.Contains(t, out, "1 of 1 events")

	code, out, _ = call(t, "forget", "--yes", "--data-dir", dir, "02:00:00:00:00:01")
	require.Zero(t, code)
	require.Equal(t, "forgotten: "+tv+"\n", out)
	code, _, errs := call(t, "forget", "--yes", "--data-dir", dir, tv)
	require.Equal(t, cli.ExitNotFound, code)
	require.Contains(t, errs, "no device \""+tv+"\"")
	_, out, _ = call(t, "events", "--data-dir", dir, "-o", "json")
	require.Contains(t, out, "rollcall.device.closed.v1")
}

func TestMissingDataDirectory(t *testing.T) {
	code, _, errs := call(t, "devices", "--data-dir", filepath.Join(t.TempDir(), "absent"))
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "absent")
}

func TestRunIsCheckedBeforeItStarts(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte("s3cret\n"), 0o600))
	good := []string{"run", "--rae", "RAE-1", "--capture", "x.pcap", "--mqtt-url", "mqtt://localhost", "--data-dir", t.TempDir(), "--check-config"}
	code, _, errs := call(t, append(good, "--username", "RAE-1", "--password-file", secret)...)
	require.Zero(t, code, errs)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--speed", "fast"}, "neither recorded, max, nor a factor"},
		{[]string{"--speed=-1"}, "neither recorded, max, nor a factor"},
		{[]string{"--mqtt-url", "mqtt://broker.example"}, "--insecure"},
		{[]string{"--interface", "eth0"}, "not both"},
		{[]string{"--rae", "a/b"}, "holds one of"},
		{[]string{"--username", "RAE-1"}, "--password-file"},
		{[]string{"--tls-cert", "x.pem"}, "needs its key"},
		{[]string{"--lan", "10.0.0.0"}, "lan"},
		{[]string{"--max-devices", "0"}, "--max-devices"},
	} {
		code, _, errs := call(t, append(good, c.args...)...)
		require.Equal(t, cli.ExitUsage, code, c.args)
		require.Contains(t, errs, c.want)
		require.NotContains(t, errs, "s3cret")
	}
	code, _, errs = call(t, "run", "--rae", "RAE-1", "--mqtt-url", "mqtt://localhost")
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, errs, "one of interface and capture")
}

func TestHelpHasExamples(t *testing.T) {
	for _, command := range []string{"run", "devices", "events", "forget"} {
		code, out, _ := call(t, command, "--help")
		require.Zero(t, code)
		require.Regexp(t, `Examples?:\n\n +rollcall-edge `+command, out)
	}
}

// What devices say, and what is typed, does not reach the terminal, whatever the
// command.
func TestTextFromOutsideDoesNotReachTheTerminal(t *testing.T) {
	for kind, text := range printabletest.Hostile {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			r, err := registry.Open(registry.Options{Path: filepath.Join(dir, edge.DatabaseFile), RAE: "RAE-1", Logger: discard})
			require.NoError(t, err)
			require.NoError(t, r.Observe(t.Context(), registry.Step{Observations: []discovery.Observation{{
				MAC: tv, Time: time.Now(), Set: map[string]any{device.AttrHostname: text, device.AttrMDNSName: text, device.AttrSSDPServer: text},
			}}}))
			require.NoError(t, r.Close())
			ways := map[string][][]string{
				"run":         {{"--rae=" + text}, {"--interface=" + text, "--rae=R", "--mqtt-url=mqtt://h"}, {"--capture=" + text, "--rae=R", "--mqtt-url=mqtt://h", "--check-config"}, {"--mqtt-url=" + text}},
				"devices":     {{}, {"-o", "json"}, {"--output=" + text}},
				"events":      {{}, {"-o", "json"}, {"-n", text}},
				"forget":      {{text, "--yes"}, {tv, "--reason=" + text}},
				"healthcheck": {{"--admin-addr=" + text}},
				"version":     {{text}},
			}
			a := app()
			k, err := a.Kong()
			require.NoError(t, err)
			for _, leaf := range k.Model.Leaves(false) {
				require.Contains(t, ways, leaf.Name, "say in the table how the command prints text from outside")
				for _, args := range ways[leaf.Name] {
					args = append([]string{leaf.Name}, args...)
					if leaf.Name == "devices" || leaf.Name == "events" || leaf.Name == "forget" {
						args = append(args, "--data-dir="+dir)
					}
					_, out, errs := call(t, args...)
					printabletest.RequireClean(t, out+errs)
				}
			}
		})
	}
}

// Forgetting ends a session for good: it asks first.
func TestForgetAsks(t *testing.T) {
	dir := stopped(t)
	for answer, person := range map[string]bool{"n\n": true, "y\n": false} {
		var out bytes.Buffer
		a := app()
		a.Stdout, a.Stderr = &out, &out
		a.Options = append(a.Options, kong.Bind(&cli.Terminal{In: strings.NewReader(answer), Person: person}))
		require.NotZero(t, a.Run(t.Context(), []string{"forget", "--data-dir", dir, tv}))
		require.Contains(t, out.String(), `close the session of device "`+tv+`" for good?`)
	}
	_, out, _ := call(t, "devices", "--data-dir", dir)
	require.Contains(t, out, tv)
}
