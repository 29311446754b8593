package main

import (
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/api/workflow/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// With no poller or worker, what has come and is not applied is said; what cannot
// be asked is not known, and never nothing.
func TestWhatWaitsIsSaid(t *testing.T) {
	url, kafka := seeded(t), newDLQFixture(t)
	temporal := &hostileTemporal{}
	address := temporal.serve(t)
	get := func(command, kafkaAt, temporalAt string) (string, *waiting) {
		t.Helper()
		args := []string{"device", command, tv, "--waiting", "--waiting-timeout=20s", "--database-url=" + url, "--kafka-brokers=" + kafkaAt, "--temporal-address=" + temporalAt}
		if command == "list" {
			args = append(args[:2], args[3:]...)
		}
		code, table, stderr := run(t, args...)
		require.Equal(t, cli.ExitOK, code, stderr)
		code, text, stderr2 := run(t, append(args, "-o", "json")...)
		require.Equal(t, cli.ExitOK, code, stderr2)
		var out struct{ Waiting *waiting }
		require.NoError(t, json.Unmarshal([]byte(text), &out))
		require.NotNil(t, out.Waiting)
		return table + stderr, out.Waiting
	}
	commands := []string{"get", "explain", "list"}
	for _, command := range commands {
		text, w := get(command, kafka.addrs[0], address)
		require.Equal(t, &waiting{}, w)
		require.NotContains(t, text, "not known")
		if command != "list" {
			require.Regexp(t, `(?m)^Waiting +nothing$`, text)
		}
	}

	kafka.produce(&kgo.Record{Topic: device.KafkaEvents, Partition: 1, Value: []byte("x")}, &kgo.Record{Topic: device.KafkaEvents, Partition: 2, Value: []byte("x")})
	since := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	temporal.task.Store(&workflow.PendingWorkflowTaskInfo{OriginalScheduledTime: timestamppb.New(since)})
	for _, command := range commands {
		text, w := get(command, kafka.addrs[0], address)
		require.EqualValues(t, 2, w.Records)
		require.Contains(t, text, "2 records in Kafka, of all sessions, that the pollers have not applied")
		if command != "list" {
			require.Contains(t, text, "in Temporal the workflow has had a task since 2026-11-21T09:00:00Z that no worker has ended")
		}
	}
	_, err := kadm.NewClient(kafka.client).CommitOffsets(t.Context(), "rollcall-poller", kadm.OffsetsFromRecords(kgo.Record{Topic: device.KafkaEvents, Partition: 1}))
	require.NoError(t, err)
	_, w := get("get", kafka.addrs[0], address)
	require.EqualValues(t, 1, w.Records, "what is committed is applied")

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // nobody answers here
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	for _, command := range commands {
		args := []string{"device", command, "--waiting", "--waiting-timeout=300ms", "--database-url=" + url,
			"--kafka-brokers=" + listener.Addr().String(), "--temporal-address=" + listener.Addr().String()}
		if command != "list" {
			args = append(args, tv)
		}
		code, stdout, stderr := run(t, args...)
		require.Equal(t, cli.ExitOK, code, stderr)
		if command != "list" {
			require.Contains(t, stdout, "in Temporal not known: ")
		}
		require.Contains(t, stdout+stderr, "in Kafka not known: no answer within 300ms")
	}
}
