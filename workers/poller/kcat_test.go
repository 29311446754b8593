package poller_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// kcat (librdkafka) is somebody else's client: what it writes we apply, and it
// reads our dead letters, headers and all.
func kcat(t *testing.T, make func(int32) *cluster) {
	path, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("needs kcat (Debian: apt-get install kcat)")
	}
	c, s := make(2), newTables()
	run := func(stdin string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, append([]string{"-b", strings.Join(c.brokers, ",")}, args...)...)
		var errs bytes.Buffer
		cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &errs
		out, err := cmd.Output()
		require.NoError(t, err, "%s: %s", cmd, errs.String())
		return string(out)
	}
	h := newHistory(t, c.topic, 5, 6)
	start(t, c, s)

	// One a line, key and value with a tab between: JSON has none of either.
	var lines strings.Builder
	for _, r := range h.records {
		require.NotContains(t, string(r.Value), "\n")
		lines.WriteString(string(r.Key) + "\t" + string(r.Value) + "\n")
	}
	poison := string(h.records[0].Key)
	lines.WriteString(poison + "\t" + "not an event\n")
	run(lines.String(), "-P", "-t", c.topic, "-K", "\t", "-X", "partitioner=murmur2_random", "-X", "acks=all")
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)

	var letter struct {
		Key     string
		Payload string
		Headers []string // names and values by turns
	}
	out := run("", "-C", "-t", c.dlq, "-o", "beginning", "-e", "-q", "-J")
	require.NoError(t, json.Unmarshal([]byte(out), &letter), out)
	require.Equal(t, poison, letter.Key)
	require.Equal(t, "not an event", letter.Payload)
	headers := map[string]string{}
	for i := 0; i+1 < len(letter.Headers); i += 2 {
		headers[letter.Headers[i]] = letter.Headers[i+1]
	}
	require.Equal(t, c.topic, headers[kafka.HeaderTopic])
	require.Equal(t, string(device.NotJSON), headers[kafka.HeaderReason])
}
