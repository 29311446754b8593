package edge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
)

const (
	rae      = "RAE-1"
	capture  = "../testdata/lan/lan.pcap"
	patience = 3 * time.Minute // bounds failures only

	// The test binary with these set is an edge that will be killed.
	childDir    = "ROLLCALL_TEST_EDGE_DIR"
	childBroker = "ROLLCALL_TEST_EDGE_BROKER"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		e, err := edge.New(options(dir, os.Getenv(childBroker), func(o *edge.Options) { o.Speed = 60 }))
		if err == nil {
			err = e.Run(context.Background())
		}
		slog.Error("edge stopped", "err", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func options(dir, broker string, change ...func(*edge.Options)) edge.Options {
	o := edge.Options{
		RAE: rae, DataDir: dir, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Capture: capture, Broker: mqtt.Broker{URL: "mqtt://" + broker}, SnapshotInterval: -1, ExitAtEnd: true,
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

// sink is a broker that keeps all events it acknowledged.
type sink struct {
	mochi.HookBase
	addr   string
	mu     sync.Mutex
	events []device.Event
}

func (*sink) ID() string                                               { return "sink" }
func (*sink) Provides(byte) bool                                       { return true }
func (*sink) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*sink) OnACLCheck(*mochi.Client, string, bool) bool              { return true }
func (*sink) OnWill(_ *mochi.Client, w mochi.Will) (mochi.Will, error) { return w, nil }

func (s *sink) OnPublish(_ *mochi.Client, p packets.Packet) (packets.Packet, error) {
	if strings.HasSuffix(p.TopicName, "/presence") {
		return p, nil
	}
	e, err := device.DecodeRecord(p.TopicName, p.Payload)
	if err != nil {
		return p, packets.ErrUnspecifiedError
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	return p, nil
}

// all are what came so far.
func (s *sink) all() []device.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *sink) count() int { return len(s.all()) }

// different counts each event once.
func (s *sink) different() int {
	ids := map[string]bool{}
	for _, e := range s.all() {
		ids[e.ID()] = true
	}
	return len(ids)
}

func startSink(t *testing.T) *sink {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &sink{addr: l.Addr().String()}
	server := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, server.AddHook(s, nil))
	require.NoError(t, server.AddListener(listeners.NewNet("tcp", l)))
	require.NoError(t, server.Serve())
	t.Cleanup(func() { _ = server.Close() })
	return s
}

// folds applies what the broker got, session by session.
func (s *sink) folds(t *testing.T) map[string]*device.State {
	states := map[string]*device.State{}
	for _, e := range s.all() {
		if states[e.Session] == nil {
			states[e.Session] = &device.State{}
		}
		states[e.Session].Apply(device.FoldOf(e))
	}
	for session, state := range states {
		require.Empty(t, state.Missing(), "session %s has gaps", session)
	}
	return states
}

func requireEqualRecords(t *testing.T, s *sink, devices []registry.Device) {
	states := s.folds(t)
	open := 0
	for _, d := range devices {
		require.NotNil(t, states[d.Session], d.MAC)
		require.Equal(t, d.Attributes, states[d.Session].Live(), d.MAC)
		require.Equal(t, d.Seq, states[d.Session].AsOf, d.MAC)
	}
	for _, state := range states {
		if state.Closed == 0 {
			open++
		}
	}
	require.Len(t, devices, open)
}

// truth is what the recording's devices say that they did.
type truth struct {
	Devices []struct {
		MAC   string
		Final struct{ IPv4, HostName, Status string }
	}
}

func TestReplayFindsTheRecordedDevices(t *testing.T) {
	b, err := os.ReadFile("../testdata/lan/truth.json")
	require.NoError(t, err)
	var want truth
	require.NoError(t, json.Unmarshal(b, &want))

	s := startSink(t)
	e, err := edge.New(options(t.TempDir(), s.addr))
	require.NoError(t, err)
	require.NoError(t, e.Run(t.Context()))
	devices := e.Devices()
	var macs, found []string
	for _, d := range devices {
		found = append(found, d.MAC)
	}
	for _, d := range want.Devices {
		macs = append(macs, d.MAC)
		i := slices.IndexFunc(devices, func(f registry.Device) bool { return f.MAC == d.MAC })
		require.GreaterOrEqual(t, i, 0, d.MAC)
		if d.Final.Status == device.Online {
			require.Equal(t, `"`+d.Final.IPv4+`"`, string(devices[i].Attributes[device.AttrIPv4].Value), d.MAC)
		}
	}
	require.ElementsMatch(t, macs, found, "every device, and nothing else")
	requireEqualRecords(t, s, devices)
	n, _ := e.Pending()
	require.Zero(t, n)
	require.True(t, e.Position().Ended)
}

// history is what a session's events say, without what differs from run to run:
// the session's name and times.
func history(t *testing.T, s *sink) map[string][]string {
	seen, out := map[string]bool{}, map[string][]string{}
	macs := map[string]string{}
	for _, e := range s.all() {
		if seen[e.ID()] {
			continue
		}
		seen[e.ID()] = true
		if e.Type == device.Opened {
			macs[e.Session] = string(e.Attributes[device.AttrMAC].Value)
		}
		var values []string
		for name, a := range e.Attributes {
			values = append(values, name+"="+string(a.Value))
		}
		slices.Sort(values)
		mac := macs[e.Session]
		require.NotEmpty(t, mac, "first appearances are in order")
		out[mac] = append(out[mac], fmt.Sprintf("%s %d %s %s", e.Type, e.Seq, e.Reason, strings.Join(values, " ")))
	}
	return out
}

// A replay that is killed again and again, at any point, gives the same events
// as one that is not, and at another speed.
func TestKilledReplayGivesTheSameEvents(t *testing.T) {
	whole := startSink(t)
	e, err := edge.New(options(t.TempDir(), whole.addr))
	require.NoError(t, err)
	require.NoError(t, e.Run(t.Context()))

	s, dir := startSink(t), t.TempDir()
	for kills := 0; kills < 5; kills++ {
		child := exec.Command(os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), childDir+"="+dir, childBroker+"="+s.addr)
		require.NoError(t, child.Start())
		before := s.count()
		goal := before + 1 + rand.IntN(15)
		require.Eventually(t, func() bool { return s.count() >= goal || s.different() == whole.count() }, patience, time.Millisecond)
		require.NoError(t, child.Process.Kill())
		_ = child.Wait()
	}
	e, err = edge.New(options(dir, s.addr))
	require.NoError(t, err)
	t.Logf("5 kills by frame %d, %d publications of %d events", e.Position().Frame, s.count(), whole.count())
	require.NoError(t, e.Run(t.Context()))
	require.Equal(t, history(t, whole), history(t, s))
	requireEqualRecords(t, s, e.Devices())
}

func TestReplayedOnceIsNotReplayedAgain(t *testing.T) {
	s, dir := startSink(t), t.TempDir()
	run := func(change ...func(*edge.Options)) int {
		before := s.count()
		e, err := edge.New(options(dir, s.addr, change...))
		require.NoError(t, err)
		require.NoError(t, e.Run(t.Context()))
		return s.count() - before
	}
	require.Positive(t, run())
	require.Zero(t, run())
	require.Positive(t, run(func(o *edge.Options) { o.Rewind = true }))
}

func TestCaptureThatBreaksOff(t *testing.T) {
	b, err := os.ReadFile(capture)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "cut.pcap")
	require.NoError(t, os.WriteFile(path, b[:len(b)/2], 0o600))
	s := startSink(t)
	e, err := edge.New(options(t.TempDir(), s.addr, func(o *edge.Options) { o.Capture = path }))
	require.NoError(t, err)
	require.ErrorIs(t, e.Run(t.Context()), discovery.ErrTruncated)
	require.NotEmpty(t, e.Devices(), "what came before is recorded")
	requireEqualRecords(t, s, e.Devices())
	require.ErrorIs(t, e.Broken(), discovery.ErrTruncated)
}

func TestWrongInputIsAnErrorBeforeAnythingRuns(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	require.NoError(t, os.WriteFile(text, []byte("no capture"), 0o600))
	for name, c := range map[string]struct {
		change func(*edge.Options)
		want   string
	}{
		"no capture":    {func(o *edge.Options) { o.Capture = filepath.Join(dir, "absent") }, "absent"},
		"not a capture": {func(o *edge.Options) { o.Capture = text }, "not a pcap"},
		"no interface":  {func(o *edge.Options) { o.Capture, o.Interface, o.ExitAtEnd = "", "nope0", false }, "nope0"},
		"both":          {func(o *edge.Options) { o.Interface = "lo" }, "not both"},
		"neither":       {func(o *edge.Options) { o.Capture = "" }, "required"},
		"RAE":           {func(o *edge.Options) { o.RAE = "a/b" }, "holds one of"},
		"plain MQTT":    {func(o *edge.Options) { o.Broker.URL = "mqtt://broker.example" }, "--insecure"},
		"router":        {func(o *edge.Options) { o.RouterMACs = []string{"x"} }, "router MAC"},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			_, err := edge.New(options(data, "127.0.0.1:1", c.change))
			require.ErrorContains(t, err, c.want)
			again, err := edge.New(options(data, "127.0.0.1:1"))
			require.NoError(t, err, "nothing stays locked")
			require.NoError(t, again.Close())
		})
	}
}

func TestSecondEdgeSaysWhatIsLocked(t *testing.T) {
	dir := t.TempDir()
	e, err := edge.New(options(dir, "127.0.0.1:1"))
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	_, err = edge.New(options(dir, "127.0.0.1:1"))
	require.ErrorIs(t, err, registry.ErrLocked)
	require.ErrorContains(t, err, filepath.Join(dir, edge.DatabaseFile))
}

func TestControlSocket(t *testing.T) {
	s, dir := startSink(t), t.TempDir()
	var devices []registry.Device
	require.ErrorIs(t, edge.Control(t.Context(), dir, "GET", "/devices", &devices), edge.ErrNotRunning)
	e, err := edge.New(options(dir, s.addr, func(o *edge.Options) { o.ExitAtEnd = false }))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	<-e.Ended()
	require.Eventually(t, func() bool { return edge.Control(ctx, dir, "GET", "/devices", &devices) == nil }, patience, time.Millisecond)
	require.Equal(t, len(e.Devices()), len(devices))
	info, err := os.Stat(filepath.Join(dir, edge.ControlFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	mac := devices[0].MAC
	require.NoError(t, edge.Control(ctx, dir, "POST", "/devices/"+mac+"/forget?reason=test", &struct{}{}))
	require.ErrorIs(t, edge.Control(ctx, dir, "POST", "/devices/"+mac+"/forget", &struct{}{}), registry.ErrUnknownDevice)
	var p edge.Peek
	require.NoError(t, edge.Control(ctx, dir, "GET", "/events?most=3", &p))
	require.Eventually(t, func() bool { n, _ := e.Pending(); return n == 0 }, patience, time.Millisecond)
	require.NoError(t, e.Ready())
	cancel()
	require.NoError(t, <-done)
	requireEqualRecords(t, s, e.Devices())
}

// The RAE's binary is small: the cloud's engines are not in it. (database/sql
// is, without a driver: Prometheus' collectors import it.)
func TestImportsNoEngine(t *testing.T) {
	b, err := exec.Command("go", "list", "-deps", "../cmd/rollcall-edge", "./...").Output()
	require.NoError(t, err)
	for _, p := range strings.Fields(string(b)) {
		for _, bad := range []string{"go.temporal.io", "github.com/twmb", "github.com/jackc", "github.com/lib/pq", "google.golang.org/grpc"} {
			require.False(t, strings.HasPrefix(p, bad), p)
		}
	}
}

func TestMetricNamesAreFrozen(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := startSink(t)
	o := options(t.TempDir(), s.addr, func(o *edge.Options) { o.Registerer = reg })
	e, err := edge.New(o)
	require.NoError(t, err)
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NoError(t, e.Close())
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Equal(t, []string{
		"rollcall_edge_announcements_foreign_total", "rollcall_edge_attributes_refused_total", "rollcall_edge_commands_received_total",
		"rollcall_edge_commands_subscribed", "rollcall_edge_commands_total", "rollcall_edge_commit_seconds",
		"rollcall_edge_connected", "rollcall_edge_connects_total", "rollcall_edge_devices", "rollcall_edge_devices_refused_total",
		"rollcall_edge_devices_waiting", "rollcall_edge_events_total", "rollcall_edge_frames_malformed_total", "rollcall_edge_frames_total",
		"rollcall_edge_kernel_drops_total", "rollcall_edge_mqtt_sessions_lost_total", "rollcall_edge_observations_total", "rollcall_edge_outbox_bytes", "rollcall_edge_outbox_events",
		"rollcall_edge_puback_seconds", "rollcall_edge_publishes_total", "rollcall_edge_values_cut_total",
	}, names)
}
