package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/printable"
	"github.com/rollcall-platform/rollcall/internal/verify"
)

// resultText is a result for people: a line, and below it, indented, what
// differs and what could not be asked.
func resultText(r verify.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-11s  %s  %s", r.Verdict, r.Session, printable.Text(r.RAE))
	for i, c := range r.Compared {
		b.WriteString([]string{"  ", "; "}[min(i, 1)] + comparisonText(c))
	}
	b.WriteByte('\n')
	line := func(parts ...string) { b.WriteString("    " + printable.Text(strings.Join(parts, "")) + "\n") }
	for _, d := range r.Differences {
		line(d.Attribute, ": ", valuesText(d))
	}
	for _, d := range r.Corrected {
		line(d.Attribute, ": ", valuesText(d), "; the snapshot has corrected it")
	}
	for _, text := range r.Findings {
		line(text)
	}
	for _, text := range r.Unreachable {
		line("unreachable: ", text)
	}
	for _, text := range r.Notes {
		line(text)
	}
	if r.Repair != nil {
		repairLines(line, *r.Repair)
	}
	return b.String()
}

// repairLines are the receipt of a repair: what was found, and what was done.
func repairLines(line func(...string), p verify.Repair) {
	for _, d := range append(slices.Clone(p.Differences), p.Corrected...) {
		line("before: ", d.Attribute, ": ", valuesText(d))
	}
	for _, text := range p.Findings {
		line("before: ", text)
	}
	if p.Failed != "" {
		line("not repaired: ", p.Failed)
		return
	}
	text := "repaired: it took what the database has"
	if len(p.Lost) > 0 {
		text += ", which lacked seq " + p.Lost.String()
	}
	line(text, "; snapshot ", p.Snapshot)
}

// comparisonText is "seq 14: edge c02781964535 = workflow c02781964535 = …".
func comparisonText(c verify.Comparison) string {
	text, last := "", ""
	for _, side := range verify.Sides {
		h, ok := c.Hashes[side]
		if !ok {
			continue
		}
		switch {
		case text == "":
		case h == last:
			text += " = "
		default:
			text += " ≠ "
		}
		text, last = text+string(side)+" "+short(h), h
	}
	when := ""
	if c.Before {
		when = " before its snapshot"
	}
	return fmt.Sprintf("seq %d%s: %s", c.Seq, when, text)
}

// short is the beginning of a hash: enough to tell two apart.
func short(hash string) string { return hash[:min(len(hash), 12)] }

func valuesText(d verify.Difference) string {
	var parts []string
	for _, side := range verify.Sides {
		if a, known := d.Values[side]; known {
			parts = append(parts, string(side)+" "+attributeText(a))
		}
	}
	return strings.Join(parts, ", ")
}

func attributeText(a *device.Attribute) string {
	if a == nil {
		return "has none"
	}
	return fmt.Sprintf("%s (seq %d)", clip(string(a.Value)), a.Seq)
}

// summaryText is "17 sessions: 15 equal, 1 drift, 1 unreachable".
func summaryText(s verify.Summary) string {
	text := fmt.Sprintf("%s: %d equal", count(s.Sessions, "session"), s.Equal)
	if s.Drift > 0 {
		text += fmt.Sprintf(", %d drift", s.Drift)
	}
	if s.Unreachable > 0 {
		text += fmt.Sprintf(", %d unreachable", s.Unreachable)
	}
	if s.Repaired > 0 {
		text += fmt.Sprintf(", %d of them repaired", s.Repaired)
	}
	return text
}
