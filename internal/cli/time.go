package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Days is a duration that may be given in days: 90d, or 36h.
type Days time.Duration

// UnmarshalText reads a number of days from 1d to 65535d, or a duration of more
// than 0.
func (d *Days) UnmarshalText(text []byte) error {
	v, ok := parseDays(string(text))
	if !ok {
		return fmt.Errorf("%q is not a number of days such as 90d, 65535d at most, or a duration such as 36h", text)
	}
	*d = Days(v)
	return nil
}

// String is the duration as it would be given.
func (d Days) String() string {
	const day = Days(24 * time.Hour)
	if d > 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return time.Duration(d).String()
}

func parseDays(s string) (d time.Duration, ok bool) {
	if number, found := strings.CutSuffix(s, "d"); found {
		if n, err := strconv.ParseUint(number, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, true
		}
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}

const (
	// TimeTable is the form of a time in the tables that commands print.
	TimeTable = "2006-01-02 15:04:05Z"
	// TimeForms says in --help what a Moment may be.
	TimeForms = `how long ago (2h, 3d or "2h ago"), a day (2026-11-21: its beginning, UTC), or a time as tables and JSON print it ("2026-11-21 09:00:00Z", 2026-11-21T09:00:00.5+01:00)`
)

// Moment is a time that a person gives: an instant, or how long before now. The
// zero value is none.
type Moment struct {
	ago  time.Duration
	at   time.Time
	last time.Time // that tables print as at
}

// UnmarshalText reads what TimeForms says.
func (m *Moment) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if ago, ok := parseDays(strings.TrimSpace(strings.TrimSuffix(s, "ago"))); ok {
		*m = Moment{ago: ago}
		return nil
	}
	if at, err := time.Parse("2006-01-02 15:04:05Z07:00", s); err == nil {
		at = at.UTC()
		*m = Moment{at: at, last: at.Truncate(time.Second).Add(time.Second - time.Nanosecond)}
		return nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, s); err == nil {
			*m = Moment{at: at.UTC(), last: at.UTC()}
			return nil
		}
	}
	return fmt.Errorf("%q is not a time: give %s", text, TimeForms)
}

// Given reports whether there is one.
func (m Moment) Given() bool { return m != Moment{} }

// Last is the last instant that the moment may mean, as of now: tables print
// times without their fraction, so that of a table is its whole second. It is
// the zero time if none was given.
func (m Moment) Last(now time.Time) time.Time {
	if m.ago > 0 {
		return now.Add(-m.ago)
	}
	return m.last
}

// Time is the moment as of now, or the zero time if none was given.
func (m Moment) Time(now time.Time) time.Time {
	if m.ago > 0 {
		return now.Add(-m.ago)
	}
	return m.at
}
