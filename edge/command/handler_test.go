package command_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/command"
	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
)

const rae = "RAE-1"

type world struct {
	*registry.Registry
	t       *testing.T
	o       registry.Options
	handler *command.Handler
	reg     *prometheus.Registry
	now     time.Time
	asked   int
}

func newWorld(t *testing.T, change ...func(*registry.Options)) *world {
	w := &world{t: t, now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	w.o = registry.Options{
		Path: filepath.Join(t.TempDir(), "registry.db"), RAE: rae, Logger: slog.New(slog.DiscardHandler), SnapshotInterval: -1,
		Now: func() time.Time { return w.now },
	}
	for _, c := range change {
		c(&w.o)
	}
	w.start()
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	require.NoError(t, w.Observe(t.Context(), registry.Step{Observations: []discovery.Observation{
		{MAC: "02:00:00:00:00:01", Kind: discovery.KindARP, Presence: discovery.Seen, Time: w.now},
	}}))
	return w
}

// start begins a process on what the one before has left.
func (w *world) start() {
	if w.Registry != nil {
		require.NoError(w.t, w.Close())
	}
	var err error
	w.Registry, err = registry.Open(w.o)
	require.NoError(w.t, err)
	w.reg = prometheus.NewRegistry()
	w.handler, err = command.New(command.Options{RAE: rae, Registry: w.Registry, Logger: w.o.Logger, Registerer: w.reg, Now: w.o.Now})
	require.NoError(w.t, err)
}

func (w *world) session() string { return w.Devices()[0].Session }

func (w *world) command(session string) device.Command {
	w.asked++
	return device.Command{
		ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", w.asked), Source: device.CommandSource("test"), RAE: rae, Session: session,
		Action: device.ActionSnapshot, Time: w.now, Expires: w.now.Add(time.Minute),
	}
}

func (w *world) handle(c device.Command) error {
	topic, err := c.Topic()
	require.NoError(w.t, err)
	b, err := c.Encode()
	require.NoError(w.t, err)
	return w.handler.Handle(w.t.Context(), topic, b)
}

// handleEncoded handles a command that this version does not encode: from is
// replaced in its JSON.
func (w *world) handleEncoded(c device.Command, from, to string) device.Reply {
	topic, err := c.Topic()
	require.NoError(w.t, err)
	b, err := c.Encode()
	require.NoError(w.t, err)
	require.Contains(w.t, string(b), from)
	require.NoError(w.t, w.handler.Handle(w.t.Context(), topic, bytes.ReplaceAll(b, []byte(from), []byte(to))))
	return w.newestReply()
}

// ask returns the reply that the command has added to the outbox.
func (w *world) ask(c device.Command) device.Reply {
	require.NoError(w.t, w.handle(c))
	reply := w.newestReply()
	require.Equal(w.t, c.ID, reply.Command)
	require.Equal(w.t, c.Action, reply.Action)
	return reply
}

func (w *world) newestReply() device.Reply {
	entries, err := w.Read(0, 1000)
	require.NoError(w.t, err)
	last := entries[len(entries)-1]
	reply, err := device.DecodeReply(last.Topic, last.Payload)
	require.NoError(w.t, err)
	return reply
}

func (w *world) count(result string) float64 {
	return metrictest.Value(w.t, w.reg, "rollcall_edge_commands_total", "result", result)
}

func (w *world) seq() int64 { return w.Devices()[0].Seq }

func TestACommandIsDoneOnceAndAnsweredEachTime(t *testing.T) {
	w := newWorld(t)
	c := w.command(w.session())
	first := w.ask(c)
	require.Equal(t, device.Done, first.Outcome)
	require.EqualValues(t, 2, first.SnapshotSeq())
	for range 5 {
		require.Equal(t, first, w.ask(c))
	}
	w.start()
	require.Equal(t, first, w.ask(c), "also by the next process")
	require.EqualValues(t, 2, w.seq(), "one snapshot")
	require.EqualValues(t, 1, w.count("repeated"))
	w.now = c.Expires
	require.Equal(t, first, w.ask(c), "what was done is not denied when the command expires")
}

func TestOutcomes(t *testing.T) {
	w := newWorld(t)
	gone := w.command("6a3c9f1e-3b1d-4b52-9d3e-0f6a3a1d2c77")
	require.Equal(t, device.UnknownSession, w.ask(gone).Outcome)

	late := w.command(w.session())
	w.now = late.Expires
	reply := w.ask(late)
	require.Equal(t, device.Expired, reply.Outcome)
	require.Contains(t, reply.Detail, "2026-11-21T09:01:00Z")
	require.EqualValues(t, 1, w.seq())

	for range command.DefaultBurst {
		require.Equal(t, device.Done, w.ask(w.command(w.session())).Outcome)
	}
	refused := w.command(w.session())
	require.Equal(t, device.Refused, w.ask(refused).Outcome)
	w.now = w.now.Add(command.DefaultInterval)
	require.Equal(t, device.Refused, w.ask(refused).Outcome, "a repetition is answered as before")
	require.Equal(t, device.Done, w.ask(w.command(w.session())).Outcome)
	require.Equal(t, device.Refused, w.ask(w.command(w.session())).Outcome)
	for result, want := range map[string]float64{"done": 4, "refused": 2, "expired": 1, "unknown-session": 1, "repeated": 1, "invalid": 0, "dropped": 0} {
		require.Equal(t, want, w.count(result), result)
	}
}

// Every action of the table is done at most once, also across a restart.
func TestEveryActionIsRemembered(t *testing.T) {
	for _, spec := range device.Actions {
		t.Run(string(spec.Name), func(t *testing.T) {
			w := newWorld(t)
			c := w.command(w.session())
			c.Action = spec.Name
			first := w.ask(c)
			require.Equal(t, device.Done, first.Outcome, first.Detail)
			require.NoError(t, spec.CheckResult(first.Result))
			seq := w.seq()
			w.start()
			require.Equal(t, first, w.ask(c))
			require.Equal(t, seq, w.seq(), "it is not done again")
		})
	}
}

func TestPingSendsItsTextBack(t *testing.T) {
	w := newWorld(t)
	c := w.command(w.session())
	c.Action, c.Arguments = device.ActionPing, json.RawMessage(`{"text":"is <anybody> there?"}`)
	reply := w.ask(c)
	require.Equal(t, device.Done, reply.Outcome)
	require.JSONEq(t, string(c.Arguments), string(reply.Result))
	require.EqualValues(t, 1, w.seq(), "it changes nothing")
}

func TestAnUnknownActionIsAnswered(t *testing.T) {
	w := newWorld(t)
	c := w.command(w.session())
	reply := w.handleEncoded(c, "command.snapshot.v1", "command.self-destruct.v1")
	require.Equal(t, device.Unsupported, reply.Outcome)
	require.Equal(t, c.ID, reply.Command)
	require.Equal(t, device.Action("self-destruct"), reply.Action)
	require.Contains(t, reply.Detail, "self-destruct")
	require.EqualValues(t, 1, w.count("unsupported"))
	require.EqualValues(t, 1, w.seq())
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	w := newWorld(t)
	c := w.command(w.session())
	c.Action, c.Arguments = device.ActionPing, json.RawMessage(`{"text":"x"}`)
	require.Equal(t, device.Refused, w.handleEncoded(c, `"text":"x"`, `"text":7`).Outcome)
	c.ID = w.command("").ID
	require.Equal(t, device.Refused, w.handleEncoded(c, `"text":"x"`, `"tex\u0000t":"x"`).Outcome)
	for range command.DefaultBurst {
		require.Equal(t, device.Done, w.ask(w.command(w.session())).Outcome, "a refused command takes no token")
	}
}

// A result that no reply can carry is refused; the command would come for ever.
func TestAResultThatIsTooLargeIsRefused(t *testing.T) {
	w := newWorld(t)
	c := w.command(w.session())
	c.Action, c.Arguments = device.ActionPing, json.RawMessage(`{"text":"`+strings.Repeat("<", device.MaxCommandBytes*2/3)+`"}`)
	reply := w.ask(c)
	require.Equal(t, device.Refused, reply.Outcome)
	require.Contains(t, reply.Detail, "breaks the contract")
}

func TestWhatBreaksTheContractIsCountedAndNotAnswered(t *testing.T) {
	w := newWorld(t)
	before, _ := w.Pending()
	other := w.command(w.session())
	other.RAE = "RAE-2"
	require.NoError(t, w.handle(other))
	topic, err := w.command(w.session()).Topic()
	require.NoError(t, err)
	require.NoError(t, w.handler.Handle(t.Context(), topic, []byte("{")))
	after, _ := w.Pending()
	require.Equal(t, before, after)
	require.EqualValues(t, 2, w.count("invalid"))
}

func TestAFullOutboxKeepsTheCommandUntilItExpires(t *testing.T) {
	w := newWorld(t, func(o *registry.Options) { o.MaxOutboxBytes = 1000 })
	c := w.command(w.session())
	require.ErrorIs(t, w.handle(c), registry.ErrOutboxFull)
	require.EqualValues(t, 1, w.seq())
	w.now = c.Expires
	for n := 0; w.count("dropped") == 0; n++ {
		require.Less(t, n, 10, "answers without room")
		require.NoError(t, w.handle(c), "it has expired: it may be given up")
		c.ID = w.command(w.session()).ID
	}
	require.EqualValues(t, 1, w.seq())
}
