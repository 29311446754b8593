package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

func TestWhyOffline(t *testing.T) {
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	d := store.Device{Summary: store.Summary{Status: "offline", Session: "S"}, Attributes: map[string]device.Attribute{
		"connection.status": {Value: []byte(`"offline"`), Seq: 7, At: at},
	}}
	const since = "offline since 2026-11-21 09:00:00Z (seq 7)"
	require.Equal(t, since, statusText(d))
	for reason, want := range map[string]string{
		`"goodbye-mdns"`: since + ": it said goodbye by MDNS",
		`"silence"`:      since + ": its RAE has not heard of it for too long",
		`"unplugged"`:    since + ": unplugged",
		`7`:              since,
	} {
		d.Attributes["connection.reason"] = device.Attribute{Value: []byte(reason), Seq: 7, At: at}
		require.Equal(t, want, statusText(d))
	}
	require.Equal(t, "nothing", missingText(d))
	d.Missing = device.SeqSet{{From: 3, To: 4}}
	require.Contains(t, missingText(d), "seq 3-4: ")
	d.Status, d.Closed = store.StatusClosed, 9
	require.Equal(t, "closed", statusText(d))
}
