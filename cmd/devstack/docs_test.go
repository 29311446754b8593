package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/doctest"
)

// page reads one of the project's pages.
func page(t *testing.T, name string) doctest.Page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", name))
	require.NoError(t, err)
	return doctest.Parse(string(b))
}

// parses has the grammar parse a command line that a page shows; with --help it
// does nothing else.
func parses(t *testing.T, from string, args []string) {
	t.Helper()
	var errs strings.Builder
	app := cli.App{Name: "devstack", Description: description, Grammar: &grammar{}, Stdout: io.Discard, Stderr: &errs}
	assert.Zero(t, app.Run(t.Context(), append(args, "--help")), "%s: devstack %s: %s", from, strings.Join(args, " "), &errs)
}

// docs/docs_test.go does the same for the other binaries.
func TestCommandsOfPages(t *testing.T) {
	names, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	pages := []string{"README.md", "CONTRIBUTING.md"}
	for _, name := range names {
		pages = append(pages, filepath.Join("docs", filepath.Base(name)))
	}
	checked := 0
	for _, name := range pages {
		for _, words := range page(t, name).Commands("devstack", "bin/devstack") {
			if filepath.Base(words[0]) == "devstack" {
				parses(t, name, words[1:])
				checked++
			}
		}
	}
	for _, help := range []string{upCmd{}.Help(), demoCmd{}.Help()} {
		for line := range strings.Lines(help) {
			if example, ok := strings.CutPrefix(line, "  devstack "); ok {
				example, _, _ = strings.Cut(example, "  ") // what it does stands beside it
				parses(t, "--help", strings.Fields(example))
				checked++
			}
		}
	}
	require.Greater(t, checked, 3, "commands were found")
}

// Every console block of the README's section runs against the demo and prints
// what the README says, as far as its form goes: the columns of a table and what
// kind of value is in them, or the line with its times, identifiers and numbers
// left out.
func TestConsoleOfREADME(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	require.NoError(t, os.Rename(build(t, "../..", "./cmd/rollcall"), filepath.Join(dir, "bin", "rollcall")))
	log := testLog(t)
	flags := testFlags(t, filepath.Join(dir, ".rollcall"))
	s := testStack(t, flags, log)
	speed := 10.0
	raes, err := s.startRAEs(&demoCmd{stackFlags: flags, Capture: []string{lan}, Speed: &speed, Once: true, SnapshotInterval: -1})
	require.NoError(t, err)
	replayed(t, raes[0].edge)
	require.NoError(t, newWatch(s, raes, time.Now()).awaitApplied(t.Context(), patience))

	db, err := pgx.Connect(t.Context(), s.databaseURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(t.Context()) })
	var session string // that of the device whose session the README shows
	require.NoError(t, db.QueryRow(t.Context(), `SELECT session_id FROM device_attribute WHERE name = 'network.hostname' AND value = '"living-room-tv"'`).Scan(&session))

	temporal, err := filepath.Abs("../../.tools")
	require.NoError(t, err)
	env := append(os.Environ(), "PATH="+temporal+":"+os.Getenv("PATH"), "ROLLCALL_KAFKA_BROKERS="+s.kafkaAddr, "TEMPORAL_ADDRESS="+loopback(flags.TemporalPort))
	blocks := 0
	for _, b := range page(t, "README.md").Blocks {
		if b.Lang != "console" || b.Section != "Look into a session" {
			continue
		}
		blocks++
		t.Run(fmt.Sprintf("line %d", b.Line), func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(temporal, "temporal")); strings.Contains(b.Text, "$ temporal ") && err != nil {
				require.ErrorIs(t, err, fs.ErrNotExist)
				t.Skip("needs .tools/temporal (make temporal-cli builds it)")
			}
			steps := b.Steps()
			// One shell for the block, because of its variables. make has been done.
			script := "make() { :; }\n"
			for _, step := range steps {
				script += "printf '\\036'\n" + anyUUID.ReplaceAllString(step.Command, session) + "\n[ $? = 0 ] || echo FAILED\n"
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
			cmd.Dir, cmd.Env = dir, env
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.Output()
			require.NoError(t, err, "%s%s", out, &errs)
			t.Logf("%s%s", out, &errs)
			for i, got := range strings.Split(string(out), "\036")[1:] {
				sameForm(t, steps[i].Command, steps[i].Output, got)
			}
		})
	}
	require.Greater(t, blocks, 1)
}

var (
	anyUUID   = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`)
	columnGap = regexp.MustCompile(` {2,}`)
	values    = []struct {
		pattern *regexp.Regexp
		form    string
	}{
		{anyUUID, "UUID"},
		{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
		{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "MAC"},
		{regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`), "ADDRESS"},
		{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "HASH"},
		{regexp.MustCompile(`\d+`), "N"},
	}
)

// form is text with what differs from run to run left out.
func form(text string) string {
	for _, v := range values {
		text = v.pattern.ReplaceAllString(text, v.form)
	}
	return strings.TrimSpace(columnGap.ReplaceAllString(text, "  "))
}

// textLines are the lines of text that are not blank.
func textLines(text string) (out []string) {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// sameForm compares what a command printed with what the page says it prints. A
// line "…" in the page stands for any lines.
func sameForm(t *testing.T, command, want, got string) {
	t.Helper()
	wanted, printed := textLines(want), textLines(got)
	if len(wanted) == 0 {
		require.Empty(t, printed, command)
		return
	}
	require.NotEmpty(t, printed, command)
	if header := columnGap.Split(wanted[0], -1); len(header) >= 3 {
		require.Equal(t, header, columnGap.Split(printed[0], -1), "%s: columns", command)
		var kinds []string
		for _, row := range printed[1:] {
			require.Len(t, columnGap.Split(row, -1), len(header), "%s: %s", command, row)
			kinds = append(kinds, kindsOf(row))
		}
		for _, row := range wanted[1:] {
			if row != "…" {
				require.Contains(t, kinds, kindsOf(row), "%s: %s", command, row)
			}
		}
		if wanted[len(wanted)-1] != "…" {
			require.Len(t, printed, len(wanted), command)
		}
		return
	}
	// The page's lines, in order; between two of them others only where it says "…".
	var forms []string
	for _, line := range printed {
		forms = append(forms, form(line))
	}
	at, any := 0, false
	for _, line := range wanted {
		if line == "…" {
			any = true
			continue
		}
		for any && at < len(forms) && forms[at] != form(line) {
			at++
		}
		require.Less(t, at, len(forms), "%s prints no %q", command, line)
		require.Equal(t, form(line), forms[at], command)
		at, any = at+1, false
	}
	require.True(t, any || at == len(forms), "%s prints more", command)
}

// kindsOf is the kind of value in each column of a row.
func kindsOf(row string) string {
	var kinds []string
	for _, cell := range columnGap.Split(row, -1) {
		kind := form(cell)
		switch kind {
		case "UUID", "TIME", "MAC", "ADDRESS", "N", "-", "online", "offline", "available":
		default:
			kind = "text"
		}
		kinds = append(kinds, kind)
	}
	return strings.Join(kinds, " ")
}
