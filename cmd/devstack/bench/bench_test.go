package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// What the fleet makes is lawful, and comes to what its own model says.
func TestFleetMakesLawfulEvents(t *testing.T) {
	f := newFleet("rae", 3, 1)
	for _, d := range f.duts {
		var state device.State
		var bytes, deltas int
		for range 60 {
			e := d.next(f.random, 0.3)
			r, err := record("topic", d, e)
			require.NoError(t, err)
			decoded, err := device.DecodeRecord(string(r.Key), r.Value)
			require.NoError(t, err)
			if e.Type == device.Delta {
				bytes, deltas = bytes+len(r.Value), deltas+1
			}
			change := state.Apply(device.FoldOf(decoded))
			require.Empty(t, change.Repaired)
			require.Empty(t, change.OverLimit)
		}
		require.Equal(t, d.seq, state.AsOf)
		require.Empty(t, state.Missing())
		require.Len(t, d.attributes, 20)
		require.Empty(t, differs(d.attributes, state.Live()))
		require.InDelta(t, 900, bytes/deltas, 60)
	}
}

func TestTheSameSeedDrawsTheSameDevices(t *testing.T) {
	require.Equal(t, newFleet("rae", 5, 7).duts[4].session, newFleet("rae", 5, 7).duts[4].session)
	require.NotEqual(t, newFleet("rae", 5, 7).duts[4].session, newFleet("rae", 5, 8).duts[4].session)
}

func TestDiffersSeesBothDirections(t *testing.T) {
	one := map[string]device.Attribute{"a": {Value: []byte(`"x"`), Seq: 2}}
	require.Empty(t, differs(one, map[string]device.Attribute{"a": {Value: []byte(`"x"`), Seq: 2}}))
	require.Equal(t, "a", differs(one, map[string]device.Attribute{"a": {Value: []byte(`"x"`), Seq: 1}}))
	require.Equal(t, "a", differs(one, nil))
	require.Equal(t, "a", differs(nil, one))
}

func TestFiguresAreJudgedByTheirGoal(t *testing.T) {
	for _, c := range []struct {
		value float64
		goal  string
		met   any
	}{
		{5, ">= 5", true}, {4.99, ">= 5", false},
		{256, "<= 256", true}, {256.1, "<= 256", false},
		{0, "= 0", true}, {1, "= 0", false},
		{1, "", nil},
	} {
		f := newFigure("x", c.value, "", c.goal)
		if c.met == nil {
			require.Nil(t, f.Met)
			continue
		}
		require.Equal(t, c.met, *f.Met, c)
	}
}

func TestOutIsWhatItIsSaidToBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	require.NoError(t, writeJSON(path, []figure{newFigure("a", 123456.7, "records/s", ""), newFigure("b", 1.23456, "times", ">= 1")}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.JSONEq(t, `[{"name":"a","value":123457,"unit":"records/s","goal":"","met":null},{"name":"b","value":1.235,"unit":"times","goal":">= 1","met":true}]`, string(b))
	require.True(t, json.Valid(b))
}

func TestQuantiles(t *testing.T) {
	var l latencies
	require.InDelta(t, -1, l.quantile(0.5), 0)
	for i := range 100 {
		l = append(l, time.Duration(i)*time.Millisecond)
	}
	require.InDelta(t, 50, l.quantile(0.5), 0)
	require.InDelta(t, 99, l.quantile(0.99), 0)
}

// Half starts and half signals, each at half of its own floor, is half of the
// machine; what dips for five seconds is seen.
func TestShareOfTheFloor(t *testing.T) {
	b := &bench{floor: 100, startFloor: 50}
	var samples []work
	at := time.Time{}
	w := work{}
	for i := range 41 { // 20 s; the second half goes at half the rate
		w.at = at.Add(time.Duration(i) * 500 * time.Millisecond)
		samples = append(samples, w)
		starts, signals := 12.5, 25.0 // in half a second: all of the machine
		if i >= 20 {
			starts, signals = starts/2, signals/2
		}
		w.loads += starts
		w.applies += starts + signals
	}
	share, rate := b.least(samples)
	require.InDelta(t, 0.5, share, 0.01)
	require.InDelta(t, 37.5, rate, 0.5)
}

func TestOnlyBringsWhatItNeeds(t *testing.T) {
	var names []string
	for _, s := range selected([]string{"kill"}) {
		names = append(names, s.name)
	}
	require.Equal(t, []string{"floor", "burst", "kill"}, names)
	require.Len(t, selected(nil), len(scenarios))
}
