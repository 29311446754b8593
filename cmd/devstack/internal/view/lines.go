package view

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// every is how often a summary line is printed when something has changed.
const every = 2 * time.Second

// Lines prints a line for each device that appears or changes its status,
// address or name, and a summary when the counters have moved, until ctx is
// cancelled.
func Lines(ctx context.Context, w io.Writer, source Source) error {
	l := lines{w: w, seen: map[string]string{}}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		l.show(source.look())
		select {
		case <-ctx.Done():
			l.summary(source.look())
			return l.err
		case <-tick.C:
		}
	}
}

type lines struct {
	w       io.Writer
	seen    map[string]string // session to its last line
	phase   string
	last    string // last summary
	printed time.Duration
	err     error
}

func (l *lines) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(l.w, format+"\n", args...); err != nil && l.err == nil {
		l.err = err
	}
}

func (l *lines) show(s Status) {
	if s.Phase != l.phase {
		l.phase = s.Phase
		l.printf("%8s  %s", s.clock(), s.Phase)
	}
	for _, d := range s.Devices {
		line := fmt.Sprintf("%s  %-15s  %-8s  %s", d.MAC, orDash(d.Address), orDash(d.Status), d.name())
		switch before, known := l.seen[d.Session]; {
		case !known:
			l.printf("%8s  + %s", s.clock(), line)
		case before != line:
			l.printf("%8s  ~ %s", s.clock(), line)
		}
		l.seen[d.Session] = line
	}
	if s.Up-l.printed >= every {
		l.summary(s)
	}
}

func (l *lines) summary(s Status) {
	parts := make([]string, 0, 8)
	for _, c := range s.counters() {
		parts = append(parts, c.name+" "+c.value)
	}
	if line := strings.Join(parts, " · "); line != l.last {
		l.last, l.printed = line, s.Up
		l.printf("%8s  %s", s.clock(), line)
	}
}

func (s Status) clock() string { return fmt.Sprintf("%.1fs", s.Up.Seconds()) }

func orDash(s string) string {
	if s == "" {
		return "—"
	}
	return s
}
