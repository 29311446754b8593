// Package devicetest draws lawful histories of device sessions for property
// tests, and says what they must come to. Its Model replays events one by one
// in seq order and shares no code with the fold: it is the second opinion.
package devicetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Epoch is when every history begins.
var Epoch = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// Model is a session as a naive reader of the events in seq order would keep it.
type Model struct {
	RAE, Session string
	Seq          int64
	Closed       bool
	Attributes   map[string]device.Attribute
}

// Take applies the next event. It panics on an event out of order: a model that
// is fed wrongly must not give an answer.
func (m *Model) Take(e device.Event) {
	if e.Seq != m.Seq+1 {
		panic(fmt.Sprintf("model at seq %d was given seq %d", m.Seq, e.Seq))
	}
	if m.Attributes == nil {
		m.RAE, m.Session, m.Attributes = e.RAE, e.Session, map[string]device.Attribute{}
	}
	m.Seq = e.Seq
	switch e.Type {
	case device.Opened, device.Delta:
		for name, a := range e.Attributes {
			if bytes.Equal(a.Value, []byte("null")) {
				delete(m.Attributes, name)
			} else {
				m.Attributes[name] = a
			}
		}
	case device.Closed:
		m.Closed = true
	case device.Snapshot: // says what the model knows already
	}
}

// snapshot is the snapshot event that a true edge would publish next.
func (m *Model) snapshot(at time.Time) device.Event {
	e := device.Event{RAE: m.RAE, Session: m.Session, Type: device.Snapshot, Seq: m.Seq + 1, Time: at, Seen: at.Add(-time.Second), Attributes: map[string]device.Attribute{}}
	for name, a := range m.Attributes {
		e.Attributes[name] = a
	}
	e.Hash = device.Hash(e.Attributes)
	return e
}

// Of is the model of a whole history.
func Of(events []device.Event) Model {
	var m Model
	for _, e := range events {
		m.Take(e)
	}
	return m
}

// History draws a lawful history of one session: opened, then deltas and
// snapshots, sometimes closed, at most most events.
func History(rae, session string, most int) *rapid.Generator[[]device.Event] {
	return rapid.Custom(func(t *rapid.T) []device.Event {
		var m Model
		n := rapid.IntRange(1, most).Draw(t, "events")
		events := make([]device.Event, 0, n)
		at := Epoch
		for len(events) < n {
			at = at.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			var e device.Event
			switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
			case len(events) == 0:
				e = change(t, device.Opened, rae, session, 1, at)
			case kind == 0 && len(events) == n-1:
				e = device.Event{RAE: rae, Session: session, Type: device.Closed, Seq: m.Seq + 1, Time: at, Reason: "forgotten"}
			case kind <= 2:
				e = m.snapshot(at)
			default:
				e = change(t, device.Delta, rae, session, m.Seq+1, at)
			}
			m.Take(e)
			events = append(events, e)
		}
		return events
	})
}

func change(t *rapid.T, typ device.Type, rae, session string, seq int64, at time.Time) device.Event {
	e := device.Event{RAE: rae, Session: session, Type: typ, Seq: seq, Time: at, Attributes: map[string]device.Attribute{}}
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		name := rapid.SampledFrom([]string{"a", "b.c", device.AttrIPv4, device.AttrConnectionStatus, "x_1"}).Draw(t, "name")
		value := rapid.SampledFrom([]string{"null", `1`, `"on"`, `"off"`, `["a","b"]`, `{"k":true}`, `""`}).Draw(t, "value")
		e.Attributes[name] = device.Attribute{Value: json.RawMessage(value), Seq: seq, At: at}
	}
	return e
}

// Deliver draws what at-least-once delivery may make of a history: every event
// at least once, some again, in any order.
func Deliver(events []device.Event) *rapid.Generator[[]device.Event] {
	return rapid.Custom(func(t *rapid.T) []device.Event {
		out := append([]device.Event(nil), events...)
		for range rapid.IntRange(0, len(events)).Draw(t, "again") {
			out = append(out, rapid.SampledFrom(events).Draw(t, "duplicate"))
		}
		return rapid.Permutation(out).Draw(t, "order")
	})
}
