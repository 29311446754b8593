package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// maxCell is how much of a text a cell shows, in characters; JSON has it whole.
const maxCell = 1000

// WriteRow writes cells with tabs between them, for a text/tabwriter. Their text
// may come from outside: what does not print, or would break the table, is
// replaced.
func WriteRow(w io.Writer, cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			_, _ = w.Write([]byte{'\t'})
		}
		_, _ = io.WriteString(w, Clip(printable.Text(fmt.Sprint(cell)), maxCell))
	}
	_, _ = w.Write([]byte{'\n'})
}

// WriteJSON writes v as indented JSON. What does not print is escaped: a program
// reads the values as they are, and a terminal can show them.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(printable.NewJSONWriter(w))
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Clip is the first most characters of s, the last of them "…" if s is longer.
func Clip(s string, most int) string {
	n := 0
	for i := range s {
		if n++; n == most {
			if rest := []rune(s[i:]); len(rest) > 1 {
				return s[:i] + "…"
			}
			return s
		}
	}
	return s
}
