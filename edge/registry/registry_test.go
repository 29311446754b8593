package registry_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
)

const (
	rae   = "RAE-1"
	tv    = "02:00:00:00:00:01"
	radio = "02:00:00:00:00:02"
)

var start = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// clock is a settable clock.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time          { return c.now }
func (c *clock) Advance(d time.Duration) { c.now = c.now.Add(d) }

type fixture struct {
	*registry.Registry
	t     *testing.T
	o     registry.Options
	clock *clock
	reg   *prometheus.Registry
	log   *strings.Builder
}

func open(t *testing.T, change ...func(*registry.Options)) *fixture {
	f := &fixture{t: t, clock: &clock{start}, reg: prometheus.NewRegistry(), log: &strings.Builder{}}
	f.o = registry.Options{
		Path: filepath.Join(t.TempDir(), "registry.db"), RAE: rae,
		Logger: slog.New(slog.NewTextHandler(f.log, nil)), Registerer: f.reg,
		Now: f.clock.Now, Rand: rand.New(rand.NewPCG(1, 2)).Float64, SnapshotInterval: -1,
	}
	for _, c := range change {
		c(&f.o)
	}
	f.reopen()
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// reopen closes the registry, if it is open, and opens it again.
func (f *fixture) reopen() {
	if f.Registry != nil {
		require.NoError(f.t, f.Close())
	}
	r, err := registry.Open(f.o)
	require.NoError(f.t, err)
	f.Registry = r
}

func (f *fixture) observe(obs ...discovery.Observation) {
	for i := range obs {
		if obs[i].Time.IsZero() {
			obs[i].Time = f.clock.now
		}
	}
	require.NoError(f.t, f.Observe(f.t.Context(), registry.Step{Observations: obs}))
}

func seen(mac string, set map[string]any) discovery.Observation {
	return discovery.Observation{MAC: mac, Kind: discovery.KindARP, Presence: discovery.Seen, Set: set}
}

// take reads everything in the outbox, checks what every consumer relies on,
// and acknowledges it.
func (f *fixture) take() []device.Event {
	events, last := decode(f.t, f.Registry)
	if last > 0 {
		require.NoError(f.t, f.Ack(f.t.Context(), last))
	}
	return events
}

func decode(t require.TestingT, r *registry.Registry) (events []device.Event, last uint64) {
	for {
		entries, err := r.Read(last, 7)
		require.NoError(t, err)
		if len(entries) == 0 {
			return events, last
		}
		for _, e := range entries {
			require.Greater(t, e.Key, last)
			last = e.Key
			if isReply(t, e) {
				continue
			}
			event, err := device.DecodeRecord(e.Topic, e.Payload)
			require.NoError(t, err)
			require.Equal(t, rae, event.RAE)
			events = append(events, event)
		}
	}
}

func isReply(t require.TestingT, e registry.Entry) bool {
	topic, err := device.ParseTopic(e.Topic)
	require.NoError(t, err)
	return topic.Kind == device.KindReplies
}

func (f *fixture) device(mac string) registry.Device {
	for _, d := range f.Devices() {
		if d.MAC == mac {
			return d
		}
	}
	require.Fail(f.t, "no device "+mac)
	return registry.Device{}
}

func values(attributes map[string]device.Attribute) map[string]string {
	out := map[string]string{}
	for name, a := range attributes {
		out[name] = string(a.Value)
	}
	return out
}

func TestNewDeviceOpensASession(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, map[string]any{"network.ipv4": "192.168.1.7"}))
	<-f.Appended()
	events := f.take()
	require.Len(t, events, 1)
	require.Equal(t, device.Opened, events[0].Type)
	require.EqualValues(t, 1, events[0].Seq)
	require.Equal(t, map[string]string{"network.mac": `"` + tv + `"`, "network.ipv4": `"192.168.1.7"`, "connection.status": `"online"`}, values(events[0].Attributes))

	d := f.device(tv)
	require.Equal(t, device.Online, d.Status)
	require.Equal(t, events[0].Attributes, d.Attributes)
	require.Equal(t, events[0].Session, d.Session)
}

func TestOnlyWhatChangedIsInADelta(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, map[string]any{"network.ipv4": "192.168.1.7", "network.hostname": "tv"}))
	f.take()
	f.clock.Advance(time.Second)
	f.observe(seen(tv, map[string]any{"network.ipv4": "192.168.1.8", "network.hostname": "tv"}))
	events := f.take()
	require.Len(t, events, 1)
	require.Equal(t, map[string]string{"network.ipv4": `"192.168.1.8"`}, values(events[0].Attributes))
	require.EqualValues(t, 2, events[0].Seq)

	f.observe(discovery.Observation{MAC: tv, Unset: []string{"network.hostname", "never.set"}})
	events = f.take()
	require.Equal(t, map[string]string{"network.hostname": "null"}, values(events[0].Attributes))
	require.NotContains(t, f.device(tv).Attributes, "network.hostname")
}

func TestAStepIsOneDeltaADevice(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, map[string]any{"a": "1"}), seen(radio, nil), seen(tv, map[string]any{"a": "2", "b": true}))
	events := f.take()
	require.Len(t, events, 2)
	require.Equal(t, `"2"`, string(events[0].Attributes["a"].Value))
	require.Equal(t, `true`, string(events[0].Attributes["b"].Value))
}

func TestUnchangedCostsNoTransaction(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, map[string]any{"a": "1"}))
	before := metrictest.Observations(t, f.reg, "rollcall_edge_commit_seconds")
	f.clock.Advance(time.Minute)
	f.observe(seen(tv, map[string]any{"a": "1"}), discovery.Observation{MAC: tv, Presence: discovery.Refresh})
	require.Equal(t, before, metrictest.Observations(t, f.reg, "rollcall_edge_commit_seconds"))
	require.Equal(t, start.Add(time.Minute), f.device(tv).Last, "last seen is kept in memory")
	f.reopen()
	require.Equal(t, start.Add(time.Minute), f.device(tv).Last, "and written when the registry closes")
}

func TestSetsAreSortedArrays(t *testing.T) {
	f := open(t)
	const name = "mdns.services"
	f.observe(discovery.Observation{MAC: tv, Add: map[string][]string{name: {"b", "a", "b"}}})
	require.Equal(t, `["a","b"]`, string(f.device(tv).Attributes[name].Value))
	f.observe(discovery.Observation{MAC: tv, Add: map[string][]string{name: {"c"}}, Drop: map[string][]string{name: {"a"}}})
	require.Equal(t, `["b","c"]`, string(f.device(tv).Attributes[name].Value))
	f.observe(discovery.Observation{MAC: tv, Drop: map[string][]string{name: {"b", "c", "x"}}})
	require.NotContains(t, f.device(tv).Attributes, name)

	var many []string
	for i := range discovery.MaxSetMembers + 5 {
		many = append(many, fmt.Sprintf("s%03d", i))
	}
	f.observe(discovery.Observation{MAC: tv, Add: map[string][]string{name: many}})
	require.Equal(t, discovery.MaxSetMembers, strings.Count(string(f.device(tv).Attributes[name].Value), "s"))
	require.InDelta(t, 5, metrictest.Value(t, f.reg, "rollcall_edge_attributes_refused_total", "reason", "set-full"), 0)
}

func TestPresence(t *testing.T) {
	f := open(t)
	f.observe(discovery.Observation{MAC: tv, Presence: discovery.Refresh}, discovery.Observation{MAC: radio, Presence: discovery.Left})
	require.Empty(t, f.Devices(), "only a device that shows itself is created")
	f.observe(seen(tv, nil))
	f.observe(discovery.Observation{MAC: tv, Presence: discovery.Left})
	require.Equal(t, device.Offline, f.device(tv).Status)
	f.observe(discovery.Observation{MAC: tv, Presence: discovery.Refresh})
	require.Equal(t, device.Online, f.device(tv).Status)
	require.Len(t, f.take(), 3)
}

func TestSilenceIsOfflineOnlyWhereItIsJudged(t *testing.T) {
	for _, judged := range []bool{true, false} {
		t.Run(fmt.Sprint(judged), func(t *testing.T) {
			f := open(t, func(o *registry.Options) {
				if judged {
					o.OfflineAfter = 90 * time.Second
				}
			})
			f.observe(seen(tv, nil))
			f.clock.Advance(89 * time.Second)
			require.NoError(t, f.RunDueWork(t.Context()))
			require.Equal(t, device.Online, f.device(tv).Status)
			f.clock.Advance(2 * time.Second)
			require.NoError(t, f.RunDueWork(t.Context()))
			require.Equal(t, judged, f.device(tv).Status == device.Offline)
		})
	}
}

func TestRestartIsNoSilence(t *testing.T) {
	f := open(t, func(o *registry.Options) { o.OfflineAfter = 90 * time.Second })
	f.observe(seen(tv, nil))
	require.NoError(t, f.Close())
	f.clock.Advance(time.Hour)
	r, err := registry.Open(f.o)
	require.NoError(t, err)
	f.Registry = r
	require.NoError(t, f.RunDueWork(t.Context()))
	require.Equal(t, device.Online, f.device(tv).Status, "the process has not listened for long enough")
	f.clock.Advance(91 * time.Second)
	require.NoError(t, f.RunDueWork(t.Context()))
	require.Equal(t, device.Offline, f.device(tv).Status)
}

func TestSnapshots(t *testing.T) {
	f := open(t, func(o *registry.Options) { o.SnapshotInterval = time.Hour })
	f.observe(seen(tv, map[string]any{"a": "1"}), seen(radio, nil))
	f.take()
	var took []device.Event
	for range 120 {
		f.clock.Advance(time.Minute)
		require.NoError(t, f.RunDueWork(t.Context()))
		took = append(took, f.take()...)
	}
	require.GreaterOrEqual(t, len(took), 2)
	require.LessOrEqual(t, len(took), 6)
	require.NotEqual(t, took[0].Time, took[1].Time, "jitter spreads them")
	for _, e := range took {
		require.Equal(t, device.Snapshot, e.Type)
	}
	for _, d := range f.Devices() {
		if d.Session == took[0].Session {
			require.Equal(t, device.Hash(d.Attributes), took[0].Hash)
		}
	}
}

func TestNoSnapshotsPileUpWhileCutOff(t *testing.T) {
	f := open(t, func(o *registry.Options) { o.SnapshotInterval = time.Hour })
	f.observe(seen(tv, nil))
	for range 100 {
		f.clock.Advance(time.Hour)
		require.NoError(t, f.RunDueWork(t.Context()))
	}
	events := f.take()
	require.Len(t, events, 2, "opened and one snapshot")
	f.clock.Advance(2 * time.Hour)
	require.NoError(t, f.RunDueWork(t.Context()))
	require.Len(t, f.take(), 1)
}

func TestForget(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, nil))
	first := f.device(tv).Session
	require.NoError(t, f.Forget(t.Context(), tv, "sold"))
	require.Empty(t, f.Devices())
	events := f.take()
	require.Equal(t, device.Closed, events[1].Type)
	require.Equal(t, "sold", events[1].Reason)
	require.ErrorIs(t, f.Forget(t.Context(), tv, "again"), registry.ErrUnknownDevice)
	f.reopen()
	require.Empty(t, f.Devices())

	f.observe(seen(tv, nil))
	require.NotEqual(t, first, f.device(tv).Session, "met again, it is a new session")
	require.EqualValues(t, 1, f.device(tv).Seq)
}

func TestForgetsWhatIsGoneForLong(t *testing.T) {
	f := open(t, func(o *registry.Options) { o.ForgetAfter, o.OfflineAfter = time.Hour, time.Minute })
	// An old capture's times are no reason to forget.
	old := seen(tv, nil)
	old.Time = start.AddDate(-10, 0, 0)
	f.observe(old, seen(radio, nil))
	f.observe(discovery.Observation{MAC: tv, Presence: discovery.Left, Time: old.Time.Add(time.Second)})
	f.clock.Advance(59 * time.Minute)
	f.observe(seen(radio, nil))
	require.NoError(t, f.RunDueWork(t.Context()))
	require.Len(t, f.Devices(), 2)
	f.clock.Advance(2 * time.Minute)
	f.observe(seen(radio, nil))
	require.NoError(t, f.RunDueWork(t.Context()))
	require.Len(t, f.Devices(), 1)
	require.Equal(t, radio, f.Devices()[0].MAC)
}

func TestLimits(t *testing.T) {
	f := open(t, func(o *registry.Options) { o.MaxDevices = 2 })
	set := map[string]any{"Bad Name": "x", "big": strings.Repeat("x", device.MaxValueBytes), "nul": "a\x00b", "fine": "y"}
	f.observe(seen(tv, set), seen(tv, set))
	require.Equal(t, map[string]string{"network.mac": `"` + tv + `"`, "connection.status": `"online"`, "fine": `"y"`}, values(f.device(tv).Attributes))
	require.Equal(t, 1, strings.Count(f.log.String(), `attribute="Bad Name"`), "logged once a name")
	require.InDelta(t, 4, metrictest.Value(t, f.reg, "rollcall_edge_attributes_refused_total", "reason", "invalid"), 0)

	many := map[string]any{}
	for i := range device.MaxAttributes + 50 {
		many[fmt.Sprintf("n%03d", i)] = strings.Repeat("v", 200)
	}
	f.observe(seen(radio, many))
	d := f.device(radio)
	require.LessOrEqual(t, len(d.Attributes), device.MaxAttributes)
	require.LessOrEqual(t, device.StateBytes(d.Attributes), device.MaxStateBytes)
	require.Greater(t, metrictest.Value(t, f.reg, "rollcall_edge_attributes_refused_total", "reason", "limit"), 50.0)

	f.observe(seen("02:00:00:00:00:03", nil))
	require.Len(t, f.Devices(), 2)
	require.InDelta(t, 1, metrictest.Value(t, f.reg, "rollcall_edge_devices_refused_total"), 0)
	f.take()
}

func TestAFullOutboxFoldsAndLosesNothing(t *testing.T) {
	f := open(t, func(o *registry.Options) { o.MaxOutboxBytes = 2500 })
	f.observe(seen(tv, map[string]any{"a": "0", "gone": "soon"}))
	for i := range 200 {
		f.observe(seen(tv, map[string]any{"a": fmt.Sprint(i), fmt.Sprintf("fleeting.n%d", i): "x"}))
		f.observe(discovery.Observation{MAC: tv, Unset: []string{fmt.Sprintf("fleeting.n%d", i), "gone"}})
	}
	f.observe(seen(radio, nil))
	_, bytes := f.Pending()
	require.LessOrEqual(t, bytes, int64(2500))
	d := f.device(tv)
	require.Equal(t, `"199"`, string(d.Attributes["a"].Value))
	require.Zero(t, d.Attributes["a"].Seq, "not told yet")
	require.Zero(t, f.device(radio).Seq)
	require.ErrorIs(t, f.Forget(t.Context(), radio, "x"), registry.ErrOutboxFull)
	require.Contains(t, f.log.String(), "outbox is full")
	f.reopen()

	before := f.take()
	after := f.take()
	require.Len(t, after, 2, "one delta for all that waited, and the radio's opened")
	require.Contains(t, f.log.String(), "outbox has room again")
	require.Equal(t, before[len(before)-1].Seq+1, after[0].Seq)
	requireInvariants(t, append(before, after...), f.Devices())
}

func TestPositionIsWrittenWithWhatItCovers(t *testing.T) {
	f := open(t)
	at := func(n int64) registry.Position { return registry.Position{Source: "c", Frame: n} }
	require.NoError(t, f.Observe(t.Context(), registry.Step{Position: at(1)}, registry.Step{Observations: []discovery.Observation{seen(tv, nil)}, Position: at(2)}))
	require.NoError(t, f.Observe(t.Context(), registry.Step{Position: at(9)}))
	require.Equal(t, at(9), f.Position())
	c, err := registry.Inspect(f.o.Path, 10)
	require.ErrorIs(t, err, registry.ErrLocked)
	require.Empty(t, c.Devices)
	require.NoError(t, f.Close())
	c, err = registry.Inspect(f.o.Path, 10)
	require.NoError(t, err)
	require.Equal(t, at(9), c.Position)
	require.Equal(t, rae, c.RAE)
	require.Len(t, c.Devices, 1)
	require.Len(t, c.Events, 1)
	f.Registry, err = registry.Open(f.o)
	require.NoError(t, err)
	require.Equal(t, at(9), f.Position())
}

func TestAckRefusesTheFuture(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, nil))
	require.Error(t, f.Ack(t.Context(), 99))
	require.NoError(t, f.Ack(t.Context(), 1))
	require.NoError(t, f.Ack(t.Context(), 1), "again is nothing")
	n, bytes := f.Pending()
	require.Zero(t, n)
	require.Zero(t, bytes)
}

func TestAckRemovesNothingElse(t *testing.T) {
	f := open(t)
	for i := range 5 {
		f.observe(seen(tv, map[string]any{"a": fmt.Sprint(i)}))
	}
	all := f.outbox()
	require.Len(t, all, 5)
	require.NoError(t, f.Ack(t.Context(), all[2].Key))
	require.Equal(t, all[3:], f.outbox())
	f.reopen()
	require.Equal(t, all[3:], f.outbox(), "a restart publishes again from the oldest that is not acknowledged")
}

// What cannot be written has not happened: the registry goes on with what the file
// has, and the same steps can be tried again.
func TestAFailedWriteChangesNothing(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, map[string]any{"a": "1"}))
	devices, position := f.Devices(), f.Position()
	events, bytes := f.Pending()
	require.NoError(t, f.Close()) // from now on every transaction fails
	step := registry.Step{
		Observations: []discovery.Observation{
			{MAC: tv, Time: f.clock.now, Kind: discovery.KindARP, Presence: discovery.Seen, Set: map[string]any{"a": "2", "b": "3"}},
			{MAC: radio, Time: f.clock.now, Kind: discovery.KindARP, Presence: discovery.Seen},
		},
		Position: registry.Position{Frame: 7},
	}
	require.Error(t, f.Observe(t.Context(), step))
	require.Equal(t, devices, f.Devices())
	require.Equal(t, position, f.Position())
	stillEvents, stillBytes := f.Pending()
	require.Equal(t, events, stillEvents)
	require.Equal(t, bytes, stillBytes)
	require.Error(t, f.Ready())

	f.Registry = nil
	f.reopen()
	require.NoError(t, f.Observe(t.Context(), step))
	require.Equal(t, `"2"`, string(f.device(tv).Attributes["a"].Value))
	requireInvariants(t, f.take(), f.Devices())
}

// Readers need no more than their own lock while others write. The race detector
// finds one that would.
func TestReadersNeedOneLock(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, map[string]any{"a": "0"}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			f.observe(seen(tv, map[string]any{"a": fmt.Sprint(i)}))
			f.take()
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		require.NotEmpty(t, f.Devices())
		require.NotEmpty(t, f.Value(tv, "a"))
		f.Pending()
		f.Position()
		_ = f.Ready()
	}
}
