package cli_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cli"
)

// A time that a table or JSON printed can be given back, and so can what
// TimeForms says.
func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := time.Date(2026, 11, 21, 9, 12, 4, 512e6, time.FixedZone("", 3600))
	printed, err := json.Marshal(at)
	require.NoError(t, err)
	for text, want := range map[string]time.Time{
		"2h": now.Add(-2 * time.Hour), "2h ago": now.Add(-2 * time.Hour), "2hago": now.Add(-2 * time.Hour),
		"3d": now.Add(-72 * time.Hour), "3d ago": now.Add(-72 * time.Hour), "90m": now.Add(-90 * time.Minute),
		"2026-11-21":                        time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC),
		at.UTC().Format(cli.TimeTable):      at.Truncate(time.Second),
		"2026-11-21 09:00:00Z":              time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC),
		"2026-11-21 09:00:00+01:00":         time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC),
		string(printed[1 : len(printed)-1]): at,
		"2026-11-21T09:00:00Z":              time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC),
		"2026-11-21T09:00:00.5+01:00":       time.Date(2026, 11, 21, 8, 0, 0, 5e8, time.UTC),
		" 2026-11-21 ":                      time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC),
	} {
		var m cli.Moment
		require.NoError(t, m.UnmarshalText([]byte(text)), text)
		require.True(t, m.Given(), text)
		require.True(t, want.Equal(m.Time(now)), "%s is %s", text, m.Time(now))
	}
	for _, text := range []string{"", "nonsense", "yesterday", "0h", "0d", "-2h", "2", "ago", "2026-11-21 09:00:00", "2026-11-21T09:00:00", "2026-13-01", "21.11.2026", "2h\x1b"} {
		var m cli.Moment
		require.Error(t, m.UnmarshalText([]byte(text)), text)
		require.False(t, m.Given(), text)
		require.True(t, m.Time(now).IsZero() && m.Last(now).IsZero(), text)
	}
	// A table cuts the fraction off: what it prints means the whole second.
	var m cli.Moment
	require.NoError(t, m.UnmarshalText([]byte(at.UTC().Format(cli.TimeTable))))
	require.False(t, m.Last(now).Before(at))
	require.Equal(t, at.UTC().Truncate(time.Second), m.Last(now).Truncate(time.Second))
	require.NoError(t, m.UnmarshalText([]byte("2026-11-21T09:00:00Z")))
	require.Equal(t, m.Time(now), m.Last(now))
	require.NoError(t, m.UnmarshalText([]byte("2h ago")))
	require.Equal(t, m.Time(now), m.Last(now))
	require.EqualError(t, m.UnmarshalText([]byte("non\x1bsense")), `"non\x1bsense" is not a time: give how long ago (2h, 3d or "2h ago"), a day (2026-11-21: its beginning, UTC), or a time as tables and JSON print it ("2026-11-21 09:00:00Z", 2026-11-21T09:00:00.5+01:00)`)
}

func TestDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"1d": 24 * time.Hour, "65535d": 65535 * 24 * time.Hour, "36h": 36 * time.Hour, "30s": 30 * time.Second} {
		var d cli.Days
		require.NoError(t, d.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, time.Duration(d), text)
	}
	for _, text := range []string{"", "long", "0d", "65536d", "-1d", "1.5d", "0s", "3"} {
		var d cli.Days
		require.Error(t, d.UnmarshalText([]byte(text)), text)
	}
}
