package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// A patch that no longer applies breaks nothing, and so holds nothing.
func TestMutantsApply(t *testing.T) {
	mutants, err := readMutants(root + "/testdata/mutants")
	require.NoError(t, err)
	require.NotEmpty(t, mutants)
	for _, m := range mutants {
		assert.NoError(t, m.plant(root, true), "testdata/mutants/%s.patch", m.name)
	}
}

func TestEveryPromiseHasAMutant(t *testing.T) {
	mutants, err := readMutants(root + "/testdata/mutants")
	require.NoError(t, err)
	promises, err := readPromises(root)
	require.NoError(t, err)
	for _, problem := range compare(promises, mutants) {
		assert.Fail(t, problem)
	}
}

func TestPromisesAreFound(t *testing.T) {
	page := "# A\n\n## What must always hold\n\n1. One. Two; three.\n2. Four.\n\n## Failure, hop by hop\n\n| what | holds |\n|---|---|\n| edge | disk |\n"
	require.Equal(t, []promise{{architecture, "One"}, {architecture, "Two"}, {architecture, "three."}, {architecture, "Four."}},
		sentencesOf(section(page, "What must always hold")))
	require.Equal(t, []promise{{architecture, "| edge | disk |"}}, rowsOf(section(page, "Failure, hop by hop")))
	require.Equal(t, []string{"a is b, always. More.", "c."},
		invariantsOf("// T is.\n//\n// Invariant: a is b,\n// always. More.\n//\n// Not this.\ntype T int\n\n\t// x. Invariant: c.\n\tx int\n"))
}

func TestComparison(t *testing.T) {
	promises := []promise{{"a.go", "one thing holds."}, {"b.go", "another holds."}}
	m := mutant{name: "m", promises: []quote{{"a.go", "one thing"}, {"a.go", "another"}}}
	require.Len(t, compare(promises, []mutant{m}), 2)
	m.promises[1].file = "b.go"
	require.Empty(t, compare(promises, []mutant{m}))
}

func TestHeader(t *testing.T) {
	m, err := parseMutant("m", "# Promise: a.go: one: two\n# Tests: ./a -run ^TestA$\n# Lint: ./a\n# Why: so.\n--- a/a.go\n# Tests: no\n")
	require.NoError(t, err)
	require.Equal(t, mutant{name: "m", promises: []quote{{"a.go", "one: two"}}, checks: []check{{args: "./a -run ^TestA$"}, {lint: true, args: "./a"}}}, m)
	_, err = parseMutant("m", "# Tests: ./a\n")
	require.Error(t, err)
	_, err = choose([]mutant{m}, []string{"n"})
	require.Error(t, err)
}

func TestVerdict(t *testing.T) {
	failure := errors.New("exit status 1")
	failed, err := verdictOf("--- FAIL: TestA (0.1s)\n    --- FAIL: TestA/b (0.1s)\nFAIL\nFAIL\tp\t1s\n", failure)
	require.NoError(t, err)
	require.Equal(t, "TestA/b", failed)
	failed, err = verdictOf("ok p 1s\n", nil)
	require.NoError(t, err)
	require.Empty(t, failed)
	failed, err = verdictOf("panic: nil map\n\ngoroutine 1\nFAIL\tp\t1s\n", failure)
	require.NoError(t, err)
	require.Equal(t, "a panic", failed)
	_, err = verdictOf("panic: test timed out after 1s\nFAIL\n", failure)
	require.ErrorIs(t, err, errTimedOut)
	for _, out := range []string{"FAIL p [build failed]\n", "ok p 1s [no tests to run]\n", "no such command\n"} {
		_, err = verdictOf(out, failure)
		require.Error(t, err)
		require.NotErrorIs(t, err, errTimedOut)
	}
	failed, err = verdictOfLint("a/a.go:3:1: no (depguard)\n", failure)
	require.NoError(t, err)
	require.Equal(t, "linter: a/a.go:3:1: no (depguard)", failed)
	_, err = verdictOfLint("cannot load\n", failure)
	require.Error(t, err)
}
