package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// lab is a store with a few devices on two RAEs.
func lab(t *testing.T) (*store.Store, map[string]*feed) {
	s, _ := open(t)
	feeds := map[string]*feed{}
	for n, d := range []struct {
		key, rae   string
		attributes map[string]string
	}{
		{"tv", "rae-1", map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`, "network.hostname": `"Living-TV"`, "mdns.name": `"Living Room"`, "mdns.model": `"Chromecast Ultra"`, "connection.status": `"online"`, "network.ipv4": `"192.168.7.2"`}},
		{"roku", "rae-1", map[string]string{"network.mac": `"9c:b6:d0:00:00:02"`, "network.hostname": `"roku-2"`, "ssdp.server": `"Roku/9.3"`, "connection.status": `"offline"`, "identity.udns": `["uuid:aaaa-1","uuid:aaaa-2"]`}},
		{"phone", "rae-2", map[string]string{"network.mac": `"02:00:00:00:00:03"`, "network.mac_local": `true`, "network.hostname": `"pixel"`, "connection.status": `"online"`}},
		{"gone", "rae-2", map[string]string{"network.mac": `"b8:27:eb:00:00:04"`, "network.hostname": `"pi"`, "connection.status": `"offline"`}},
	} {
		f := newFeed(n + 1)
		f.rae = d.rae
		apply(t, s, f.update(f.opened(d.attributes)))
		feeds[d.key] = f
	}
	gone := feeds["gone"]
	apply(t, s, gone.update(gone.event(device.Closed, 2, nil)))
	return s, feeds
}

func TestListDevices(t *testing.T) {
	s, feeds := lab(t)
	for name, c := range map[string]struct {
		filter store.Filter
		want   string
	}{
		"all":            {store.Filter{}, "gone phone roku tv"},
		"RAE":            {store.Filter{RAE: "rae-1"}, "roku tv"},
		"online":         {store.Filter{Status: "online"}, "phone tv"},
		"offline":        {store.Filter{Status: "offline"}, "roku"},
		"closed":         {store.Filter{Status: store.StatusClosed}, "gone"},
		"name":           {store.Filter{Text: "living r"}, "tv"},
		"model":          {store.Filter{Text: "ROKU/"}, "roku"},
		"no wild cards":  {store.Filter{Text: "%"}, ""},
		"string":         {store.Filter{Attributes: map[string]string{"network.hostname": "pixel"}}, "phone"},
		"not a string":   {store.Filter{Attributes: map[string]string{"network.mac_local": "true"}}, "phone"},
		"member":         {store.Filter{Attributes: map[string]string{"identity.udns": "uuid:aaaa-2"}}, "roku"},
		"two attributes": {store.Filter{Attributes: map[string]string{"connection.status": "online", "network.hostname": "Living-TV"}}, "tv"},
		"and not or":     {store.Filter{Attributes: map[string]string{"connection.status": "online", "network.hostname": "roku-2"}}, ""},
		"all together":   {store.Filter{RAE: "rae-1", Status: "online", Text: "chrome"}, "tv"},
		"none":           {store.Filter{RAE: "rae-9"}, ""},
		"strange text":   {store.Filter{Text: `'; DROP TABLE device; --`, Attributes: map[string]string{`a"]`: `"]`}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			page, err := s.ListDevices(t.Context(), c.filter)
			require.NoError(t, err)
			require.Empty(t, page.Next)
			var got []string
			for _, key := range []string{"gone", "phone", "roku", "tv"} {
				for _, d := range page.Devices {
					if d.Session == feeds[key].id {
						got = append(got, key)
					}
				}
			}
			require.Equal(t, c.want, strings.Join(got, " "))
		})
	}
	page, err := s.ListDevices(t.Context(), store.Filter{Text: "living room"})
	require.NoError(t, err)
	d := page.Devices[0]
	require.Equal(t, []string{"Living Room", "Chromecast Ultra", "9c:b6:d0:00:00:01", "192.168.7.2", "online", "rae-1"},
		[]string{d.Name, d.Model, d.MAC, d.IPv4, d.Status, d.RAE})
	require.Equal(t, at(1), d.FirstObserved)
}

func TestListDevicesPages(t *testing.T) {
	s, _ := lab(t)
	seen := map[string]bool{}
	f := store.Filter{Limit: 3}
	for range 2 {
		page, err := s.ListDevices(t.Context(), f)
		require.NoError(t, err)
		for _, d := range page.Devices {
			require.False(t, seen[d.Device])
			seen[d.Device] = true
		}
		f.After = page.Next
	}
	require.Len(t, seen, 4)
	require.Empty(t, f.After)
	_, err := s.ListDevices(t.Context(), store.Filter{After: "x"})
	require.Error(t, err)
}

// A device that was forgotten and met again is listed once, as it is now.
func TestCurrentSession(t *testing.T) {
	s, feeds := lab(t)
	again := newFeed(9)
	again.rae = "rae-1"
	apply(t, s, again.update(again.opened(map[string]string{"network.mac": `"b8:27:eb:00:00:04"`, "network.hostname": `"pi"`, "connection.status": `"online"`})))
	page, err := s.ListDevices(t.Context(), store.Filter{Text: "pi", RAE: "rae-1"})
	require.NoError(t, err)
	require.Len(t, page.Devices, 1)
	require.Equal(t, again.id, page.Devices[0].Session)

	d, err := s.GetDevice(t.Context(), "pi")
	require.NoError(t, err)
	require.Equal(t, again.id, d.Session)
	require.Len(t, d.Sessions, 2)
	d, err = s.GetDevice(t.Context(), feeds["gone"].id)
	require.NoError(t, err)
	require.Equal(t, feeds["gone"].id, d.Session, "the session that was named")
	require.Equal(t, store.StatusClosed, d.Status)
}

func TestGetDevice(t *testing.T) {
	s, feeds := lab(t)
	tv := feeds["tv"]
	want, err := s.GetDevice(t.Context(), tv.id)
	require.NoError(t, err)
	require.Equal(t, tv.state.Live(), want.Attributes)
	require.Equal(t, device.Hash(tv.state.Attributes), want.Hash)
	require.Equal(t, int64(1), want.Counters.Events)
	require.Equal(t, []device.Position{{Topic: topic, Partition: 3, Next: 1}}, want.Positions)
	require.Equal(t, "mac", want.Identities[0].Kind)

	for _, ref := range []string{
		want.Device, want.Device[:13], tv.id[:9], strings.ToUpper(tv.id), " 9C:B6:D0:00:00:01 ", "9c-b6-d0-00-00-01", "living-tv", "living-",
		"Living Room", "living room", " LIVING ROOM ", "living r", "Living Ro…", // its mDNS name
	} {
		d, err := s.GetDevice(t.Context(), ref)
		require.NoError(t, err, ref)
		require.Equal(t, want, d, ref)
	}
	for _, ref := range []string{"", "zz", "no-such-host", session(77), "ff:ff:ff:ff:ff:ff", "nul\x00", "%", "9c:b6:d0:00:00:01x", strings.Repeat("x", 999), "iving Room", "Chromecast Ultra", "…", "\xff"} {
		_, err := s.GetDevice(t.Context(), ref)
		require.ErrorIs(t, err, store.ErrNotFound, ref)
	}
}

// Whatever a list shows as a device's name, names the device.
func TestEveryNameThatAListShowsNamesTheDevice(t *testing.T) {
	s, _ := open(t)
	for n, attribute := range []string{"device.name", "dial.friendly_name", "upnp.friendly_name", "mdns.name", "network.hostname", "dhcp.hostname", "mdns.hostname"} {
		f := newFeed(n + 1)
		apply(t, s, f.update(f.opened(map[string]string{attribute: fmt.Sprintf(`" Küche %d: \"%s\" "`, n, attribute)})))
	}
	page, err := s.ListDevices(t.Context(), store.Filter{})
	require.NoError(t, err)
	require.Len(t, page.Devices, 7)
	for _, want := range page.Devices {
		require.NotEmpty(t, want.Name)
		d, err := s.GetDevice(t.Context(), want.Name)
		require.NoError(t, err, want.Name)
		require.Equal(t, want.Session, d.Session, want.Name)
	}
}

// A name and a host name may be of two devices: neither goes before the other,
// and what is listed tells them apart.
func TestAmbiguousName(t *testing.T) {
	s, feeds := lab(t)
	other := newFeed(50)
	other.rae = "rae-9"
	apply(t, s, other.update(other.opened(map[string]string{"network.mac": `"9c:b6:d0:00:00:09"`, "network.ipv4": `"192.168.7.9"`, "mdns.name": `"PIXEL"`, "mdns.model": `"Evil\u001b[2J"`, "connection.status": `"online"`})))
	_, err := s.GetDevice(t.Context(), "Pixel")
	var ambiguous *store.AmbiguousError
	require.ErrorAs(t, err, &ambiguous)
	require.Len(t, ambiguous.Candidates, 2)
	require.ErrorContains(t, err, `"Pixel" names several devices; give the UUID or the MAC of one:`)
	require.ErrorContains(t, err, ` MAC "02:00:00:00:00:03" name "pixel" status "online" RAE "rae-2"`)
	require.ErrorContains(t, err, ` MAC "9c:b6:d0:00:00:09" address "192.168.7.9" name "PIXEL" model "Evil\x1b[2J" status "online" RAE "rae-9"`)
	d, err := s.GetDevice(t.Context(), "9c:b6:d0:00:00:09")
	require.NoError(t, err)
	require.Equal(t, other.id, d.Session)

	// One device that has both names is one.
	phone := feeds["phone"]
	apply(t, s, phone.update(phone.delta(2, map[string]string{"mdns.name": `"Roku"`, "device.name": `"roku"`})))
	d, err = s.GetDevice(t.Context(), "ROKU")
	require.NoError(t, err, "as written, before what begins with it")
	require.Equal(t, phone.id, d.Session)
}

func TestAmbiguousReference(t *testing.T) {
	s, feeds := lab(t)
	_, err := s.GetDevice(t.Context(), "9c:b6:d0")
	var ambiguous *store.AmbiguousError
	require.ErrorAs(t, err, &ambiguous)
	require.Len(t, ambiguous.Candidates, 2)
	require.False(t, ambiguous.More)
	require.ErrorContains(t, err, "Living Room")
	require.ErrorContains(t, err, "9c:b6:d0:00:00:02")

	twin := newFeed(50)
	apply(t, s, twin.update(twin.opened(map[string]string{"network.hostname": `"PIXEL"`})))
	_, err = s.GetDevice(t.Context(), "pixel")
	require.ErrorAs(t, err, &ambiguous, "two with the name, as written")
	_, err = s.GetDevice(t.Context(), feeds["phone"].id)
	require.NoError(t, err)

	for n := range 15 {
		f := newFeed(100 + n)
		apply(t, s, f.update(f.opened(map[string]string{"network.hostname": fmt.Sprintf(`"many-%d"`, n)})))
	}
	_, err = s.History(t.Context(), "many-", store.HistoryFilter{})
	require.ErrorAs(t, err, &ambiguous)
	require.Len(t, ambiguous.Candidates, 10)
	require.True(t, ambiguous.More)
}

func TestHistory(t *testing.T) {
	s, feeds := lab(t)
	tv := feeds["tv"]
	apply(t, s, tv.update(tv.delta(2, map[string]string{"network.ipv4": `"192.168.7.9"`})))
	apply(t, s, tv.update(tv.delta(3, map[string]string{"network.ipv4": `null`, "mdns.name": `"Den"`})))
	page, err := s.History(t.Context(), "living-tv", store.HistoryFilter{Attribute: "network.ipv4"})
	require.NoError(t, err)
	var got []string
	for _, c := range page.Changes {
		got = append(got, fmt.Sprintf("%d=%s", c.Attribute.Seq, c.Attribute.Value))
	}
	require.Equal(t, []string{`3=null`, `2="192.168.7.9"`, `1="192.168.7.2"`}, got)

	// A second session of the device: its changes come first.
	again := newFeed(9)
	apply(t, s, again.update(again.opened(map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`, "x": `1`})))
	apply(t, s, tv.update(tv.event(device.Closed, 4, nil)))
	all, err := s.History(t.Context(), "9c:b6:d0:00:00:01", store.HistoryFilter{})
	require.NoError(t, err)
	require.Len(t, all.Changes, 2+3+6)
	require.Equal(t, again.id, all.Changes[0].Session)
	require.Nil(t, all.Next)

	var paged []store.Change
	f := store.HistoryFilter{Limit: 2}
	for pages := 0; pages == 0 || f.Before != nil; pages++ {
		require.Less(t, pages, 10)
		page, err := s.History(t.Context(), "9c:b6:d0:00:00:01", f)
		require.NoError(t, err)
		paged, f.Before = append(paged, page.Changes...), page.Next
	}
	require.Equal(t, all.Changes, paged)
}

// What people may filter by: the names and the RAEs that there are.
func TestNamesAndRAEs(t *testing.T) {
	s, _ := lab(t)
	names, err := s.AttributeNames(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{
		"connection.status", "identity.udns", "mdns.model", "mdns.name", "network.hostname", "network.ipv4",
		"network.mac", "network.mac_local", "ssdp.server",
	}, names)
	raes, err := s.RAEs(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"rae-1", "rae-2"}, raes)
}
