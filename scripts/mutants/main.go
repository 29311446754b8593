// Command mutants plants the bugs of testdata/mutants, one at a time, each in a
// scratch copy of the tree, runs the tests that are meant for it, and says whether
// they caught it. It exits 1 when one survived, does not apply, or does not
// compile, and when the tests fail without it.
//
// A scratch copy stays where it is from run to run, so that only what a mutant
// touches is compiled again.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "names of mutants, with commas between them; default all")
	jobs := flag.Int("jobs", 1, "how many mutants at a time")
	timeout := flag.Duration("timeout", 90*time.Second, "of the tests of one mutant; what they have not caught then has survived")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, *only, *jobs, *timeout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, jobs int, timeout time.Duration) (ok bool, err error) {
	all, err := readMutants("testdata/mutants")
	if err != nil {
		return false, err
	}
	if all, err = choose(all, strings.FieldsFunc(only, func(r rune) bool { return r == ',' || r == ' ' })); err != nil {
		return false, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return false, fmt.Errorf("where to keep scratch copies: %w", err)
	}
	todo := make(chan mutant)
	var mu sync.Mutex
	caught, done := 0, 0
	var running sync.WaitGroup
	var failures []error
	for n := range min(max(jobs, 1), len(all)) {
		scratch, err := newScratch(filepath.Join(cache, "rollcall-mutants", fmt.Sprint(n)))
		if err != nil {
			failures = append(failures, err)
			continue
		}
		running.Go(func() {
			for m := range todo {
				r := scratch.try(ctx, m, timeout)
				mu.Lock()
				if ctx.Err() == nil {
					fmt.Fprintln(os.Stdout, r)
					done++
				}
				if r.caught() {
					caught++
				}
				mu.Unlock()
			}
		})
	}
	if len(failures) > 0 {
		close(todo)
		return false, errors.Join(failures...)
	}
	for _, m := range all {
		select {
		case todo <- m:
		case <-ctx.Done():
		}
	}
	close(todo)
	running.Wait()
	fmt.Fprintf(os.Stdout, "%d of %d caught\n", caught, len(all))
	if done < len(all) {
		return false, errors.New("stopped before all were tried")
	}
	return caught == len(all), nil
}

// outcome is what became of a mutant.
type outcome struct {
	mutant  string
	verdict string // caught, survived or error
	took    time.Duration
	detail  string // the test that failed, or what went wrong
}

func (o outcome) caught() bool { return o.verdict == "caught" }

func (o outcome) String() string {
	return fmt.Sprintf("%-8s  %5.1f s  %-34s  %s", o.verdict, o.took.Seconds(), o.mutant, o.detail)
}

// scratch is a copy of the tree. Not safe for concurrent use.
type scratch struct {
	root  string
	works map[check]error // what the checks say without a mutant
}

// newScratch returns the scratch at root, for this process alone.
func newScratch(root string) (*scratch, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("scratch copy: %w", err)
	}
	lock, err := os.OpenFile(root+".lock", os.O_CREATE|os.O_RDWR, 0o600) // held until the process ends
	if err != nil {
		return nil, fmt.Errorf("scratch copy: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("scratch copy %s: another run has it: %w", root, err)
	}
	return &scratch{root: root, works: map[check]error{}}, nil
}

// try plants m and runs its tests.
func (s *scratch) try(ctx context.Context, m mutant, timeout time.Duration) outcome {
	o := outcome{mutant: m.name, verdict: "error"}
	err := s.sync()
	for _, c := range m.checks {
		if _, known := s.works[c]; !known && err == nil {
			failed, checkErr := s.run(ctx, c, 10*timeout)
			if failed != "" {
				checkErr = fmt.Errorf("%s fails without the mutant", failed)
			}
			s.works[c] = checkErr
		}
		err = errors.Join(err, s.works[c])
	}
	if err == nil {
		err = m.plant(s.root, false)
	}
	start := time.Now()
	for _, c := range m.checks {
		if err != nil {
			break
		}
		if o.detail, err = s.run(ctx, c, timeout); o.detail != "" {
			break
		}
	}
	o.took = time.Since(start)
	switch {
	case errors.Is(err, errTimedOut):
		o.verdict, o.detail = "survived", fmt.Sprintf("the tests did not end within %s", timeout)
	case err != nil:
		o.detail = err.Error()
	case o.detail == "":
		o.verdict = "survived"
	default:
		o.verdict = "caught"
	}
	return o
}

var errTimedOut = errors.New("timed out")

// run runs the check. It returns what failed, a test or the linter, "" where nothing
// did; and an error where that cannot be said.
func (s *scratch) run(ctx context.Context, c check, timeout time.Duration) (failed string, err error) {
	name, args := "go", []string{"test", "-vet=off", "-failfast", "-timeout", timeout.String()}
	if c.lint {
		name, args = os.Getenv("GOLANGCI_LINT"), []string{"run", "--allow-parallel-runners"}
	}
	cmd := exec.CommandContext(ctx, name, append(args, strings.Fields(c.args)...)...)
	cmd.Dir = s.root
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if c.lint {
		return verdictOfLint(string(out), err)
	}
	return verdictOf(string(out), err)
}

// verdictOfLint reads the output of golangci-lint: each finding is FILE:LINE:COLUMN
// and what it is.
func verdictOfLint(out string, err error) (failed string, _ error) {
	line, _, _ := strings.Cut(out, "\n")
	switch {
	case err == nil:
		return "", nil
	case strings.Contains(line, "(typecheck)"):
		return "", fmt.Errorf("it does not compile:\n%s", out)
	case strings.HasSuffix(line, ")") && strings.Contains(line, ".go:"):
		return "linter: " + line, nil
	}
	return "", fmt.Errorf("golangci-lint: %w\n%s", err, out)
}

// verdictOf reads the output of go test.
func verdictOf(out string, err error) (failed string, _ error) {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok {
			name, _, _ := strings.Cut(rest, " ")
			failed = name // a subtest's line comes after its parent's
		}
	}
	switch {
	case strings.Contains(out, "panic: test timed out"):
		return "", errTimedOut
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return "", fmt.Errorf("it does not compile:\n%s", out)
	case strings.Contains(out, "no tests to run") || strings.Contains(out, "[no test files]"):
		return "", errors.New("its arguments name no test")
	case failed != "" || err == nil:
		return failed, nil
	case strings.Contains(out, "\npanic: ") || strings.HasPrefix(out, "panic: ") || strings.Contains(out, "\nFAIL"):
		return "a panic", nil
	}
	return "", fmt.Errorf("go test: %w\n%s", err, out)
}

// sync makes the scratch the working tree as it is now: what git tracks, and new
// files that it does not ignore. A file that is the same is not written, so that
// Go's test cache knows it again.
func (s *scratch) sync() error {
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("list the tree: %w", err)
	}
	want := map[string]bool{}
	for file := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed
		}
		if err != nil {
			return fmt.Errorf("copy the tree: %w", err)
		}
		want[file] = true
		to := filepath.Join(s.root, file)
		if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, content) {
			continue
		}
		info, err := os.Stat(file)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o700)
		}
		if err == nil {
			err = os.WriteFile(to, content, info.Mode().Perm())
		}
		if err != nil {
			return fmt.Errorf("copy the tree: %w", err)
		}
	}
	var strays []string
	err = filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		file, err := filepath.Rel(s.root, path)
		if err == nil && !want[file] {
			strays = append(strays, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look through the copy: %w", err)
	}
	for _, path := range slices.Backward(strays) {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("clean the copy: %w", err)
		}
	}
	return nil
}
