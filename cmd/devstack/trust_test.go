package main

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

// edgeSession sends the events of a session as a bridge would, with times of the
// test's choice.
type edgeSession struct {
	t       *testing.T
	s       *stack
	rae, id string
	seq     int64
}

func (e *edgeSession) send(kind device.Type, observed, received time.Time, attributes map[string]string) {
	e.t.Helper()
	e.seq++
	event := device.Event{RAE: e.rae, Session: e.id, Type: kind, Seq: e.seq, Time: observed.UTC().Truncate(time.Millisecond)}
	if kind == device.Closed {
		event.Reason = "forgotten"
	} else {
		event.Attributes = map[string]device.Attribute{}
	}
	for name, value := range maps.All(attributes) {
		event.Attributes[name] = device.Attribute{Value: json.RawMessage(value), Seq: e.seq, At: event.Time}
	}
	value, err := event.Encode()
	require.NoError(e.t, err)
	key, err := device.SessionTopic(e.rae, e.id, device.KindEvents)
	require.NoError(e.t, err)
	require.NoError(e.t, e.s.kafka.ProduceSync(e.t.Context(), &kgo.Record{Topic: device.KafkaEvents, Key: []byte(key), Value: value, Timestamp: received}).FirstErr())
}

// await waits until the device that ref names is as wanted.
func await(t *testing.T, s *stack, ref string, as func(store.Device) bool, why string) (d store.Device) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := s.store.GetDevice(t.Context(), ref)
		d = got
		return err == nil && as(d)
	}, patience, 50*time.Millisecond, why)
	return d
}

// One event of another RAE with a reserved television's UDN and the year 9999 moves
// nothing. When the first RAE closes its session the other one gets the device.
func TestAnotherRAECannotTakeADevice(t *testing.T) {
	s := testStack(t, testFlags(t, t.TempDir()), testLog(t))
	now := time.Now()
	udn := map[string]string{"identity.udns": `["uuid:5f0c1f6e-aaaa-4bb3-a982-576089a2e8ed"]`, "connection.status": `"online"`}
	tv := &edgeSession{t: t, s: s, rae: "RAE-1", id: uuid.NewString()}
	tv.send(device.Opened, now, now, udn)
	was := await(t, s, tv.id, func(d store.Device) bool { return d.AsOf == 1 }, "the television is known").Device
	_, _, err := s.store.Reserve(t.Context(), was, "jana", "", time.Hour)
	require.NoError(t, err)

	thief := &edgeSession{t: t, s: s, rae: "RAE-2", id: uuid.NewString()}
	thief.send(device.Opened, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), now, udn)
	d := await(t, s, thief.id, func(d store.Device) bool { return len(d.Claims) == 1 }, "the claim is noted")
	require.NotEqual(t, was, d.Device)
	require.WithinDuration(t, now, d.LastObserved, time.Second, "shown as received")
	d = await(t, s, was, func(d store.Device) bool { return len(d.Claims) == 1 }, "the claim is shown")
	require.Equal(t, "RAE-1", d.RAE)
	require.Equal(t, device.Online, d.Status)
	require.Equal(t, "jana", d.Test.Holder)
	for _, session := range []string{tv.id, thief.id} {
		require.Eventually(t, func() bool {
			var v workflows.StateView
			q, err := s.temporal.QueryWorkflow(t.Context(), device.WorkflowID(session), "", workflows.QueryState)
			return err == nil && q.Get(&v) == nil && v.TestState != nil && len(v.TestState.Claims) == 1
		}, patience, 50*time.Millisecond, "both status cards show it")
	}

	tv.send(device.Closed, time.Now(), time.Now(), nil)
	d = await(t, s, thief.id, func(d store.Device) bool { return d.Device == was }, "the claim is honoured")
	require.Equal(t, "jana", d.Test.Holder)
	d = await(t, s, was, func(d store.Device) bool { return d.RAE == "RAE-2" }, "it is shown at the other RAE")
	require.Empty(t, d.Claims)
}

// A bridge half an hour ahead, and one that is right: the live session is the newer
// one. A close that no edge sent does not keep it from living on.
func TestSkewedBridgesCloseNoLiveSession(t *testing.T) {
	s := testStack(t, testFlags(t, t.TempDir()), testLog(t))
	mac := map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`, "connection.status": `"online"`}
	dead, live := &edgeSession{t: t, s: s, rae: "RAE-1", id: uuid.NewString()}, &edgeSession{t: t, s: s, rae: "RAE-1", id: uuid.NewString()}
	dead.send(device.Opened, time.Now(), time.Now().Add(30*time.Minute), mac)
	await(t, s, dead.id, func(d store.Device) bool { return d.AsOf == 1 }, "the first session is there")
	live.send(device.Opened, time.Now(), time.Now(), mac)
	await(t, s, live.id, func(d store.Device) bool { return d.AsOf == 1 }, "the second session is there")
	rivals, err := s.store.Rivals(t.Context(), live.id)
	require.NoError(t, err)
	require.Equal(t, store.Rivals{Older: []string{dead.id}}, rivals)

	// The cloud closes both, as it would after five silent minutes.
	for _, session := range []string{live.id, dead.id} {
		require.NoError(t, s.temporal.SignalWorkflow(t.Context(), device.WorkflowID(session), "", workflows.SignalClose, workflows.CloseRequest{Reason: "superseded"}))
		await(t, s, session, func(d store.Device) bool { return d.Closed == 1 }, "it is closed")
	}
	live.send(device.Delta, time.Now(), time.Now(), map[string]string{"network.hostname": `"tv"`})
	d := await(t, s, live.id, func(d store.Device) bool { return d.AsOf == 2 }, "an event past the close is applied")
	require.Zero(t, d.Closed)
	require.EqualValues(t, 1, d.Counters.Reopened)
	var v workflows.StateView
	q, err := s.temporal.QueryWorkflow(t.Context(), device.WorkflowID(live.id), "", workflows.QueryState)
	require.NoError(t, err)
	require.NoError(t, q.Get(&v))
	require.Equal(t, d.Hash, v.Hash)
	require.Zero(t, v.Closed)
	d = await(t, s, dead.id, func(d store.Device) bool { return d.Session == dead.id }, "the dead one")
	require.EqualValues(t, 1, d.Closed)
}
