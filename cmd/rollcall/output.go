package main

import (
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// outputFlag chooses between a table for people and JSON for programs.
type outputFlag string

// write writes v as JSON, or what table writes.
func (o outputFlag) write(w io.Writer, v any, table func(*tabwriter.Writer)) error {
	if o == "json" {
		return cli.WriteJSON(w, v)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	table(t)
	return t.Flush()
}

func row(w io.Writer, cells ...any) { cli.WriteRow(w, cells...) }

// section begins another table below.
func section(w *tabwriter.Writer, heads ...any) {
	_, _ = w.Write([]byte{'\n'})
	_ = w.Flush() // the columns of the table above end here
	row(w, heads...)
}

// sorted yields m in the order of its keys.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// ranges is a set of seqs as people write it: 3, 5-9.
func ranges(set device.SeqSet) string {
	var parts []string
	for _, r := range set {
		if r.From == r.To {
			parts = append(parts, strconv.FormatInt(r.From, 10))
			continue
		}
		parts = append(parts, fmt.Sprintf("%d-%d", r.From, r.To))
	}
	return strings.Join(parts, ", ")
}

// clip shortens a long text for a table; JSON output has it whole.
func clip(s string) string { return cli.Clip(s, 60) }

// stamp is a time as tables show it: UTC to the second, or nothing.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(cli.TimeTable)
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// prefixed is s behind what introduces it, or nothing.
func prefixed(with, s string) string {
	if s == "" {
		return ""
	}
	return with + s
}
