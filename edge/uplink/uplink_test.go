package uplink_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/edge/uplink"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

const (
	rae      = "RAE-1"
	presence = "rollcall/v1/RAE-1/presence"
	patience = 3 * time.Minute // bounds failures only
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outbox is an outbox in memory.
type outbox struct {
	mu       sync.Mutex
	entries  []registry.Entry
	next     uint64
	appended chan struct{}
	acks     int
}

func newOutbox() *outbox { return &outbox{appended: make(chan struct{}, 1)} }

// add appends n events of a few sessions, whose payload says which session and
// which event of it.
func (o *outbox) add(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range n {
		o.next++
		session := fmt.Sprintf("s%d", o.next%3)
		b, _ := json.Marshal(message{Session: session, Key: o.next})
		o.entries = append(o.entries, registry.Entry{Key: o.next, Topic: "rollcall/v1/RAE-1/sessions/" + session + "/events", Payload: b})
	}
	select {
	case o.appended <- struct{}{}:
	default:
	}
}

func (o *outbox) Read(after uint64, most int) ([]registry.Entry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []registry.Entry
	for _, e := range o.entries {
		if e.Key > after && len(out) < most {
			out = append(out, e)
		}
	}
	return out, nil
}

func (o *outbox) Ack(_ context.Context, through uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acks++
	for len(o.entries) > 0 && o.entries[0].Key <= through {
		o.entries = o.entries[1:]
	}
	return nil
}

func (o *outbox) Appended() <-chan struct{} { return o.appended }

func (o *outbox) pending() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.entries)
}

type message struct {
	Session string
	Key     uint64
}

// received is what a broker's clients got to see, in order.
type received struct {
	mu   sync.Mutex
	keys []uint64
}

func (r *received) add(payload []byte) {
	var m message
	if json.Unmarshal(payload, &m) == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.keys = append(r.keys, m.Key)
	}
}

// firsts are the keys in the order of their first appearance.
func (r *received) firsts() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[uint64]bool{}
	var out []uint64
	for _, k := range r.keys {
		if !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	return out
}

func (r *received) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.keys)
}

// last are the n newest keys, repetitions among them.
func (r *received) last(n int) []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.keys[max(0, len(r.keys)-n):])
}

func upTo(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i + 1)
	}
	return out
}

// hook sees every publication and decides what the broker answers.
type hook struct {
	mochi.HookBase
	got      received
	presence chan string
	answer   func(topic string, payload []byte) error
}

func (*hook) ID() string                                               { return "test" }
func (*hook) Provides(b byte) bool                                     { return true }
func (*hook) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*hook) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

func (h *hook) OnPublish(_ *mochi.Client, p packets.Packet) (packets.Packet, error) {
	if p.TopicName == presence {
		h.tell(p.Payload)
		return p, nil
	}
	if h.answer != nil {
		if err := h.answer(p.TopicName, p.Payload); err != nil {
			return p, err
		}
	}
	h.got.add(p.Payload)
	return p, nil
}

func (h *hook) OnWill(_ *mochi.Client, w mochi.Will) (mochi.Will, error) {
	h.tell(w.Payload)
	return w, nil
}

func (h *hook) tell(payload []byte) {
	select {
	case h.presence <- string(payload):
	default:
	}
}

// broker starts mochi-mqtt on addr. It ends with the test or when it is closed.
func broker(t *testing.T, addr string, h *hook, change func(*mochi.Options)) (closeBroker func()) {
	o := &mochi.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(o)
	}
	s := mochi.New(o)
	require.NoError(t, s.AddHook(h, nil))
	require.NoError(t, s.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: addr})))
	require.NoError(t, s.Serve())
	closeBroker = sync.OnceFunc(func() { _ = s.Close() })
	t.Cleanup(closeBroker)
	return closeBroker
}

// start runs an uplink until stop is called.
func start(t *testing.T, o uplink.Options) (u *uplink.Uplink, stop func()) {
	o.RAE = rae
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 50 * time.Millisecond
	}
	u, err := uplink.New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-done)
		})
	}
	t.Cleanup(stop)
	return u, stop
}

func contains(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, patience, 2*time.Millisecond, what)
}

// next is what comes from a channel.
func next(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		require.Fail(t, "nothing came")
		return ""
	}
}

func TestPublishesInOrderAndRemovesWhatIsAcknowledged(t *testing.T) {
	h, box, addr := &hook{presence: make(chan string, 9)}, newOutbox(), porttest.Addr(t)
	broker(t, addr, h, nil)
	box.add(1000)
	reg, begun := prometheus.NewRegistry(), time.Now()
	u, stop := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Outbox: box, Registerer: reg})
	eventually(t, "all published", func() bool { return box.pending() == 0 })
	eventually(t, "ready", func() bool { return u.Ready() == nil })
	require.Equal(t, upTo(1000), h.got.firsts())
	require.Equal(t, 1000, h.got.len(), "no duplicates without trouble")
	most := 1000/uplink.DefaultWindow + 1 + int(time.Since(begun)/uplink.AckDelay)
	require.LessOrEqual(t, box.acks, most, "acknowledgements are batched")

	box.add(1)
	eventually(t, "a new one at once", func() bool { return h.got.len() == 1001 })
	require.Contains(t, next(t, h.presence), `"status":"online"`)
	stop()
	require.Contains(t, next(t, h.presence), `"status":"offline"`, "goodbye or, where that came too late, will")
	n, err := prometheus.Gatherers{reg}.Gather()
	require.NoError(t, err)
	require.Empty(t, n, "metrics go with the uplink")
}

func TestDrainsWhenStopped(t *testing.T) {
	h, box, addr := &hook{}, newOutbox(), porttest.Addr(t)
	broker(t, addr, h, nil)
	u, stop := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Outbox: box, Drain: patience})
	eventually(t, "connected", func() bool { return u.Ready() == nil })
	box.add(300)
	stop()
	require.Zero(t, box.pending())
	require.Equal(t, upTo(300), h.got.firsts())
}

func TestStopsAtOnceWithoutABroker(t *testing.T) {
	box := newOutbox()
	box.add(1)
	u, stop := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + porttest.Addr(t)}, Outbox: box, Drain: patience})
	eventually(t, "says why", func() bool { return contains(u.Ready(), "connection refused") })
	begin := time.Now()
	stop()
	require.Less(t, time.Since(begin), patience/2)
	require.Equal(t, 1, box.pending())
}

func TestWindowKeepsToReceiveMaximum(t *testing.T) {
	for name, c := range map[string]struct {
		window, receiveMaximum, most int
	}{"ours": {8, 100, 8}, "the broker's": {64, 4, 3}, "one": {64, 1, 1}} {
		t.Run(name, func(t *testing.T) {
			box, addr := newOutbox(), porttest.Addr(t)
			h, peak := &hook{}, atomic.Int32{}
			held := make(chan struct{})
			release := sync.OnceFunc(func() { close(held) })
			defer release()
			h.answer = func(string, []byte) error { <-held; return nil }
			broker(t, addr, h, func(o *mochi.Options) {
				o.Capabilities = mochi.NewDefaultServerCapabilities()
				o.Capabilities.ReceiveMaximum = uint16(c.receiveMaximum)
			})
			box.add(200)
			u, _ := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Outbox: box, Window: c.window})
			eventually(t, "window is full", func() bool {
				peak.Store(max(peak.Load(), int32(uplink.InFlight(u))))
				return int(peak.Load()) == c.most
			})
			release()
			eventually(t, "all published", func() bool {
				peak.Store(max(peak.Load(), int32(uplink.InFlight(u))))
				return box.pending() == 0
			})
			require.LessOrEqual(t, int(peak.Load()), c.most)
			require.Equal(t, upTo(200), h.got.firsts())
		})
	}
}

func TestRefusedEventsAreKeptAndRetried(t *testing.T) {
	box, addr := newOutbox(), porttest.Addr(t)
	refusals, over := atomic.Int32{}, atomic.Bool{}
	h := &hook{}
	h.answer = func(_ string, payload []byte) error {
		var m message
		_ = json.Unmarshal(payload, &m)
		if m.Key >= 40 && !over.Load() { // an outage that begins at 40
			refusals.Add(1)
			return packets.ErrQuotaExceeded
		}
		return nil
	}
	broker(t, addr, h, nil)
	box.add(100)
	u, _ := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Outbox: box})
	eventually(t, "says so", func() bool { return contains(u.Ready(), "0x97") })
	eventually(t, "is longer than the window", func() bool { return refusals.Load() > uplink.DefaultWindow+1 })
	over.Store(true)
	eventually(t, "all published", func() bool { return box.pending() == 0 })
	require.Equal(t, upTo(100), h.got.firsts(), "in order, nothing lost")
	require.NoError(t, u.Ready())
}

// A broker that refuses one event and takes those behind it gets both again, in
// order.
func TestRefusalInTheMiddleIsRepeatedInOrder(t *testing.T) {
	box, addr, refused := newOutbox(), porttest.Addr(t), atomic.Bool{}
	h := &hook{}
	h.answer = func(_ string, payload []byte) error {
		var m message
		if _ = json.Unmarshal(payload, &m); m.Key == 10 && refused.CompareAndSwap(false, true) {
			return packets.ErrUnspecifiedError
		}
		return nil
	}
	broker(t, addr, h, nil)
	box.add(30)
	_, _ = start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Outbox: box})
	eventually(t, "all published", func() bool { return box.pending() == 0 })
	require.Equal(t, upTo(30)[9:], h.got.last(21), "from the refused one on")
}

// The publish hook of the in-process broker blocks while what is behind it is
// down, so answers may take long.
func TestWithheldAnswersAreWaitedFor(t *testing.T) {
	box, addr := newOutbox(), porttest.Addr(t)
	h, held := &hook{}, make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	h.answer = func(string, []byte) error { <-held; return nil }
	broker(t, addr, h, nil)
	box.add(10)
	u, _ := start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Outbox: box})
	eventually(t, "in flight", func() bool { return uplink.InFlight(u) == 10 })
	require.Equal(t, 10, box.pending(), "nothing is removed before its PUBACK")
	release()
	eventually(t, "all published", func() bool { return box.pending() == 0 })
	require.Equal(t, 10, h.got.len())
}

func TestBrokerThatForgetsEverything(t *testing.T) {
	box, addr := newOutbox(), porttest.Addr(t)
	all := &received{}
	_, _ = start(t, uplink.Options{Broker: mqtt.Broker{URL: "mqtt://" + addr}, Outbox: box})
	const total = 4000
	box.add(total)
	for round := 0; box.pending() > 0; round++ {
		h := &hook{}
		closeBroker := broker(t, addr, h, nil)
		eventually(t, "progress", func() bool { return h.got.len() > 300 || box.pending() == 0 })
		closeBroker()
		h.got.mu.Lock()
		all.keys = append(all.keys, h.got.keys...)
		h.got.mu.Unlock()
		require.Less(t, round, 50)
	}
	require.Equal(t, upTo(total), all.firsts(), "first appearances are in order, none is lost")
	t.Logf("%d events, %d publications", total, all.len())
}

// RAEs that lost their broker together do not come back together.
func TestReconnectsWithJitter(t *testing.T) {
	var drawn atomic.Int64
	_, _ = start(t, uplink.Options{
		Broker: mqtt.Broker{URL: "mqtt://" + porttest.Addr(t)}, Outbox: newOutbox(),
		Rand: func() float64 { drawn.Add(1); return 0.5 },
	})
	eventually(t, "each attempt draws its delay", func() bool { return drawn.Load() > 3 })
}
