package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// figure is one line of the table and one element of OUT.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Goal  string  `json:"goal"` // "" where there is none, else such as ">= 5"
	Met   *bool   `json:"met"`  // null where there is no goal
}

// newFigure judges value by goal: an operator (>=, <=, =) and a number. What is
// no finite number was not measured, and meets no goal.
func newFigure(name string, value float64, unit, goal string) figure {
	f := figure{Name: name, Value: round(value), Unit: unit, Goal: goal}
	if goal == "" {
		return f
	}
	op, number, _ := strings.Cut(goal, " ")
	limit, err := strconv.ParseFloat(number, 64)
	met := err == nil && !math.IsNaN(value) && !math.IsInf(value, 0)
	switch op {
	case ">=":
		met = met && value >= limit
	case "<=":
		met = met && value <= limit
	case "=":
		met = met && value == limit
	default:
		met = false
	}
	f.Met = &met
	return f
}

// round keeps four significant digits: no figure here is worth more.
func round(v float64) float64 {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return -1 // JSON has no such number
	case v == 0:
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	if scale < 1 {
		return math.Round(v)
	}
	return math.Round(v*scale) / scale
}

func (f figure) value() string { return strconv.FormatFloat(f.Value, 'f', -1, 64) }

func (f figure) verdict() string {
	switch {
	case f.Met == nil:
		return ""
	case *f.Met:
		return "yes"
	}
	return "NO"
}

func printTable(w io.Writer, figures []figure) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "FIGURE\tVALUE\tUNIT\tGOAL\tMET")
	for _, f := range figures {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", f.Name, f.value(), f.Unit, f.Goal, f.verdict())
	}
	_ = t.Flush()
}

func writeJSON(path string, figures []figure) error {
	b, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
