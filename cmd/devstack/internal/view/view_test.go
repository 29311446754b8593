package view_test

import (
	"bytes"
	"context"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/view"
	"github.com/rollcall-platform/rollcall/internal/printable/printabletest"
)

func TestLinesTellWhatAppearsAndWhatChanges(t *testing.T) {
	tv := view.Device{Session: "s1", MAC: "00:11:22:33:44:55", Address: "192.168.77.30", Name: "tv", Status: "online"}
	nameless := view.Device{Session: "s2", MAC: "00:11:22:33:44:66", Model: "Lumora TV", Status: "online"}
	gone := tv
	gone.Status = "offline"
	looks := []view.Status{
		{Phase: "replaying"},
		{Phase: "replaying", Up: time.Second, Devices: []view.Device{tv}},
		{Phase: "replaying", Up: 2 * time.Second, Devices: []view.Device{tv, nameless}, EventsIn: 4},
		{Phase: "applied", Up: 3 * time.Second, Devices: []view.Device{gone}, EventsIn: 5},
	}
	ctx, cancel := context.WithCancel(t.Context())
	next := func() view.Status {
		s := looks[0]
		if len(looks) > 1 {
			looks = looks[1:]
		} else {
			cancel()
		}
		return s
	}
	var out bytes.Buffer
	require.NoError(t, view.Lines(ctx, &out, next))
	require.Equal(t, `    0.0s  replaying
    1.0s  + 00:11:22:33:44:55  192.168.77.30    online    tv
    2.0s  + 00:11:22:33:44:66  —                online    (Lumora TV)
    2.0s  devices 2 · sessions 0 · outbox 0 · events in 4 · lag 0 · signals 0 · upserts 0 · dead letters 0
    3.0s  applied
    3.0s  ~ 00:11:22:33:44:55  192.168.77.30    offline   tv
    3.0s  devices 1 · sessions 0 · outbox 0 · events in 5 · lag 0 · signals 0 · upserts 0 · dead letters 0
`, out.String())
}

// sgr are the colours, which are the view's own.
var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// A device chooses its name and model: it does not speak to the terminal, in
// either view.
func TestDevicesDoNotSpeakToTheTerminal(t *testing.T) {
	for kind, hostile := range printabletest.Hostile {
		t.Run(kind, func(t *testing.T) {
			for _, d := range []view.Device{
				{Session: hostile, MAC: hostile, Address: hostile, Name: hostile, Status: hostile},
				{Session: "s", RAE: hostile, Model: hostile, Status: "online"},
			} {
				source := func() view.Status {
					return view.Status{Phase: hostile, Devices: []view.Device{d}, Up: time.Second}
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				var out bytes.Buffer
				require.NoError(t, view.Lines(ctx, &out, source))
				printabletest.RequireClean(t, out.String())
				require.Less(t, out.Len(), 8<<10)

				screen := sgr.ReplaceAllString(view.Picture(source), "")
				printabletest.RequireClean(t, screen)
			}
		})
	}
}
