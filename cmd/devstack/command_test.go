package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// A person sends commands: each goes from the CLI through Kafka and the broker to
// the edge, and the reply comes back. A snapshot that is asked for is applied.
func TestCommandsEndToEnd(t *testing.T) {
	rollcall := build(t, "../..", "./cmd/rollcall")
	log := testLog(t)
	flags := testFlags(t, t.TempDir())
	s := testStack(t, flags, log)
	demo := &demoCmd{stackFlags: flags, Capture: []string{lan}, Once: true, SnapshotInterval: -1}
	raes, err := s.startRAEs(demo)
	require.NoError(t, err)
	replayed(t, raes[0].edge)
	require.NoError(t, newWatch(s, raes, time.Now()).awaitApplied(t.Context(), patience))
	before := raes[0].edge.Devices()[0]

	cli := func(subcommand string, args ...string) (requested map[string]any, code int, text string) {
		cmd := exec.CommandContext(t.Context(), rollcall, append([]string{"device", subcommand, "-o", "json", "--wait", "2m", "--expires", "2m"}, args...)...)
		cmd.Env = append(os.Environ(), "ROLLCALL_DATABASE_URL="+s.databaseURL, "ROLLCALL_KAFKA_BROKERS="+s.kafkaAddr)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run()
		if out.Len() > 0 {
			require.NoError(t, json.Unmarshal(out.Bytes(), &requested))
		}
		return requested, cmd.ProcessState.ExitCode(), out.String() + errs.String()
	}
	got, code, text := cli("request-snapshot", before.MAC, "--reason", "a test")
	require.Zero(t, code, text)
	require.Equal(t, string(device.Done), got["outcome"], text)
	require.Equal(t, map[string]any{"seq": float64(before.Seq + 1)}, got["result"], text)
	require.Equal(t, before.Session, got["session_id"])
	t.Log(text)

	require.Eventually(t, func() bool {
		d, err := s.store.GetDevice(t.Context(), before.Session)
		require.NoError(t, err)
		return d.AsOf == before.Seq+1 && d.Snapshot == before.Seq+1
	}, patience, 20*time.Millisecond, "the snapshot is in the database")

	// Any other action of the table goes the same way.
	got, code, text = cli("command", before.MAC, string(device.ActionPing), `{"text":"is <anybody> there?"}`)
	require.Zero(t, code, text)
	require.Equal(t, string(device.Done), got["outcome"], text)
	require.Equal(t, map[string]any{"text": "is <anybody> there?"}, got["result"], text)

	// The RAE forgets the device: the database still knows the session.
	require.NoError(t, raes[0].edge.Forget(t.Context(), before.MAC, "a test"))
	got, code, text = cli("request-snapshot", before.Session)
	require.Equal(t, 1, code, text)
	require.Equal(t, string(device.UnknownSession), got["outcome"], text)

	// The RAE is gone: the in-process broker keeps the command in its session.
	other := raes[0].edge.Devices()[0]
	require.NoError(t, raes[0].stop(t.Context()))
	_, code, text = cli("request-snapshot", other.Session, "--wait", "1s", "--expires", "1s")
	require.Equal(t, 1, code, text)
	require.Contains(t, text, "none within 1s")
}
