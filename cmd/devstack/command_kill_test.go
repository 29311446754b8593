package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/kafka"
	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
	kafkaclient "github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/request"
)

// mosquitto is a command line for a real broker that keeps its state over
// restarts.
func mosquitto(t *testing.T, port int) []string {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not in everybody's PATH
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("no mosquitto: apt-get install mosquitto")
	}
	dir := t.TempDir()
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\n", port, dir)
	if os.Getuid() == 0 {
		text += "user root\n"
	}
	config := filepath.Join(dir, "mosquitto.conf")
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	return []string{path, "-c", config}
}

// The bridge, as the process it is in production, is killed again and again, and
// the broker restarted, while a real edge is asked for snapshots: every command
// is answered, and none is done twice.
func TestKillingTheBridgeLosesNoCommandAndRepeatsNone(t *testing.T) {
	port, kafkaPort := porttest.Port(t), porttest.Port(t)
	args := mosquitto(t, port)
	rollcall := build(t, "../..", "./cmd/rollcall")
	log := testLog(t)
	quiet := slog.New(slog.NewTextHandler(log, nil))
	broker, err := kafka.Start(t.Context(), kafka.Options{DataDir: t.TempDir(), Addr: loopback(kafkaPort), Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() { _ = broker.Close(context.Background()) })

	mosquitto := &process{t: t, log: log, args: args}
	mosquitto.start()
	t.Cleanup(mosquitto.kill)
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", loopback(port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)
	bridge := &process{t: t, log: log, args: []string{rollcall, "bridge", "--mqtt-url", "mqtt://" + loopback(port), "--kafka-brokers", broker.Addr(), "--admin-addr", "127.0.0.1:0"}}
	bridge.start()
	t.Cleanup(bridge.kill)

	rae, err := edge.New(edge.Options{
		RAE: "RAE-1", DataDir: t.TempDir(), Logger: quiet, Capture: lan, Broker: mqtt.Broker{URL: "mqtt://" + loopback(port)}, SnapshotInterval: -1,
	})
	require.NoError(t, err)
	s := &stack{failed: make(chan error, 8)}
	stop := s.run("RAE-1", rae.Run)
	t.Cleanup(func() { require.NoError(t, stop(context.Background())) })
	replayed(t, rae)
	require.Eventually(t, func() bool { n, _ := rae.Pending(); return n == 0 }, patience, 10*time.Millisecond)

	r, err := request.Open(t.Context(), request.Options{Kafka: kafkaclient.Options{Brokers: []string{broker.Addr()}}, Logger: quiet})
	require.NoError(t, err)
	defer r.Close()
	asked, devices := map[string]string{}, rae.Devices()
	for round := range 3 { // as many as a session may be asked for at once
		for _, d := range devices {
			now := time.Now().UTC().Truncate(time.Millisecond)
			c := device.Command{
				ID: uuid.NewString(), Source: device.CommandSource("test"), RAE: "RAE-1", Session: d.Session,
				Action: device.ActionSnapshot, Time: now, Expires: now.Add(5 * time.Minute),
			}
			asked[c.ID] = c.Session
			require.NoError(t, r.Send(t.Context(), c))
		}
		<-time.After(time.Duration(100+300*round) * time.Millisecond) // somewhere in it
		bridge.kill()
		if round == 1 {
			require.NoError(t, mosquitto.cmd.Process.Signal(syscall.SIGTERM)) // it writes its state
			_ = mosquitto.cmd.Wait()
			mosquitto.start()
		}
		bridge.start()
	}

	require.Eventually(t, func() bool {
		seqs := map[string]int64{}
		for _, record := range records(t, broker.Addr(), device.KafkaReplies) {
			reply, err := device.DecodeReply(string(record.Key), record.Value)
			require.NoError(t, err)
			require.Equal(t, device.Done, reply.Outcome, reply.Detail)
			require.Equal(t, asked[reply.Command], reply.Session)
			if seq, again := seqs[reply.Command]; again {
				require.Equal(t, seq, reply.SnapshotSeq(), "a repetition is answered as before")
			}
			seqs[reply.Command] = reply.SnapshotSeq()
		}
		return len(seqs) == len(asked)
	}, patience, 100*time.Millisecond, "every command is answered")
	require.Eventually(t, func() bool { n, _ := rae.Pending(); return n == 0 }, patience, 10*time.Millisecond)

	snapshots := map[string]bool{}
	require.Eventually(t, func() bool { // the bridge may have the last ones still
		newest := map[string]int64{}
		for _, record := range records(t, broker.Addr(), device.KafkaEvents) {
			e, err := device.DecodeRecord(string(record.Key), record.Value)
			require.NoError(t, err)
			newest[e.Session] = max(newest[e.Session], e.Seq)
			if e.Type == device.Snapshot {
				snapshots[e.ID()] = true
			}
		}
		return !slices.ContainsFunc(rae.Devices(), func(d registry.Device) bool { return newest[d.Session] < d.Seq })
	}, patience, 100*time.Millisecond, "every event is in Kafka")
	require.Len(t, snapshots, len(asked), "one snapshot a command")
	t.Logf("%d commands to %d sessions", len(asked), len(devices))
}
