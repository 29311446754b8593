package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/store"
)

func TestReserve(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	id := deviceOf(t, s, f, map[string]string{"connection.status": `"online"`, "network.hostname": `"tv"`})
	available := func() int {
		page, err := s.ListDevices(t.Context(), store.Filter{Available: true})
		require.NoError(t, err)
		return len(page.Devices)
	}
	require.Equal(t, 1, available())

	// Several ask at once: one gets it, the others learn who.
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() { _, _, errs[i] = s.Reserve(ctx, "tv", fmt.Sprint("jana-", i), "smoke", time.Hour) })
	}
	wg.Wait()
	winner := ""
	for i, err := range errs {
		if err == nil {
			require.Empty(t, winner)
			winner = fmt.Sprint("jana-", i)
		}
	}
	require.NotEmpty(t, winner)
	for _, err := range errs {
		var held *store.HeldError
		if errors.As(err, &held) {
			require.Equal(t, winner, held.Holder)
			require.WithinDuration(t, time.Now().Add(time.Hour), held.LeaseUntil, time.Minute)
			require.ErrorContains(t, err, fmt.Sprintf("is held by %q until ", winner))
		}
	}
	require.Zero(t, available())
	d, err := s.GetDevice(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, store.StateInTest, d.Test.State)
	require.Equal(t, winner, d.Test.Holder)
	require.Equal(t, "online", d.Status, "which is another thing")

	var held *store.HeldError
	_, _, err = s.Renew(t.Context(), "tv", "someone", time.Hour)
	require.ErrorAs(t, err, &held)
	_, _, err = s.Release(t.Context(), "tv", "someone", false)
	require.ErrorAs(t, err, &held)
	_, _, err = s.SetTestState(t.Context(), "tv", store.StateMaintenance, "ops", "", false)
	require.ErrorAs(t, err, &held)
	_, state, err := s.Renew(t.Context(), "tv", winner, 3*time.Hour)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(3*time.Hour), state.LeaseUntil, time.Minute)

	// A lease that has ended needs nobody to end it.
	execute(t, url, `UPDATE device_test_state SET lease_until = now()`)
	require.Equal(t, 1, available())
	_, _, err = s.Renew(t.Context(), "tv", winner, time.Hour)
	require.ErrorAs(t, err, &held)
	require.ErrorContains(t, err, "held by nobody")
	_, _, err = s.Reserve(t.Context(), "tv", "someone", "", time.Hour)
	require.NoError(t, err)
	_, state, err = s.Release(t.Context(), "tv", "someone", false)
	require.NoError(t, err)
	require.Equal(t, store.StateAvailable, state.State)
	require.Equal(t, 1, available())

	// Set apart, until somebody says otherwise.
	_, _, err = s.Reserve(t.Context(), "tv", "someone", "", time.Hour)
	require.NoError(t, err)
	_, _, err = s.SetTestState(t.Context(), "tv", store.StateQuarantined, "ops", "flaky HDMI", true)
	require.NoError(t, err)
	require.Zero(t, available())
	_, _, err = s.Reserve(t.Context(), "tv", "someone", "", time.Hour)
	require.ErrorContains(t, err, "is in state quarantined since")
	require.ErrorContains(t, err, `set by "ops" ("flaky HDMI")`)
	_, _, err = s.SetTestState(t.Context(), "tv", store.StateAvailable, "ops", "", false)
	require.NoError(t, err)
	require.Equal(t, 1, available())
	apply(t, s, f.update(f.delta(2, map[string]string{"connection.status": `"offline"`})))
	require.Zero(t, available(), "what is offline is not offered")

	for name, err := range map[string]error{
		"lease": second(s.Reserve(t.Context(), "tv", "x", "", 0)), "long": second(s.Reserve(t.Context(), "tv", "x", "", 999*time.Hour)),
		"holder": second(s.Reserve(t.Context(), "tv", "", "", time.Hour)), "text": second(s.Reserve(t.Context(), "tv", "x\x00", "", time.Hour)),
		"state": second(s.SetTestState(t.Context(), "tv", "in_test", "x", "", false)), "device": second(s.Reserve(t.Context(), "toaster", "x", "", time.Hour)),
	} {
		require.Error(t, err, name)
	}
}

// A session that is loaded, is new, or says which device it is of, learns the
// device's test state.
func TestSessionsLearnTheTestState(t *testing.T) {
	s, url := open(t)
	attributes := map[string]string{"network.mac": `"02:00:00:00:00:01"`, "netflix.esn": `"NF-0001"`}
	f := newFeed(1)
	id := deviceOf(t, s, f, attributes)
	learnt := func() store.TestState {
		stored, err := s.Load(t.Context(), f.id)
		require.NoError(t, err)
		return stored.Test
	}
	require.Zero(t, learnt())
	_, want, err := s.Reserve(t.Context(), id, "jana", "smoke", time.Hour)
	require.NoError(t, err)
	require.Equal(t, want, learnt())

	ask := func(n int, attributes map[string]string, isNew, opens bool) store.TestState {
		f := newFeed(n)
		u := f.update(f.opened(attributes))
		u.New, u.Opens, u.Answer = isNew, opens, &store.Answer{}
		apply(t, s, u)
		return u.Answer.Test
	}
	require.Equal(t, want, ask(2, attributes, true, true))
	require.Equal(t, want, ask(3, attributes, false, true))
	require.Equal(t, want, ask(4, attributes, true, false))
	require.Zero(t, ask(5, nil, true, false), "another device's")
	require.Zero(t, ask(6, attributes, false, false), "nobody asked")

	execute(t, url, `UPDATE device_test_state SET lease_until = now()`)
	require.Zero(t, learnt(), "a lease that has ended is none")
	_, _, err = s.SetTestState(t.Context(), id, store.StateMaintenance, "ops", "", false)
	require.NoError(t, err)
	require.Equal(t, store.StateMaintenance, learnt().State)
	_, _, err = s.SetTestState(t.Context(), id, store.StateAvailable, "ops", "", false)
	require.NoError(t, err)
	require.Equal(t, store.TestState{State: store.StateAvailable}, learnt())
}

func second(_ string, _ store.TestState, err error) error { return err }

// Of two test states that a merge brings together the stricter stays, and of two
// leases the one that ends later.
func TestMergeKeepsTheStricterTestState(t *testing.T) {
	const hour, none = time.Hour, time.Duration(0)
	type set struct {
		state string
		lease time.Duration
	}
	for name, c := range map[string]struct{ gone, home, want set }{
		"none and held":            {set{}, set{store.StateInTest, hour}, set{store.StateInTest, hour}},
		"held and none":            {set{store.StateInTest, hour}, set{}, set{store.StateInTest, hour}},
		"held and available":       {set{store.StateInTest, hour}, set{store.StateAvailable, none}, set{store.StateInTest, hour}},
		"longer lease":             {set{store.StateInTest, 2 * hour}, set{store.StateInTest, hour}, set{store.StateInTest, 2 * hour}},
		"shorter lease":            {set{store.StateInTest, hour}, set{store.StateInTest, 2 * hour}, set{store.StateInTest, 2 * hour}},
		"maintenance and held":     {set{store.StateMaintenance, none}, set{store.StateInTest, hour}, set{store.StateMaintenance, none}},
		"maintenance, quarantined": {set{store.StateMaintenance, none}, set{store.StateQuarantined, none}, set{store.StateQuarantined, none}},
		"none":                     {set{}, set{}, set{store.StateAvailable, none}},
	} {
		t.Run(name, func(t *testing.T) {
			s, url := open(t)
			gone, home := newFeed(1), newFeed(2)
			deviceOf(t, s, gone, map[string]string{"netflix.esn": `"NF-0001"`})
			deviceOf(t, s, home, map[string]string{"netflix.esn": `"NF-0002"`})
			for f, c := range map[*feed]set{gone: c.gone, home: c.home} {
				var err error
				switch c.state {
				case "":
				case store.StateInTest:
					_, _, err = s.Reserve(t.Context(), f.id, "h", "", c.lease)
				default:
					_, _, err = s.SetTestState(t.Context(), f.id, c.state, "h", "", false)
				}
				require.NoError(t, err)
			}
			_, err := s.MergeDevices(t.Context(), gone.id, home.id, "ops")
			require.NoError(t, err)
			d, err := s.GetDevice(t.Context(), gone.id)
			require.NoError(t, err)
			require.Equal(t, c.want.state, d.Test.State)
			if c.want.lease > 0 {
				require.WithinDuration(t, time.Now().Add(c.want.lease), d.Test.LeaseUntil, time.Minute)
			}
			require.LessOrEqual(t, query[int](t, url, `SELECT count(*) FROM device_test_state`), 1)
		})
	}
}
