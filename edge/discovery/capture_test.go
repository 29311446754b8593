package discovery_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// record is what a registry makes of observations, in its simplest form.
type record struct {
	values map[string]any
	sets   map[string]map[string]bool
	seen   map[string]int // observations by kind
	last   discovery.Presence

	history map[string]map[string]bool // every text an attribute ever had
}

func (r *record) remember(attr, value string) {
	if r.history[attr] == nil {
		r.history[attr] = map[string]bool{}
	}
	r.history[attr][value] = true
}

func (r *record) list(attr string) []string { return slices.Sorted(maps.Keys(r.sets[attr])) }

// ledger folds observations into records.
type ledger map[string]*record

func (l ledger) fold(o discovery.Observation) {
	r := l[o.MAC]
	if r == nil {
		if o.Presence != discovery.Seen {
			return
		}
		r = &record{values: map[string]any{}, sets: map[string]map[string]bool{}, seen: map[string]int{}, history: map[string]map[string]bool{}}
		l[o.MAC] = r
	}
	r.seen[o.Kind]++
	r.last = o.Presence
	for _, attr := range o.Unset {
		delete(r.values, attr)
	}
	maps.Copy(r.values, o.Set)
	for attr, v := range o.Set {
		if s, ok := v.(string); ok {
			r.remember(attr, s)
		}
	}
	for attr, members := range o.Add {
		if r.sets[attr] == nil {
			r.sets[attr] = map[string]bool{}
		}
		for _, m := range members {
			r.sets[attr][m] = true
			r.remember(attr, m)
		}
	}
	for attr, members := range o.Drop {
		for _, m := range members {
			delete(r.sets[attr], m)
		}
	}
}

// replay reads a whole capture the way the edge does: learn the LAN, then parse from the start.
func replay(t *testing.T, path string) (ledger, discovery.LAN, discovery.Snapshot) {
	t.Helper()
	ctx := context.Background()
	lan, err := discovery.LearnLAN(ctx, path, discovery.LAN{}, 0)
	require.NoError(t, err)
	stats, err := discovery.NewStats(nil)
	require.NoError(t, err)
	src, err := discovery.OpenFile(discovery.FileOptions{Path: path})
	require.NoError(t, err)
	defer src.Close()
	devices := ledger{}
	parser := discovery.NewParser(discovery.Options{
		LAN: lan, Learn: true, Stats: stats, OnRouter: func(mac string) { delete(devices, mac) },
	})
	for {
		frame, err := src.Next(ctx)
		if errors.Is(err, io.EOF) {
			return devices, parser.LAN(), stats.Snapshot()
		}
		require.NoError(t, err)
		observed := parser.Parse(frame)
		checkObservations(t, parser, observed)
		for _, o := range observed {
			devices.fold(o)
		}
	}
}

// TestCapturesOfRealDevices reads a directory of captures that is not part of the repository: one
// directory a device, with *.pcap files and mac.txt, the device's MAC.
func TestCapturesOfRealDevices(t *testing.T) {
	dir := os.Getenv("ROLLCALL_CAPTURES")
	if dir == "" {
		t.Skip("set ROLLCALL_CAPTURES to a directory of DEVICE/{*.pcap,mac.txt} to run it")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*.pcap"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		name := filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(filepath.Dir(path), "mac.txt"))
			require.NoError(t, err)
			mac := strings.ToLower(strings.TrimSpace(string(want)))
			devices, lan, stats := replay(t, path)
			t.Logf("LAN %v router %v %v", lan.Prefixes, slices.Collect(maps.Keys(lan.RouterMACs)), slices.Collect(maps.Keys(lan.RouterIPs)))
			t.Logf("stats %+v", stats)
			for _, m := range slices.Sorted(maps.Keys(devices)) {
				t.Logf("device %s seen %v last %v", m, devices[m].seen, devices[m].last)
				for _, attr := range slices.Sorted(maps.Keys(devices[m].values)) {
					t.Logf("    %-20s %v", attr, devices[m].values[attr])
				}
				for _, attr := range slices.Sorted(maps.Keys(devices[m].sets)) {
					t.Logf("    %-20s %q", attr, devices[m].list(attr))
				}
			}
			found := devices[mac]
			require.NotNil(t, found, "the device itself")
			address := device.AttrIPv4
			if found.last == discovery.Left {
				address = device.AttrLastIPv4
			}
			require.NotEmpty(t, found.values[address])
			require.NotEmpty(t, found.values[device.AttrDHCPFingerprint])
			for router := range lan.RouterMACs {
				require.NotContains(t, devices, router)
			}
		})
	}
}
