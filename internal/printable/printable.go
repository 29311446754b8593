// Package printable makes text that came from a device, a file or a person safe
// to show: what a terminal would obey or hide is replaced by U+FFFD.
//
// Replaced are control characters (C0, C1, DEL), bidirectional and other format
// characters, zero-width ones, private and unassigned ones, line and paragraph
// separators, spaces other than U+0020, and bytes that are not UTF-8. Of combining
// marks that follow each other, MaxMarks are kept. Emoji, and every other letter
// or symbol that Unicode calls graphic, stay.
package printable

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// MaxMarks is how many combining marks may follow each other: no script stacks
// more, and hundreds would cover the lines above and below.
const MaxMarks = 4

// fill characters have a width and no ink: a name of them looks empty. Unicode
// calls them letters or symbols.
const fill = "\u115f\u1160\u3164\uffa0\u2800"

// shows reports whether r, which follows marks combining marks, is shown as it is.
func shows(r rune, marks int) bool {
	switch {
	case unicode.In(r, unicode.M):
		return marks < MaxMarks && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && !joins(r)
	case strings.ContainsRune(fill, r):
		return false
	}
	return unicode.IsPrint(r)
}

// joins reports whether r is the combining grapheme joiner, which has no width.
func joins(r rune) bool { return r == '\u034f' }

// cleaner replaces runes one by one.
type cleaner struct{ marks int }

// next is what stands for r; keep is false where nothing does: a flood of marks
// is one replacement.
func (c *cleaner) next(r rune) (out rune, keep bool) {
	mark := unicode.In(r, unicode.M)
	shown := shows(r, c.marks)
	switch {
	case !mark:
		c.marks = 0
	default:
		c.marks++
	}
	switch {
	case shown:
		return r, true
	case mark && c.marks > MaxMarks+1:
		return 0, false
	}
	return unicode.ReplacementChar, true
}

// Text is s with what does not print replaced, line breaks and tabs among it: a
// text of one line.
func Text(s string) string {
	var c cleaner
	return strings.Map(func(r rune) rune {
		if out, keep := c.next(r); keep {
			return out
		}
		return -1
	}, s)
}

// JSON is a JSON text with what does not print escaped (\u009b): the same values,
// which a terminal can show. Line breaks and tabs outside strings stay.
func JSON(b []byte) []byte {
	out := make([]byte, 0, len(b))
	var c cleaner
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		shown, _ := c.next(r)
		switch {
		case shown == r && n > 0 && (r != utf8.RuneError || n > 1), r == '\n', r == '\t', r == '\r':
			out = append(out, b[:n]...)
		case r > 0xffff:
			hi, lo := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		b = b[n:]
	}
	return out
}

// Writer passes text on with what does not print replaced. Line breaks and tabs
// stay: they are of whoever writes, who has text from outside go through Text
// first. Safe for concurrent use; what one Write brings stays together.
type Writer struct {
	mu      sync.Mutex
	w       io.Writer
	partial []byte // the beginning of a rune that the next Write ends
	clean   cleaner
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := append(w.partial, p...)
	out := make([]byte, 0, len(in))
	for len(in) > 0 && utf8.FullRune(in) {
		r, n := utf8.DecodeRune(in)
		in = in[n:]
		if r == '\n' || r == '\t' {
			w.clean = cleaner{}
			out = append(out, byte(r))
			continue
		}
		if shown, keep := w.clean.next(r); keep {
			out = utf8.AppendRune(out, shown)
		}
	}
	w.partial = append([]byte(nil), in...)
	if _, err := w.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// JSONWriter passes JSON texts on as JSON makes them. Each Write must be of whole
// runes, as a log handler's and an encoder's are.
type JSONWriter struct{ w io.Writer }

// NewJSONWriter returns a JSONWriter to w.
func NewJSONWriter(w io.Writer) JSONWriter { return JSONWriter{w} }

// Write implements io.Writer.
func (w JSONWriter) Write(p []byte) (int, error) {
	if _, err := w.w.Write(JSON(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
