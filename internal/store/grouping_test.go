package store_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/store"
)

// brought is what a session's attributes say, update by update.
type brought []map[string]string

var pools = map[string][]string{
	"netflix.esn": {"esn-1", "esn-2", "esn-3"}, "device.serial": {"serial-1", "serial-2"}, "identity.udns": {"udn-1", "udn-2", "udn-3"},
	"dhcp.client_id": {"client-1", "client-2"}, "network.mac": {"1", "2", "3"},
}

func drawBrought(t *rapid.T) brought {
	var b brought
	for range rapid.IntRange(1, 3).Draw(t, "updates") {
		u := map[string]string{}
		for _, name := range []string{"netflix.esn", "device.serial", "identity.udns", "dhcp.client_id", "network.mac"} {
			if rapid.IntRange(0, 3).Draw(t, "has") == 0 {
				u[name] = rapid.SampledFrom(pools[name]).Draw(t, name)
			}
		}
		b = append(b, u)
	}
	return b
}

// sets is a union-find over names.
type sets map[string]string

func (s sets) of(x string) string {
	for s[x] != "" {
		x = s[x]
	}
	return x
}

func (s sets) join(x, y string) {
	if x, y = s.of(x), s.of(y); x != y {
		s[x] = y
	}
}

// model groups sessions by the words of the rules: by shared strong evidence;
// and the others by weak evidence, where that leads to one device at most.
// A session that has no group of the model's has the empty name.
func model(sessions []brought) []string {
	strong, weak := sets{}, sets{}
	firm := make([]bool, len(sessions))
	for n, b := range sessions {
		s := fmt.Sprint("session ", n)
		for _, u := range b {
			for name, v := range u {
				if name == "dhcp.client_id" || name == "network.mac" {
					weak.join(s, name+v)
					continue
				}
				firm[n] = true
				strong.join(s, name+v)
			}
		}
	}
	led := map[string]map[string]bool{} // by weak evidence, to firm devices
	for n := range sessions {
		s := fmt.Sprint("session ", n)
		if firm[n] {
			cluster := weak.of(s)
			if led[cluster] == nil {
				led[cluster] = map[string]bool{}
			}
			led[cluster][strong.of(s)] = true
		}
	}
	out := make([]string, len(sessions))
	for n := range sessions {
		s := fmt.Sprint("session ", n)
		switch to := led[weak.of(s)]; {
		case firm[n]:
			out[n] = strong.of(s)
		case len(to) == 0:
			out[n] = weak.of(s)
		case len(to) == 1:
			for d := range to {
				out[n] = d
			}
		}
	}
	return out
}

// play applies the sessions in an order and groups that are drawn, and returns
// each session's device once every conflict is merged, and how many there were.
func play(t *rapid.T, s *store.Store, url string, sessions []brought, run string) (devices []string, conflicts int) {
	id := func(n int) string { return uuid.NewSHA1(uuid.NameSpaceURL, fmt.Append(nil, run, n)).String() }
	text := func(name, v string) string {
		switch name {
		case "network.mac":
			h := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Append(nil, run, v))
			return fmt.Sprintf(`"9c:b6:%02x:%02x:%02x:%02x"`, h[0], h[1], h[2], h[3])
		case "identity.udns":
			return fmt.Sprintf(`["uuid:%s-%s"]`, run, v)
		}
		return fmt.Sprintf("%q", run+"-"+v)
	}
	feeds, next := make([]*feed, len(sessions)), make([]int, len(sessions))
	for n := range feeds {
		feeds[n] = &feed{rae: "rae-1", id: id(n)}
	}
	for {
		var left []int
		for n := range sessions {
			if next[n] < len(sessions[n]) {
				left = append(left, n)
			}
		}
		if len(left) == 0 {
			break
		}
		group := rapid.SliceOfNDistinct(rapid.SampledFrom(left), 1, min(2, len(left)), rapid.ID).Draw(t, "group")
		var updates []store.Update
		for _, n := range group {
			attributes := map[string]string{}
			for name, v := range sessions[n][next[n]] {
				attributes[name] = text(name, v)
			}
			next[n]++
			e := feeds[n].delta(int64(next[n]), attributes)
			if next[n] == 1 {
				e = feeds[n].opened(attributes)
			}
			updates = append(updates, feeds[n].update(e))
		}
		require.NoError(t, s.Apply(ctx, updates))
	}
	for {
		open, err := s.Conflicts(ctx, "", false)
		require.NoError(t, err)
		if len(open) == 0 {
			break
		}
		conflicts++
		_, err = s.MergeConflict(ctx, open[0].ID, "test")
		require.NoError(t, err)
	}
	for n := range sessions {
		d, err := s.GetDevice(ctx, id(n))
		require.NoError(t, err)
		devices = append(devices, d.Device)
	}
	return devices, conflicts
}

// Whatever the order, sessions are grouped as the model says, once conflicts are
// settled by merging.
func TestGroupingDoesNotDependOnOrder(t *testing.T) {
	s, url := open(t)
	run, placed, conflicts := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		sessions := rapid.SliceOfN(rapid.Custom(drawBrought), 2, 5).Draw(t, "sessions")
		want := model(sessions)
		devices, n := play(t, s, url, sessions, fmt.Sprintf("run%d", run))
		conflicts += n
		for i := range sessions {
			for j := range i {
				if want[i] == "" || want[j] == "" {
					continue
				}
				placed++
				require.Equal(t, want[i] == want[j], devices[i] == devices[j], "sessions %d and %d", j, i)
			}
		}
	})
	require.Positive(t, placed)
	require.Positive(t, conflicts)
	// What is left is sound: no device is empty but for those that own strong
	// evidence, and every owner exists and holds its spans.
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_identity i JOIN device_session s USING (session_id) WHERE i.device_id <> s.device_id`))
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device d WHERE NOT EXISTS (SELECT 1 FROM device_session s WHERE s.device_id = d.device_id)
		AND NOT EXISTS (SELECT 1 FROM identity_owner o WHERE o.device_id = d.device_id)`))
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_session s WHERE identified <> EXISTS (SELECT 1 FROM device_identity i WHERE i.session_id = s.session_id AND kind IN ('esn', 'udn', 'serial'))`))
}
