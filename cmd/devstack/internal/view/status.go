// Package view shows what the development stack is doing: a live table where
// the output is a terminal, and lines that can be read or searched where it is
// not.
package view

import (
	"slices"
	"strconv"
	"time"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Link is an address that a person may open.
type Link struct{ Name, URL string }

// Device is one row: a device session as the cloud's tables have it.
type Device struct {
	RAE, Session, MAC, Address, Name, Model, Status string

	EdgeSeq  int64 // last seq at the edge; 0 if this stack does not run the RAE
	CloudSeq int64 // last seq in the database
}

// Status is one look at the stack.
type Status struct {
	Up    time.Duration // since the start
	Phase string        // what goes on now, in a few words

	Devices  []Device
	Sessions int

	EventsIn    int64 // records that the bridge has in Kafka
	Outbox      int64 // events that wait at the edges
	Lag         int64 // records in Kafka that are not yet committed as applied
	Signals     int64
	Upserts     int64 // sessions written
	DeadLetters int64

	Links []Link
}

// Source takes a look. It must return within a second or so.
type Source func() Status

// look takes a look that a terminal can show: texts that came from devices lose
// what it would obey, and what is longer than a row.
func (s Source) look() Status {
	status := s()
	status.Phase = printable.Text(status.Phase)
	status.Devices = slices.Clone(status.Devices)
	for i := range status.Devices {
		d := &status.Devices[i]
		for _, text := range []*string{&d.RAE, &d.Session, &d.MAC, &d.Address, &d.Name, &d.Model, &d.Status} {
			*text = cut(printable.Text(*text), maxText)
		}
	}
	return status
}

// maxText is how much of a text is shown, in characters.
const maxText = 60

// counter is a name and its value in a Status.
type counter struct {
	name  string
	value string
}

func (s Status) counters() []counter {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	return []counter{
		{"devices", strconv.Itoa(len(s.Devices))},
		{"sessions", strconv.Itoa(s.Sessions)},
		{"outbox", n(s.Outbox)},
		{"events in", n(s.EventsIn)},
		{"lag", n(s.Lag)},
		{"signals", n(s.Signals)},
		{"upserts", n(s.Upserts)},
		{"dead letters", n(s.DeadLetters)},
	}
}

// name is d's name, by which rollcall finds it, or the model in parentheses
// where it has said none.
func (d Device) name() string {
	switch {
	case d.Name != "":
		return d.Name
	case d.Model != "":
		return "(" + d.Model + ")"
	}
	return "—"
}
