package check_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/check"
)

type cloud struct {
	tables, workflows map[string]check.Record
}

func (c cloud) Sessions(context.Context, string) ([]string, error) {
	var out []string
	for s := range c.tables {
		out = append(out, s)
	}
	return out, nil
}

func (c cloud) Tables(_ context.Context, session string) (check.Record, bool, error) {
	r, ok := c.tables[session]
	return r, ok, nil
}

func (c cloud) Workflow(_ context.Context, session string) (check.Record, bool, error) {
	r, ok := c.workflows[session]
	return r, ok, nil
}

func (c cloud) DeadLetters(context.Context) (int64, error) { return 0, nil }

func record(change func(*check.Record)) check.Record {
	r := check.Record{RAE: "r", Session: "s", Seq: 3, Attributes: map[string]check.Attribute{
		"network.mac":  {Value: json.RawMessage(`"00:11:22:33:44:55"`), Seq: 1},
		"network.ipv4": {Value: json.RawMessage(`"10.0.0.5"`), Seq: 3},
		"mdns.model":   {Value: json.RawMessage(`{"a": 1, "b": 2}`), Seq: 2},
	}}
	if change != nil {
		change(&r)
	}
	return r
}

// The checker must be able to say no: each thing it compares, when changed,
// changes the verdict.
func TestEveryDifferenceIsSeen(t *testing.T) {
	for name, change := range map[string]func(*check.Record){
		"rae":     func(r *check.Record) { r.RAE = "other" },
		"seq":     func(r *check.Record) { r.Seq = 2 },
		"closed":  func(r *check.Record) { r.Closed = true },
		"missing": func(r *check.Record) { r.Missing = "[[2,2]]" },
		"value": func(r *check.Record) {
			r.Attributes["network.ipv4"] = check.Attribute{Value: json.RawMessage(`"10.0.0.6"`), Seq: 3}
		},
		"set at": func(r *check.Record) {
			r.Attributes["network.ipv4"] = check.Attribute{Value: json.RawMessage(`"10.0.0.5"`), Seq: 2}
		},
		"absent":  func(r *check.Record) { delete(r.Attributes, "network.ipv4") },
		"surplus": func(r *check.Record) { r.Attributes["x"] = check.Attribute{Value: json.RawMessage(`1`), Seq: 3} },
	} {
		for _, where := range []string{"tables", "workflow"} {
			t.Run(name+" in the "+where, func(t *testing.T) {
				tables, workflow := record(nil), record(nil)
				if where == "tables" {
					change(&tables)
				} else {
					change(&workflow)
				}
				c := cloud{map[string]check.Record{"s": tables}, map[string]check.Record{"s": workflow}}
				report, err := check.Run(t.Context(), []string{"r"}, []check.Record{record(nil)}, c)
				require.NoError(t, err)
				require.False(t, report.OK)
				require.Len(t, report.Differences, 1)
				require.Contains(t, report.Differences[0], where)
			})
		}
	}
}

func TestEqual(t *testing.T) {
	other := record(func(r *check.Record) { // as jsonb would write it
		r.Attributes["mdns.model"] = check.Attribute{Value: json.RawMessage(`{"b":2,"a":1.0}`), Seq: 2}
	})
	c := cloud{map[string]check.Record{"s": other}, map[string]check.Record{"s": other}}
	report, err := check.Run(t.Context(), []string{"r"}, []check.Record{record(nil)}, c)
	require.NoError(t, err)
	require.True(t, report.OK, report.Differences)
	require.Equal(t, []string{"10.0.0.5"}, report.Devices[0].Addresses)
}

func TestAbsentAndUnknownSessions(t *testing.T) {
	empty := cloud{}
	report, err := check.Run(t.Context(), []string{"r"}, []check.Record{record(nil)}, empty)
	require.NoError(t, err)
	require.Len(t, report.Differences, 2, "not in the tables, no workflow")

	stray := cloud{tables: map[string]check.Record{"z": record(nil)}}
	report, err = check.Run(t.Context(), []string{"r"}, nil, stray)
	require.NoError(t, err)
	require.False(t, report.OK)
	require.Len(t, report.Differences, 2, "unknown at the edge, and nothing was compared")
}

func TestTruth(t *testing.T) {
	dir := t.TempDir()
	capture := filepath.Join(dir, "lan.pcap")
	report := check.Report{OK: true, Devices: []check.Device{{RAE: "r", MAC: "00:11:22:33:44:55", Addresses: []string{"10.0.0.5"}, Names: []string{"tv.local"}, Status: "online"}}}

	none := report
	require.NoError(t, none.CompareTruth(capture, "r"))
	require.Nil(t, none.Truth)

	write := func(s string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "truth.json"), []byte(s), 0o600))
	}
	write(`{"router":{"mac":"aa:aa:aa:aa:aa:aa"},"devices":[{"mac":"00:11:22:33:44:55","final":{"ipv4":"10.0.0.5","host_name":"tv","status":"online"}}]}`)
	good := report
	require.NoError(t, good.CompareTruth(capture, "r"))
	require.True(t, good.OK, good.Differences)
	require.Equal(t, 1, good.Truth.Found)

	write(`{"router":{"mac":"00:11:22:33:44:55"},"devices":[
		{"mac":"00:11:22:33:44:55","final":{"ipv4":"10.0.0.6","host_name":"radio","status":"offline"}},
		{"mac":"00:11:22:33:44:66","final":{}}]}`)
	wrong := report
	require.NoError(t, wrong.CompareTruth(capture, "r"))
	require.False(t, wrong.OK)
	require.Len(t, wrong.Differences, 5)

	write(`[]`)
	require.Error(t, report.CompareTruth(capture, "r"))
}
