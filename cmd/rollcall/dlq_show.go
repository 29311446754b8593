package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/dlq"
	"github.com/rollcall-platform/rollcall/internal/printable"
)

type dlqShowCmd struct {
	dlqFlags `embed:""`
	Letter   dlq.Coordinate `arg:"" placeholder:"PARTITION/OFFSET" help:"Which letter: PARTITION/OFFSET, as dlq list shows it."`
	Output   outputFlag     `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
	Raw      bool           `help:"Print the value alone, byte for byte. Not to a terminal: the bytes could control it."`
}

// Help is printed by dlq show --help.
func (*dlqShowCmd) Help() string {
	return `Shows a dead letter: where it was and why it is here, its headers, and its value: indented where it is JSON, as a hex dump where it is not text. Characters that do not print are replaced; -o json and --raw have the bytes as they are. Exits 3 when there is no such letter.

Examples:

    rollcall dlq show 0/17

    rollcall dlq show 0/17 --raw > event.json`
}

// Validate is called by kong before anything starts.
func (c *dlqShowCmd) Validate() error {
	if c.Raw && c.Output == "json" {
		return errors.New("--raw and --output=json exclude each other")
	}
	return c.validate()
}

// Run shows.
func (c *dlqShowCmd) Run(ctx context.Context, env cli.Env) error {
	if c.Raw && cli.IsTerminal(env.Raw) {
		return cli.Usagef("--raw: send the output to a file or a pipe: the bytes of a value could control the terminal")
	}
	return c.open(ctx, env, func(topic *dlq.Topic) error {
		selection, err := topic.Select(ctx, dlq.Filter{At: []dlq.Coordinate{c.Letter}})
		if err != nil {
			return err
		}
		_, err = selection.Each(ctx, func(l dlq.Letter) error {
			if c.Raw {
				_, err := env.Raw.Write(l.Record.Value)
				return err
			}
			if err := c.Output.write(env.Stdout, whole(l), func(w *tabwriter.Writer) { letter(w, l) }); err != nil {
				return err
			}
			if c.Output == "json" {
				return nil
			}
			return value(env.Stdout, l.Record.Value)
		})
		return err
	})
}

// header is one of a record's. Names may come twice.
type header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"` // base64: it may be anything
}

// wholeLetter is a letter with all that its record holds.
type wholeLetter struct {
	dlq.Letter
	Headers  []header `json:"headers"`
	KeyBytes []byte   `json:"key_base64"`
	Value    []byte   `json:"value_base64"`
	// Event is the value where it is JSON.
	Event json.RawMessage `json:"value,omitempty"`
}

func whole(l dlq.Letter) wholeLetter {
	w := wholeLetter{Letter: l, KeyBytes: l.Record.Key, Value: l.Record.Value, Headers: []header{}}
	if utf8.Valid(l.Record.Value) && json.Valid(l.Record.Value) {
		w.Event = l.Record.Value
	}
	for _, h := range l.Record.Headers {
		w.Headers = append(w.Headers, header{h.Key, h.Value})
	}
	return w
}

func letter(w *tabwriter.Writer, l dlq.Letter) {
	row(w, "Letter", l.At)
	row(w, "State", state(l))
	if l.Incomplete != "" {
		row(w, "", l.Incomplete)
	}
	row(w, "Record made", orElse(stamp(l.Time), "-"))
	row(w, "Record was at", wasAt(l))
	row(w, "Key", orElse(l.Key, "-"))
	row(w, "Reason", orElse(l.Reason, "-"))
	row(w, "Detail", orElse(l.Detail, "-"))
	row(w, "Size", fmt.Sprintf("%d bytes", l.Size))
	section(w, "HEADER", "VALUE")
	for _, h := range l.Record.Headers {
		row(w, h.Key, string(h.Value))
	}
}

// dumped is how much of a value that is no text is shown.
const dumped = 1 << 10

// value writes a value for people.
func value(w io.Writer, v []byte) error {
	var text string
	var indented bytes.Buffer
	switch {
	case v == nil:
		text = "(none)\n"
	case !utf8.Valid(v) || bytes.IndexByte(v, 0) >= 0:
		text = hex.Dump(v[:min(len(v), dumped)])
		if len(v) > dumped {
			text += fmt.Sprintf("and %d bytes more: --raw has them all\n", len(v)-dumped)
		}
	case json.Indent(&indented, v, "", "  ") == nil:
		text = indented.String()
	default:
		text = "  " + strings.ReplaceAll(string(v), "\n", "\n  ") // no line of it looks like the command's
	}
	var out []string
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		out = append(out, printable.Text(strings.ReplaceAll(line, "\t", "    ")))
	}
	_, err := io.WriteString(w, "\nVALUE\n"+strings.Join(out, "\n")+"\n")
	return err
}
