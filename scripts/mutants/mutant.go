package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is a bug that is planted on purpose: a file testdata/mutants/NAME.patch.
// Above the diff it has lines
//
//	# Promise: FILE: some words of it, as FILE has them
//	# Tests: arguments of go test
//	# Lint: arguments of golangci-lint run
//
// The first at least once, and at least one of the others. Every other line that
// begins with # is a remark.
type mutant struct {
	name     string
	path     string // of the patch
	promises []quote
	checks   []check
}

// check is what may catch a mutant: tests, or the linter.
type check struct {
	lint bool
	args string
}

// quote is some words of a promise, and the file that makes it.
type quote struct{ file, words string }

// readMutants reads all patches of dir, by name.
func readMutants(dir string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, fmt.Errorf("list mutants: %w", err)
	}
	var all []mutant
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read mutant: %w", err)
		}
		m, err := parseMutant(strings.TrimSuffix(filepath.Base(path), ".patch"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if m.path, err = filepath.Abs(path); err != nil {
			return nil, fmt.Errorf("read mutant: %w", err)
		}
		all = append(all, m)
	}
	return all, nil
}

func parseMutant(name, text string) (mutant, error) {
	m := mutant{name: name}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			break
		}
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "# Promise":
			file, words, ok := strings.Cut(value, ": ")
			if !ok {
				return m, fmt.Errorf("%q does not say which file makes the promise", value)
			}
			m.promises = append(m.promises, quote{file, words})
		case "# Tests":
			m.checks = append(m.checks, check{args: value})
		case "# Lint":
			m.checks = append(m.checks, check{lint: true, args: value})
		}
	}
	if len(m.promises) == 0 || len(m.checks) == 0 {
		return m, errors.New("it names no promise, or nothing that may catch it")
	}
	return m, nil
}

// choose returns the mutants of the names; of no names all.
func choose(all []mutant, names []string) ([]mutant, error) {
	if len(names) == 0 {
		return all, nil
	}
	var chosen []mutant
	for _, name := range names {
		i := slices.IndexFunc(all, func(m mutant) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no mutant is named %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// plant applies the mutant's patch to the tree at root. With check it only tells
// whether the patch applies.
func (m mutant) plant(root string, check bool) error {
	args := []string{"apply", "--whitespace=nowarn"}
	if check {
		args = append(args, "--check")
	}
	cmd := exec.Command("git", append(args, m.path)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("stale: the patch does not apply: %s", bytes.TrimSpace(out))
	}
	return nil
}
