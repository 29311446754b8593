package registry_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
)

func commandFor(session string, n int) device.Command {
	return device.Command{
		ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Source: device.CommandSource("test"), RAE: rae, Session: session,
		Action: device.ActionSnapshot, Time: start, Expires: start.Add(time.Minute),
	}
}

// snapshot does a snapshot command.
func (f *fixture) snapshot(c device.Command) (device.Reply, error) {
	return f.Do(f.t.Context(), c, func(txn *registry.CommandTxn) (any, error) {
		seq, err := txn.Snapshot()
		return device.SnapshotResult{Seq: seq}, err
	})
}

func (f *fixture) session() string { return f.Devices()[0].Session }

func (f *fixture) outbox() []registry.Entry {
	entries, err := f.Read(0, 10_000)
	require.NoError(f.t, err)
	return entries
}

func TestDoIsOneTransactionThatIsRemembered(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, map[string]any{"network.ipv4": "10.0.0.7"}))
	c := commandFor(f.session(), 1)
	require.True(t, f.HasSession(c.Session))
	reply, err := f.snapshot(c)
	require.NoError(t, err)
	require.Equal(t, device.Done, reply.Outcome)
	require.EqualValues(t, 2, reply.SnapshotSeq())

	entries := f.outbox()
	require.Len(t, entries, 3)
	e, err := device.DecodeRecord(entries[1].Topic, entries[1].Payload)
	require.NoError(t, err)
	require.Equal(t, device.Snapshot, e.Type)
	require.Equal(t, reply.SnapshotSeq(), e.Seq)
	got, err := device.DecodeReply(entries[2].Topic, entries[2].Payload)
	require.NoError(t, err)
	require.Equal(t, reply, got)

	f.reopen()
	again, ok := f.RememberedReply(c.ID)
	require.True(t, ok, "a restart forgets nothing")
	require.Equal(t, reply, again)
	require.NoError(t, f.Reply(t.Context(), again, c.Expires))
	entries = f.outbox()
	require.Equal(t, entries[2].Payload, entries[3].Payload, "the same answer, to the byte")

	f.clock.Advance(time.Hour)
	_, err = f.snapshot(device.Command{ID: commandFor("", 2).ID, Session: c.Session, Action: device.ActionSnapshot, Expires: f.clock.now.Add(time.Minute)})
	require.NoError(t, err)
	_, ok = f.RememberedReply(c.ID)
	require.False(t, ok, "what has expired is forgotten")
	f.reopen()
	_, ok = f.RememberedReply(c.ID)
	require.False(t, ok)
}

func TestDoRefuses(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, nil))
	const nobody = "6a3c9f1e-3b1d-4b52-9d3e-0f6a3a1d2c77"
	require.False(t, f.HasSession(nobody))
	_, err := f.snapshot(commandFor(nobody, 1))
	require.ErrorIs(t, err, registry.ErrUnknownSession)

	f.o.MaxReplies = 2
	f.reopen()
	refused := device.Reply{Command: commandFor("", 2).ID, RAE: rae, Session: f.session(), Action: device.ActionSnapshot, Outcome: device.Refused, Time: start}
	require.NoError(t, f.Reply(t.Context(), refused, start.Add(time.Minute)))
	_, err = f.snapshot(commandFor(f.session(), 3))
	require.NoError(t, err)
	seq := f.Devices()[0].Seq
	_, err = f.snapshot(commandFor(f.session(), 4))
	require.ErrorIs(t, err, registry.ErrTooManyReplies)
	require.Equal(t, seq, f.Devices()[0].Seq)
	refused.Command = commandFor("", 4).ID
	require.NoError(t, f.Reply(t.Context(), refused, start.Add(time.Minute)), "it is answered, and not remembered")
	_, ok := f.RememberedReply(refused.Command)
	require.False(t, ok)
	f.clock.Advance(2 * time.Minute)
	late := commandFor(f.session(), 5)
	late.Expires = f.clock.now.Add(time.Minute)
	_, err = f.snapshot(late)
	require.NoError(t, err, "what was remembered has expired")
}

func TestDoWithAFullOutboxChangesNothing(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, nil))
	_, size := f.Pending()
	f.o.MaxOutboxBytes = size + 700 // a snapshot, but no reply with it
	f.reopen()
	seq := f.Devices()[0].Seq
	_, err := f.snapshot(commandFor(f.session(), 1))
	require.ErrorIs(t, err, registry.ErrOutboxFull)
	require.Equal(t, seq, f.Devices()[0].Seq)
	_, ok := f.RememberedReply(commandFor("", 1).ID)
	require.False(t, ok)
	require.Len(t, f.outbox(), 1)

	require.NoError(t, f.Ack(t.Context(), f.outbox()[0].Key))
	_, err = f.snapshot(commandFor(f.session(), 1))
	require.ErrorIs(t, err, registry.ErrOutboxFull, "still too small for both")
	f.o.MaxOutboxBytes = 10_000
	f.reopen()
	reply, err := f.snapshot(commandFor(f.session(), 1))
	require.NoError(t, err)
	require.Equal(t, seq+1, reply.SnapshotSeq())
}

func TestDoChangesNothingWhenTheCommandFails(t *testing.T) {
	f := open(t)
	f.observe(seen(tv, nil))
	f.take()
	seq := f.Devices()[0].Seq
	failed := errors.New("no")
	_, err := f.Do(t.Context(), commandFor(f.session(), 1), func(txn *registry.CommandTxn) (any, error) {
		_, err := txn.Snapshot()
		require.NoError(t, err)
		return nil, failed
	})
	require.ErrorIs(t, err, failed)
	var invalid *device.Invalid
	_, err = f.Do(t.Context(), commandFor(f.session(), 1), func(txn *registry.CommandTxn) (any, error) {
		_, err := txn.Snapshot()
		return device.PingText{Text: "not what a snapshot results in"}, err
	})
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, seq, f.Devices()[0].Seq)
	require.Empty(t, f.outbox())
	_, ok := f.RememberedReply(commandFor("", 1).ID)
	require.False(t, ok)
}
