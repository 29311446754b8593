package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

const tvUDN = `["uuid:aaaa-0001-tv"]`

func feedOf(n int, rae string) *feed { return &feed{rae: rae, id: session(n)} }

// applyAt applies one event that Kafka received at that second.
func applyAt(t *testing.T, s *store.Store, f *feed, received int64, e device.Event) {
	t.Helper()
	u := f.update(e)
	u.Received = at(received)
	apply(t, s, u)
}

func openClaims(t *testing.T, s *store.Store) (out []store.Conflict) {
	t.Helper()
	open, err := s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	for _, c := range open {
		if c.Contested {
			out = append(out, c)
		}
	}
	return out
}

func review(t *testing.T, s *store.Store) []string {
	t.Helper()
	ended, err := s.ReviewClaims(t.Context())
	require.NoError(t, err)
	return ended
}

// One event of another RAE with a reserved device's evidence, whatever time its edge
// names, moves nothing: it is a contested claim. When the holder closes, the claim is
// honoured.
func TestContestedClaim(t *testing.T) {
	for name, evidence := range map[string]map[string]string{
		"strong": {"identity.udns": tvUDN},
		"weak":   {"network.mac": `"9c:b6:d0:00:00:01"`},
		"both":   {"identity.udns": tvUDN, "network.mac": `"9c:b6:d0:00:00:01"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, url := open(t)
			tv := feedOf(1, "rae-1")
			applyAt(t, s, tv, 10, tv.opened(map[string]string{"identity.udns": tvUDN, "network.mac": `"9c:b6:d0:00:00:01"`, "connection.status": `"online"`}))
			was := deviceNow(t, s, tv)
			_, _, err := s.Reserve(t.Context(), was, "jana", "", time.Hour)
			require.NoError(t, err)

			thief := feedOf(2, "rae-2")
			e := thief.opened(evidence)
			e.Time = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
			u := thief.update(e)
			u.Received = at(20)
			apply(t, s, u)
			require.NotEqual(t, was, deviceNow(t, s, thief))
			d, err := s.GetDevice(t.Context(), was)
			require.NoError(t, err)
			require.Equal(t, tv.id, d.Session)
			require.Equal(t, "rae-1", d.RAE)
			require.Equal(t, device.Online, d.Status)
			require.Equal(t, "jana", d.Test.Holder)
			claims := openClaims(t, s)
			require.Len(t, claims, 1)
			require.Equal(t, thief.id, claims[0].Session)
			require.Equal(t, was, claims[0].B.Device)
			require.NotEmpty(t, claims[0].B.Value)

			open, err := s.OpenClaims(t.Context())
			require.NoError(t, err)
			require.Equal(t, []store.OpenClaim{{ID: claims[0].ID, Session: thief.id, Holder: tv.id}}, open)

			// Nothing that either says moves it, nor does time alone.
			applyAt(t, s, tv, 30, tv.delta(2, map[string]string{"a": `1`}))
			applyAt(t, s, thief, 40, thief.delta(2, map[string]string{"connection.status": `"online"`, "dhcp.client_id": `"client-9"`}))
			require.Empty(t, review(t, s))
			require.Len(t, openClaims(t, s), 1)
			require.NotEqual(t, was, deviceNow(t, s, thief))

			applyAt(t, s, tv, 50, device.Event{RAE: tv.rae, Session: tv.id, Type: device.Closed, Seq: 3, Time: at(3), Reason: "forgotten"})
			require.Equal(t, []string{thief.id}, review(t, s))
			require.Empty(t, review(t, s))
			require.Empty(t, openClaims(t, s))
			d, err = s.GetDevice(t.Context(), was)
			require.NoError(t, err)
			require.Equal(t, thief.id, d.Session)
			require.Equal(t, "rae-2", d.RAE)
			require.Equal(t, "jana", d.Test.Holder)
			require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM device`))
			require.Equal(t, "merged", query[string](t, url, `SELECT decision FROM identity_conflict`))
		})
	}
}

// A holder lets go when it has been offline for long enough, and when its RAE is not
// heard of while the one that claims is.
func TestHolderLetsGo(t *testing.T) {
	s, _ := open(t)
	tv, other := feedOf(1, "rae-1"), feedOf(2, "rae-2")
	applyAt(t, s, tv, 0, tv.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	claim := func(received int64) {
		applyAt(t, s, other, received, other.delta(other.state.AsOf+1, map[string]string{"a": `"x"`}))
		review(t, s)
	}
	applyAt(t, s, other, 10, other.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	claim(int64((6 * time.Hour).Seconds()))
	require.Len(t, openClaims(t, s), 1, "an RAE with one quiet device is heard of every three hours")
	claim(int64((8 * time.Hour).Seconds()))
	require.Empty(t, openClaims(t, s))
	require.Equal(t, deviceNow(t, s, tv), deviceNow(t, s, other))

	s, _ = open(t)
	tv, other = feedOf(1, "rae-1"), feedOf(2, "rae-2")
	now := time.Now()
	seconds := func(d time.Duration) int64 { return int64(now.Add(d).Sub(epoch).Seconds()) }
	applyAt(t, s, tv, seconds(-time.Hour), tv.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	applyAt(t, s, tv, seconds(-time.Minute), tv.delta(2, map[string]string{"connection.status": `"offline"`}))
	applyAt(t, s, other, seconds(0), other.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	require.Empty(t, review(t, s))
	require.Len(t, openClaims(t, s), 1, "offline for a minute: it may restart")

	s, _ = open(t)
	tv, other = feedOf(1, "rae-1"), feedOf(2, "rae-2")
	applyAt(t, s, tv, seconds(-time.Hour), tv.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	applyAt(t, s, tv, seconds(-11*time.Minute), tv.delta(2, map[string]string{"connection.status": `"offline"`}))
	applyAt(t, s, other, seconds(0), other.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	require.Empty(t, openClaims(t, s))
	require.Equal(t, deviceNow(t, s, tv), deviceNow(t, s, other))
}

// A person may decide a claim. Kept apart, it is never honoured.
func TestClaimDecidedByAPerson(t *testing.T) {
	for name, merge := range map[string]bool{"merged": true, "kept apart": false} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			tv, other := feedOf(1, "rae-1"), feedOf(2, "rae-2")
			applyAt(t, s, tv, 0, tv.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
			applyAt(t, s, other, 10, other.opened(map[string]string{"identity.udns": tvUDN}))
			claims := openClaims(t, s)
			require.Len(t, claims, 1)
			var err error
			if merge {
				_, err = s.MergeConflict(t.Context(), claims[0].ID, "jana")
			} else {
				_, err = s.KeepApart(t.Context(), claims[0].ID, "jana")
			}
			require.NoError(t, err)
			require.Empty(t, openClaims(t, s))
			applyAt(t, s, tv, 20, device.Event{RAE: tv.rae, Session: tv.id, Type: device.Closed, Seq: 2, Time: at(3), Reason: "forgotten"})
			applyAt(t, s, other, 30, other.delta(2, map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`}))
			require.Empty(t, review(t, s))
			require.Equal(t, merge, deviceNow(t, s, tv) == deviceNow(t, s, other))
		})
	}
}

// A claim ends when the evidence is said no more.
func TestClaimIsWithdrawn(t *testing.T) {
	s, _ := open(t)
	tv, other := feedOf(1, "rae-1"), feedOf(2, "rae-2")
	applyAt(t, s, tv, 0, tv.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	applyAt(t, s, other, 10, other.opened(map[string]string{"identity.udns": tvUDN}))
	require.Len(t, openClaims(t, s), 1)
	applyAt(t, s, other, 20, other.delta(2, map[string]string{"identity.udns": `["uuid:bbbb-0002-tv"]`}))
	require.Empty(t, openClaims(t, s))
	applyAt(t, s, other, 30, other.delta(3, map[string]string{"identity.udns": tvUDN}))
	require.Len(t, openClaims(t, s), 1)
}

// A device that moved is shown where it is online, whatever the RAE that it left
// confirms later, and whatever its clock says.
func TestPresentSession(t *testing.T) {
	s, _ := open(t)
	old, moved := feedOf(1, "rae-old"), feedOf(2, "rae-new")
	applyAt(t, s, old, 0, old.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	applyAt(t, s, old, 10, old.delta(2, map[string]string{"connection.status": `"offline"`}))
	applyAt(t, s, moved, 20, moved.opened(map[string]string{"identity.udns": tvUDN, "connection.status": `"online"`}))
	require.Equal(t, deviceNow(t, s, old), deviceNow(t, s, moved))
	confirm := device.Event{RAE: old.rae, Session: old.id, Type: device.Snapshot, Seq: 3, Time: at(9_000_000), Attributes: old.state.Live(), Hash: device.Hash(old.state.Live())}
	applyAt(t, s, old, 9000, confirm)
	d, err := s.GetDevice(t.Context(), deviceNow(t, s, old))
	require.NoError(t, err)
	require.Equal(t, "rae-new", d.RAE)
	require.Equal(t, device.Online, d.Status)
	// Where neither is online, the one that changed last; a confirmation is no change.
	applyAt(t, s, moved, 9100, moved.delta(2, map[string]string{"connection.status": `"offline"`}))
	confirm.Seq = 4
	applyAt(t, s, old, 9200, confirm)
	d, err = s.GetDevice(t.Context(), deviceNow(t, s, old))
	require.NoError(t, err)
	require.Equal(t, "rae-new", d.RAE)
}

// Evidence binds within a lab.
func TestLabs(t *testing.T) {
	s, url := open(t)
	one, two, three := feedOf(1, "rae-1"), feedOf(2, "rae-2"), feedOf(3, "rae-3")
	first := deviceOf(t, s, one, map[string]string{"identity.udns": tvUDN})
	deviceOf(t, s, feedOf(9, "rae-2"), map[string]string{"a": `1`})
	require.NoError(t, s.LabelRAE(t.Context(), "rae-2", "annex"))
	second := deviceOf(t, s, two, map[string]string{"identity.udns": tvUDN})
	require.NotEqual(t, first, second)
	require.Empty(t, openClaims(t, s))
	require.ErrorIs(t, s.LabelRAE(t.Context(), "rae-9", "annex"), store.ErrNotFound)
	require.Error(t, s.LabelRAE(t.Context(), "rae-2", "two words"))

	// A RAE that changes labs takes along what its sessions hold.
	other := deviceOf(t, s, three, map[string]string{"netflix.esn": `"NF-0003"`, "identity.udns": `["uuid:cccc-0003-tv"]`})
	require.NoError(t, s.LabelRAE(t.Context(), "rae-3", "annex"))
	require.Equal(t, other, query[string](t, url, `SELECT device_id::TEXT FROM identity_owner WHERE lab = 'annex' AND value = 'NF-0003'`))
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM identity_owner WHERE lab = 'default' AND value = 'NF-0003'`))
	raes, err := s.LabelledRAEs(t.Context())
	require.NoError(t, err)
	require.Len(t, raes, 3)
	require.Equal(t, "annex", raes[1].Lab)
	require.Equal(t, 2, raes[1].Open)
}

// A merge, by evidence or by a person, is undone by a split, which is remembered.
func TestSplit(t *testing.T) {
	s, url := open(t)
	one, two := newFeed(1), newFeed(2)
	first := deviceOf(t, s, one, map[string]string{"netflix.esn": `"NF-0001"`, "network.mac": `"9c:b6:d0:00:00:01"`})
	require.Equal(t, first, deviceOf(t, s, two, map[string]string{"netflix.esn": `"NF-0001"`, "network.mac": `"9c:b6:d0:00:00:02"`}))
	_, _, err := s.SetTestState(t.Context(), first, store.StateQuarantined, "karl", "smoke", false)
	require.NoError(t, err)

	for _, by := range []store.SplitBy{{}, {Sessions: []string{one.id, two.id}}, {Sessions: []string{session(9)}}, {Evidence: []string{"netflix.esn"}}, {Evidence: []string{"mac=9c:b6:d0:00:00:09"}}, {Evidence: []string{"esn=NF-0001"}}} {
		_, err := s.SplitDevice(t.Context(), first, by, "jana")
		require.Error(t, err, by)
	}
	split, err := s.SplitDevice(t.Context(), first, store.SplitBy{Evidence: []string{"mac=9c:b6:d0:00:00:02"}}, "jana")
	require.NoError(t, err)
	require.Equal(t, []string{two.id}, split.Sessions)
	require.Equal(t, first, deviceNow(t, s, one))
	require.Equal(t, split.New, deviceNow(t, s, two))
	require.Equal(t, 2, query[int](t, url, `SELECT count(*) FROM device_identity WHERE device_id = $1`, split.New))
	require.Equal(t, split.New, owner(t, url, "9c:b6:d0:00:00:02"))
	require.Equal(t, first, owner(t, url, "NF-0001"), "the one that stays has it too")
	for _, id := range []string{first, split.New} {
		d, err := s.GetDevice(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, store.StateQuarantined, d.Test.State)
	}

	// The same evidence, said again, changed and changed back, merges nothing.
	for seq, esn := range []string{`"NF-0001"`, `"NF-0007"`, `"NF-0001"`} {
		apply(t, s, two.update(two.delta(int64(seq+2), map[string]string{"netflix.esn": esn})))
		require.Equal(t, split.New, deviceNow(t, s, two))
	}
	open, err := s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	require.Empty(t, open)
	// A person may merge them again.
	_, err = s.MergeDevices(t.Context(), split.New, first, "jana")
	require.NoError(t, err)
	require.Equal(t, first, deviceNow(t, s, two))
}

// Of a device of which nothing strong is known, too: what had placed the session
// there leads there still, and does not take it back.
func TestSplitByWeakEvidence(t *testing.T) {
	s, _ := open(t)
	one, two := newFeed(1), newFeed(2)
	first := deviceOf(t, s, one, map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`})
	require.Equal(t, first, deviceOf(t, s, two, map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`}))
	split, err := s.SplitDevice(t.Context(), first, store.SplitBy{Sessions: []string{two.id[:8]}}, "jana")
	require.NoError(t, err)
	apply(t, s, two.update(two.delta(2, map[string]string{"dhcp.client_id": `"client-2"`})))
	require.Equal(t, split.New, deviceNow(t, s, two))
	apply(t, s, two.update(two.delta(3, map[string]string{"netflix.esn": `"NF-0002"`})))
	require.Equal(t, split.New, deviceNow(t, s, two))
}

// A close that no edge sent comes and goes with the events past it, in whatever order
// and however often updates are merged; an edge's is final.
func TestProvisionalClose(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	opened := f.update(f.opened(map[string]string{"a": `1`}))
	f.state.CloseProvisionally("superseded by x")
	closed := updateOf(&f.state, device.Change{}, device.Fold{}, f.rae, f.id, f.offset, 0)
	reopening := f.update(f.delta(2, map[string]string{"a": `2`}))
	require.EqualValues(t, 1, reopening.Reopened)
	kind := func() string { return query[string](t, url, `SELECT close_kind FROM device_session`) }
	apply(t, s, opened)
	apply(t, s, closed)
	require.Equal(t, "cloud", kind())
	state, _ := load(t, s, f.id)
	require.True(t, state.Provisional)
	known, err := s.Known(t.Context(), []string{f.id})
	require.NoError(t, err)
	require.False(t, known[f.id].Has(2), "the poller sends what would reopen it")
	apply(t, s, reopening)
	apply(t, s, closed)
	apply(t, s, reopening)
	require.Empty(t, kind())
	require.EqualValues(t, 0, query[int64](t, url, `SELECT closed_seq FROM device_session`))
	require.EqualValues(t, 1, query[int64](t, url, `SELECT reopened FROM device_session`))
	apply(t, s, f.update(device.Event{RAE: f.rae, Session: f.id, Type: device.Closed, Seq: 3, Time: at(3), Reason: "forgotten"}))
	apply(t, s, closed)
	require.Equal(t, "edge", kind())
	known, err = s.Known(t.Context(), []string{f.id})
	require.NoError(t, err)
	require.True(t, known[f.id].Has(9))
}
