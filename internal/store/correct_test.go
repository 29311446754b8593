package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// What a snapshot lists otherwise is written, though the stored seq is not
// older: in the attribute, in what is copied from it, in the timeline of the
// device's identity and in its history.
func TestSnapshotCorrects(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(map[string]string{
		"network.hostname": `"tv"`, "connection.status": `"online"`, "netflix.esn": `"ESN-WRONG"`, "gone": `1`, "newer": `1`,
	})))
	apply(t, s, f.update(f.delta(2, map[string]string{"gone": `null`})))
	apply(t, s, f.update(f.snapshot(3, map[string]device.Attribute{ // forgets the tombstone
		"network.hostname": value(1, `"tv"`), "connection.status": value(1, `"online"`), "netflix.esn": value(1, `"ESN-WRONG"`), "newer": value(1, `1`),
	})))
	apply(t, s, f.update(f.delta(4, map[string]string{"connection.status": `"offline"`})))
	fix := f.update(f.snapshot(5, map[string]device.Attribute{
		"network.hostname": value(1, `"television"`), "connection.status": value(1, `"online"`), "netflix.esn": value(1, `"ESN-RIGHT"`),
		"gone": value(1, `1`), "newer": value(1, `2`),
	}))
	require.Len(t, fix.Corrected, 5)
	check := func(status string) {
		t.Helper()
		got, _ := load(t, s, f.id)
		sameState(t, f.state, got)
		require.Equal(t, "television", query[string](t, url, `SELECT hostname FROM device_session`))
		require.Equal(t, status, query[string](t, url, `SELECT connection_status FROM device_session`))
		require.Equal(t, "television", query[string](t, url, `SELECT hostname FROM network_interface`))
		require.Equal(t, "ESN-RIGHT", query[string](t, url, `SELECT value FROM device_identity WHERE valid_to IS NULL`))
		require.Equal(t, "1 tv,5 television", query[string](t, url,
			`SELECT string_agg(seq || ' ' || (value #>> '{}'), ',' ORDER BY seq) FROM attribute_change WHERE name = 'network.hostname'`),
			"what was shown until then stays")
	}
	apply(t, s, fix)
	check("online")
	apply(t, s, fix)
	check("online")

	// A try that was given up, and comes after what is newer.
	apply(t, s, f.update(f.delta(6, map[string]string{"newer": `6`, "connection.status": `"asleep"`})))
	apply(t, s, fix)
	check("asleep")

	past, err := s.AsOf(t.Context(), f.id, at(4), store.Observed)
	require.NoError(t, err)
	for _, c := range past.Changes {
		if c.Name == "network.hostname" {
			require.Equal(t, `"tv"`, string(c.Attribute.Value))
		}
	}

	// The history has the correction also when what it corrected has left.
	_, err = s.Expire(t.Context(), store.Horizons{History: later()}, 100)
	require.NoError(t, err)
	past, err = s.AsOf(t.Context(), f.id, at(100), store.Observed)
	require.NoError(t, err)
	require.Empty(t, past.Unrecorded)
	for _, c := range past.Changes {
		if c.Name == "network.hostname" {
			require.Equal(t, `"television"`, string(c.Attribute.Value))
		}
	}
}

// What only steps over a refused batch is never refused itself, also where the
// row was begun by a batch that another RAE had sent.
func TestStepOverOfAnotherRAE(t *testing.T) {
	s, _ := open(t)
	over := func(rae string, next int64) store.Update {
		return store.Update{RAE: rae, Session: session(1), Positions: []device.Position{{Topic: topic, Partition: 3, Next: next}}}
	}
	apply(t, s, over("rae-1", 5))
	apply(t, s, over("rae-2", 6))
	_, positions := load(t, s, session(1))
	require.Equal(t, int64(6), positions[0].Next)

	f := newFeed(1)
	f.rae = "rae-2"
	require.ErrorIs(t, s.Apply(t.Context(), []store.Update{f.update(f.opened(nil))}), store.ErrRefused, "whose it is does not change")
}
