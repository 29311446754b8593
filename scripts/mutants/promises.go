package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// promise is a text that has to have a mutant, on one line.
type promise struct{ file, text string }

const architecture = "docs/architecture.md"

// readPromises reads the promises of the tree at root: every sentence of "What
// must always hold", every row of "Failure, hop by hop", and every "Invariant:" in
// a comment.
func readPromises(root string) ([]promise, error) {
	page, err := os.ReadFile(filepath.Join(root, architecture))
	if err != nil {
		return nil, fmt.Errorf("read promises: %w", err)
	}
	all := slices.Concat(sentencesOf(section(string(page), "What must always hold")), rowsOf(section(string(page), "Failure, hop by hop")))
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		for _, text := range invariantsOf(string(source)) {
			all = append(all, promise{filepath.ToSlash(file), text})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read promises: %w", err)
	}
	return all, nil
}

// section returns what a page has under a heading of the second level.
func section(page, heading string) string {
	_, after, _ := strings.Cut(page, "\n## "+heading+"\n")
	text, _, _ := strings.Cut(after, "\n## ")
	return text
}

var (
	listItem    = regexp.MustCompile(`(?m)^[0-9]+\. (.*)$`)
	sentenceEnd = regexp.MustCompile(`[.;] +`)
	// invariant is the comment's paragraph from the word on.
	invariant = regexp.MustCompile(`(?m)^[ \t]*//.*\bInvariant: .*(\n[ \t]*// ?\S.*)*`)
	comment   = regexp.MustCompile(`(?m)^\s*//`)
)

func sentencesOf(list string) (all []promise) {
	for _, item := range listItem.FindAllStringSubmatch(list, -1) {
		for _, sentence := range sentenceEnd.Split(item[1], -1) {
			all = append(all, promise{architecture, sentence})
		}
	}
	return all
}

// rowsOf returns the rows of a table, without its head.
func rowsOf(table string) (all []promise) {
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "| ") {
			all = append(all, promise{architecture, oneLine(line)})
		}
	}
	return all[min(1, len(all)):]
}

func invariantsOf(source string) (texts []string) {
	for _, found := range invariant.FindAllString(source, -1) {
		text := oneLine(comment.ReplaceAllString(found, ""))
		texts = append(texts, strings.Split(text, "Invariant: ")[1:]...) // a paragraph may have two
	}
	return texts
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// compare returns the promises that no mutant quotes, and the quotes that are of no
// promise.
func compare(promises []promise, mutants []mutant) (problems []string) {
	held := make([]bool, len(promises))
	for _, m := range mutants {
		for _, q := range m.promises {
			found := false
			for i, p := range promises {
				if p.file == q.file && strings.Contains(p.text, q.words) {
					held[i], found = true, true
				}
			}
			if !found {
				problems = append(problems, fmt.Sprintf("mutant %s: %s does not promise %q (any more)", m.name, q.file, q.words))
			}
		}
	}
	for i, p := range promises {
		if !held[i] {
			problems = append(problems, fmt.Sprintf("no mutant in testdata/mutants breaks this promise of %s: %s", p.file, p.text))
		}
	}
	return problems
}
