// Package check compares what the edges recorded with what the cloud's tables
// and the session workflows say. It is the second opinion on the whole path, so
// it shares no code with it: it reads the tables with its own SQL, the query's
// answer as plain JSON, and knows nothing of folds.
package check

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Attribute is a value and the seq of the event that set it.
type Attribute struct {
	Value json.RawMessage `json:"value"`
	Seq   int64           `json:"seq"`
}

// Record is one device session as one of the three keeps it.
type Record struct {
	RAE        string
	Session    string
	Seq        int64 // of the last event
	Closed     bool
	Missing    string // what it says is missing, as it writes that; "" for nothing
	Attributes map[string]Attribute
}

// Cloud reads what the cloud knows of a session.
type Cloud interface {
	// Sessions lists the sessions of a RAE in the tables.
	Sessions(ctx context.Context, rae string) ([]string, error)
	// Tables reads a session's rows; false if there are none.
	Tables(ctx context.Context, session string) (Record, bool, error)
	// Workflow asks the session's workflow; false if there is none.
	Workflow(ctx context.Context, session string) (Record, bool, error)
	// DeadLetters counts the records in the dead-letter topic.
	DeadLetters(ctx context.Context) (int64, error)
}

// Report is the verdict and what it rests on.
type Report struct {
	OK          bool     `json:"ok"`
	Differences []string `json:"differences"` // empty if OK
	DeadLetters int64    `json:"dead_letters"`
	Devices     []Device `json:"devices"`
	Truth       *Truth   `json:"truth,omitempty"` // how the devices compare with the capture's truth file, if it has one
}

// Device is one session in the report.
type Device struct {
	RAE       string   `json:"rae"`
	Session   string   `json:"session"`
	MAC       string   `json:"mac"`
	Addresses []string `json:"addresses"`
	Names     []string `json:"names"`
	Model     []string `json:"model_evidence"`
	Status    string   `json:"connection_status"`

	EdgeSeq     int64 `json:"edge_seq"`
	WorkflowSeq int64 `json:"workflow_seq"`
	DatabaseSeq int64 `json:"database_seq"`
	Attributes  int   `json:"attributes"`
}

// Run compares every edge record with the cloud, and the cloud's sessions of
// the same RAEs with the edge. Differences are in the report; an error means
// that something could not be read.
func Run(ctx context.Context, raes []string, edge []Record, cloud Cloud) (Report, error) {
	r := Report{Differences: []string{}, Devices: []Device{}}
	differ := func(format string, args ...any) { r.Differences = append(r.Differences, fmt.Sprintf(format, args...)) }

	known := map[string]bool{}
	for _, e := range edge {
		known[e.Session] = true
		tables, ok, err := cloud.Tables(ctx, e.Session)
		if err != nil {
			return r, fmt.Errorf("read the tables of session %s: %w", e.Session, err)
		}
		if !ok {
			differ("session %s (%s) is at the edge and not in the tables", e.Session, e.text("network.mac"))
		} else {
			compare(e, tables, "tables", differ)
		}
		workflow, ok, err := cloud.Workflow(ctx, e.Session)
		if err != nil {
			return r, fmt.Errorf("query the workflow of session %s: %w", e.Session, err)
		}
		if !ok {
			differ("session %s (%s) has no workflow", e.Session, e.text("network.mac"))
		} else {
			compare(e, workflow, "workflow", differ)
		}
		r.Devices = append(r.Devices, describe(e, workflow.Seq, tables.Seq))
	}
	for _, rae := range raes {
		sessions, err := cloud.Sessions(ctx, rae)
		if err != nil {
			return r, fmt.Errorf("list the sessions of RAE %s: %w", rae, err)
		}
		for _, s := range sessions {
			if known[s] {
				continue
			}
			tables, _, err := cloud.Tables(ctx, s)
			if err != nil {
				return r, fmt.Errorf("read the tables of session %s: %w", s, err)
			}
			if !tables.Closed {
				differ("session %s of RAE %s is open in the tables and unknown at the edge", s, rae)
			}
		}
	}
	var err error
	if r.DeadLetters, err = cloud.DeadLetters(ctx); err != nil {
		return r, fmt.Errorf("count the dead letters: %w", err)
	}
	if len(edge) == 0 {
		differ("the edges have no device: nothing was compared")
	}
	r.OK = len(r.Differences) == 0
	return r, nil
}

// compare says where got, a copy, differs from the edge's record.
func compare(want, got Record, where string, differ func(string, ...any)) {
	at := "session " + want.Session + ", " + where + ": "
	if got.RAE != want.RAE {
		differ("%sRAE is %q, at the edge %q", at, got.RAE, want.RAE)
	}
	if got.Seq != want.Seq {
		differ("%slast seq is %d, at the edge %d", at, got.Seq, want.Seq)
	}
	if got.Closed != want.Closed {
		differ("%sclosed is %t, at the edge %t", at, got.Closed, want.Closed)
	}
	if got.Missing != "" {
		differ("%sseqs are missing: %s", at, got.Missing)
	}
	names := slices.Sorted(maps.Keys(want.Attributes))
	for _, name := range names {
		g, ok := got.Attributes[name]
		w := want.Attributes[name]
		switch {
		case !ok:
			differ("%sattribute %s is absent, at the edge %s", at, name, w.Value)
		case !sameJSON(w.Value, g.Value):
			differ("%sattribute %s is %s, at the edge %s", at, name, g.Value, w.Value)
		case w.Seq != g.Seq:
			differ("%sattribute %s was set at seq %d, at the edge %d", at, name, g.Seq, w.Seq)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got.Attributes)) {
		if _, ok := want.Attributes[name]; !ok {
			differ("%sattribute %s is %s, at the edge absent", at, name, got.Attributes[name].Value)
		}
	}
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func describe(e Record, workflowSeq, databaseSeq int64) Device {
	return Device{
		RAE: e.RAE, Session: e.Session, MAC: e.text("network.mac"), Status: e.text("connection.status"),
		Addresses:   e.texts("network.ipv4", "network.last_ipv4", "network.ipv6"),
		Names:       e.texts("network.hostname", "dhcp.hostname", "mdns.hostname", "mdns.name", "mdns.instances"),
		Model:       e.texts("mdns.model", "ssdp.server", "dhcp.vendor_class", "mdns.services", "ssdp.types"),
		EdgeSeq:     e.Seq,
		WorkflowSeq: workflowSeq, DatabaseSeq: databaseSeq,
		Attributes: len(e.Attributes),
	}
}

// text is a string attribute, or "".
func (r Record) text(name string) string {
	var s string
	_ = json.Unmarshal(r.Attributes[name].Value, &s) // absent or of another type: no text
	return s
}

// texts are the strings of several attributes, each a string or an array of
// strings, without repetitions, in order.
func (r Record) texts(names ...string) []string {
	out := []string{}
	add := func(s string) {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, name := range names {
		v := r.Attributes[name].Value
		var many []string
		if json.Unmarshal(v, &many) == nil {
			for _, s := range many {
				add(s)
			}
			continue
		}
		add(r.text(name))
	}
	return out
}

// String is the report for people.
func (r Report) String() string {
	var b strings.Builder
	for _, d := range r.Differences {
		fmt.Fprintf(&b, "DIFFERS  %s\n", printable.Text(d))
	}
	if r.Truth != nil {
		fmt.Fprintf(&b, "%d of %d devices of the capture's truth were found with the address, name and status they ended with.\n", r.Truth.Found, r.Truth.Devices)
	}
	verdict := "NOT EQUAL"
	if r.OK {
		verdict = "EQUAL"
	}
	attributes := 0
	for _, d := range r.Devices {
		attributes += d.Attributes
	}
	fmt.Fprintf(&b, "%s: %d device sessions with %d attributes compared at the edge, in the workflow and in the tables; %d differences, %d dead letters.",
		verdict, len(r.Devices), attributes, len(r.Differences), r.DeadLetters)
	return b.String()
}
