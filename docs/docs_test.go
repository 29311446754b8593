// Package docs_test holds the project's pages against the tree: every relative
// link, every file that is named, and every command that is shown.
package docs_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/doctest"
)

const root = ".."

// files are the files of the tree, as paths from its root with slashes; what is
// built or fetched is left out.
var files = sync.OnceValues(func() (all []string, err error) {
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return fmt.Errorf("walk the tree: %w", err)
		}
		if slices.Contains([]string{".git", ".tools", ".rollcall", "bin", "dist"}, rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil // .git of a worktree is a file
		}
		if d.Type().IsRegular() {
			all = append(all, filepath.ToSlash(rel))
		}
		return nil
	})
	return all, err
})

func tree(t *testing.T) []string {
	t.Helper()
	all, err := files()
	require.NoError(t, err)
	return all
}

func source(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(b)
}

// pages are all Markdown files.
func pages(t *testing.T) map[string]doctest.Page {
	t.Helper()
	out := map[string]doctest.Page{}
	for _, name := range tree(t) {
		if strings.HasSuffix(name, ".md") {
			out[name] = doctest.Parse(source(t, name))
		}
	}
	require.Contains(t, out, "README.md")
	return out
}

// exists fails unless the file or directory is there, and, of a page, its anchor.
func exists(t *testing.T, from, target string) {
	t.Helper()
	name, anchor, _ := strings.Cut(target, "#")
	_, err := os.Stat(filepath.Join(root, name))
	require.NoError(t, err, "%s leads to %s", from, target)
	if anchor == "" || !strings.HasSuffix(name, ".md") {
		return
	}
	var anchors []string
	for _, h := range doctest.Parse(source(t, name)).Headings {
		anchors = append(anchors, doctest.Anchor(h))
	}
	require.Contains(t, anchors, anchor, "%s leads to %s", from, target)
}

func TestLinks(t *testing.T) {
	for name, page := range pages(t) {
		for _, target := range page.Links {
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if strings.HasPrefix(target, "#") {
				target = path.Base(name) + target
			}
			exists(t, name, path.Join(path.Dir(name), target))
		}
	}
}

// Files that pages name in inline code, and pages that any file names, are there.
func TestNamedFiles(t *testing.T) {
	top := map[string]bool{}
	for _, name := range tree(t) {
		first, _, nested := strings.Cut(name, "/")
		top[first] = nested
	}
	plain := regexp.MustCompile(`^[\w./-]+$`)
	for name, page := range pages(t) {
		for _, code := range page.Inline {
			if first, _, nested := strings.Cut(code, "/"); nested && top[first] && plain.MatchString(code) {
				exists(t, name, strings.TrimSuffix(code, "/..."))
			}
		}
	}
	reference := regexp.MustCompile(`\bdocs/[\w/-]+\.md(#[\w-]+)?`)
	for _, name := range tree(t) {
		switch filepath.Ext(name) {
		case ".go", ".yml", ".yaml", ".sh", ".sql", ".json", "":
			for _, target := range reference.FindAllString(source(t, name), -1) {
				exists(t, name, target)
			}
		}
	}
}

var binariesDir string // empty where no test has needed the binaries

// binaries builds the two binaries and returns their directory.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rollcall-docs-")
	if err != nil {
		return "", err
	}
	binariesDir = dir
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", dir, "./cmd/rollcall", "./cmd/rollcall-edge")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binariesDir != "" {
		_ = os.RemoveAll(binariesDir)
	}
	os.Exit(code)
}

// check fails where this tree cannot run the command that the page shows.
// Commands of others (kubectl, temporal, …) are not looked at.
func check(t *testing.T, from string, words []string) {
	t.Helper()
	for len(words) > 0 && (words[0] == "sudo" || words[0] == "exec" || regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0])) {
		words = words[1:]
	}
	if len(words) == 0 {
		return
	}
	line := from + ": " + strings.Join(words, " ")
	name, args := words[0], words[1:]
	switch {
	case slices.Contains([]string{"rollcall", "rollcall-edge"}, path.Base(name)):
		parses(t, line, path.Base(name), args)
	case name == "make":
		checkMake(t, line, args)
	case name == "docker" && len(args) > 0 && args[0] == "compose":
		checkCompose(t, line, args[1:])
	case strings.HasPrefix(name, "scripts/"), strings.HasPrefix(name, "deploy/"), strings.HasPrefix(name, ".ci/"):
		info, err := os.Stat(filepath.Join(root, name))
		assert.NoError(t, err, line)
		assert.NotZero(t, info.Mode()&0o100, "%s: not executable", line)
	case name == "go" && len(args) > 0:
		for _, pkg := range args[1:] {
			if strings.HasPrefix(pkg, "./") {
				exists(t, line, strings.TrimSuffix(pkg, "/..."))
			}
		}
	}
}

// parses has the binary parse the command line: with --help it does nothing else,
// and an unknown subcommand, flag or value is refused before.
func parses(t *testing.T, line, binary string, args []string) {
	t.Helper()
	dir, err := binaries()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, binary), append(slices.Clone(args), "--help")...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	assert.NoError(t, err, "%s: %s", line, out)
}

func checkMake(t *testing.T, line string, args []string) {
	t.Helper()
	makefile := source(t, "Makefile")
	for _, arg := range args {
		if variable, _, ok := strings.Cut(arg, "="); ok {
			assert.Contains(t, makefile, "$("+variable, line)
			continue
		}
		assert.Regexp(t, `(?m)^[a-z -]*\b`+regexp.QuoteMeta(arg)+`\b[a-z -]*:`, makefile, line)
	}
}

// checkCompose looks at profiles and services, and at what the command line tool's
// service is to run.
func checkCompose(t *testing.T, line string, args []string) {
	t.Helper()
	compose := source(t, "docker-compose.yml")
	for i, arg := range args {
		if arg == "--profile" {
			assert.Contains(t, compose, "profiles: ["+args[i+1]+"]", line)
		}
		if arg == "run" || arg == "exec" || arg == "logs" || arg == "stop" || arg == "start" || arg == "restart" {
			rest := slices.DeleteFunc(slices.Clone(args[i+1:]), func(a string) bool { return strings.HasPrefix(a, "-") })
			if arg != "run" && arg != "exec" {
				for _, service := range rest {
					assert.Contains(t, compose, "\n  "+service+":\n", line)
				}
				return
			}
			service := rest[0]
			assert.Contains(t, compose, "\n  "+service+":\n", line)
			if service == "cli" {
				parses(t, line, "rollcall", args[slices.Index(args, service)+1:])
			}
			return
		}
	}
}

func TestCommands(t *testing.T) {
	checked := 0
	for name, page := range pages(t) {
		for _, words := range page.Commands("rollcall", "bin/rollcall", "rollcall-edge", "bin/rollcall-edge", "make", "docker compose") {
			check(t, name, words)
			checked++
		}
	}
	require.Greater(t, checked, 50, "commands were found")
}

// What the pages of --help give as examples are commands as well. They are read
// from the source, because --help wraps its lines.
func TestExamplesOfHelp(t *testing.T) {
	checked := 0
	for _, name := range tree(t) {
		if !strings.HasPrefix(name, "cmd/") || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, text := range helpTexts(t, name) {
			for line := range strings.Lines(text) {
				example, ok := strings.CutPrefix(line, "  ")
				if !ok {
					continue
				}
				example, _, _ = strings.Cut(example, "   ") // what it does stands beside it
				for _, words := range doctest.Commands(example) {
					check(t, name, words)
					checked++
				}
			}
		}
	}
	require.Greater(t, checked, 20, "examples were found")
}

// helpTexts are the strings in methods Help of the file.
func helpTexts(t *testing.T, name string) (texts []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, 0)
	require.NoError(t, err)
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Name.Name != "Help" {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				text, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				texts = append(texts, text)
			}
			return true
		})
	}
	return texts
}

// Each row of the table in CONTRIBUTING.md names a file and what to read in it.
func TestQuestions(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| (.+\?) \| (.+) \| (.+) \|$`).FindAllStringSubmatch(source(t, "CONTRIBUTING.md"), -1)
	require.Greater(t, len(rows), 10)
	for _, row := range rows {
		m := regexp.MustCompile(`^\[[^\]]+\]\(([^)]+)\)$`).FindStringSubmatch(row[2])
		require.NotNil(t, m, "%s: a link to a file", row[1])
		text := source(t, m[1])
		symbols := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[3], -1)
		require.NotEmpty(t, symbols, row[1])
		for _, s := range symbols {
			if strings.HasSuffix(m[1], ".go") {
				require.Regexp(t, `(?m)^(func (\([^)]*\) )?|type |var |const |\t|)`+regexp.QuoteMeta(s[1])+`\b`, text, "%s: %s declares it", row[1], m[1])
			} else {
				require.Contains(t, text, s[1], row[1])
			}
		}
	}
}

// Each decision has its status, its date and the same headings, and is listed.
func TestDecisions(t *testing.T) {
	list := source(t, "docs/decisions/README.md")
	for name, page := range pages(t) {
		if path.Dir(name) != "docs/decisions" || path.Base(name) == "README.md" {
			continue
		}
		require.Regexp(t, `(?m)^Status: (accepted|superseded by \d+)  \nDate: \d{4}-\d\d-\d\d\n`, source(t, name), name)
		require.Equal(t, []string{"Decision", "Reasons", "Rejected alternatives", "Costs"}, page.Headings[1:], name)
		require.Contains(t, list, "("+path.Base(name)+")")
	}
}

// Each alert's section says what it means, what to check and what to do.
func TestRunbook(t *testing.T) {
	sections := regexp.MustCompile(`(?m)^#+ `).Split(source(t, "docs/operations.md"), -1)
	alerts := 0
	for _, section := range sections {
		if strings.HasPrefix(section, "Rollcall") {
			alerts++
			require.Regexp(t, `(?s)^\w+\n\n\*\*Means\.\*\* .+\*\*Check\.\*\* .+\*\*Do\.\*\* `, section)
		}
	}
	require.Greater(t, alerts, 20)
}
