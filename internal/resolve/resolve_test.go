package resolve_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/resolve"
)

type (
	plan   int
	report int
)

func (p plan) Able() int   { return int(p) }
func (r report) Left() int { return int(r) }

// Each step comes after the one before, and none after a refusal.
func TestCommandSteps(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		able, left   int
		dryRun       bool
		failing      string // the step that fails
		nobodyToAsk  bool
		steps        []string
		err          string
		errIsRefused bool
	}{
		"resolved":          {able: 2, steps: []string{"plan", "ask", "resolve", "report"}},
		"not asked":         {able: 2, nobodyToAsk: true, steps: []string{"plan", "resolve", "report"}},
		"nothing to ask":    {able: 0, steps: []string{"plan", "resolve", "report"}},
		"dry run":           {able: 2, dryRun: true, steps: []string{"plan", "show"}},
		"no plan":           {able: 2, failing: "plan", steps: []string{"plan"}, errIsRefused: true},
		"no":                {able: 2, failing: "ask", steps: []string{"plan", "ask"}, errIsRefused: true},
		"some left":         {able: 2, left: 3, steps: []string{"plan", "ask", "resolve", "report"}, err: "3 letters were left as they are"},
		"ended early":       {able: 2, left: 1, failing: "resolve", steps: []string{"plan", "ask", "resolve", "report"}, errIsRefused: true},
		"cannot be printed": {able: 2, failing: "report", steps: []string{"plan", "ask", "resolve", "report"}, errIsRefused: true},
	} {
		t.Run(name, func(t *testing.T) {
			var steps []string
			step := func(name string) error {
				if steps = append(steps, name); c.failing == name {
					return refused
				}
				return nil
			}
			command := resolve.Command[plan, report]{
				Items: "letters", Resolution: resolve.Replayed, DryRun: c.dryRun,
				Plan: func(context.Context) (plan, error) { return plan(c.able), step("plan") },
				Resolve: func(_ context.Context, p plan) (report, error) {
					require.Equal(t, plan(c.able), p)
					return report(c.left), step("resolve")
				},
				Confirm: func(question string) error {
					require.Equal(t, "Replay some letters?", question)
					return step("ask")
				},
				Describe: func(plan) string { return "some letters" },
				ShowPlan: func(plan) error { return step("show") },
				ShowReport: func(r report) error {
					require.Equal(t, report(c.left), r)
					return step("report")
				},
			}
			if c.nobodyToAsk {
				command.Confirm = nil
			}
			err := command.Run(t.Context())
			require.Equal(t, c.steps, steps)
			require.Equal(t, c.errIsRefused, errors.Is(err, refused), "%v", err)
			if c.err != "" {
				require.EqualError(t, err, c.err)
			} else if !c.errIsRefused {
				require.NoError(t, err)
			}
		})
	}
}

func TestChoice(t *testing.T) {
	valid := []resolve.Choice{{Named: 2}, {Filtered: true}, {All: true}}
	for _, named := range []int{0, 2} {
		for _, filtered := range []bool{false, true} {
			for _, all := range []bool{false, true} {
				c := resolve.Choice{Named: named, Filtered: filtered, All: all}
				require.Equal(t, slices.Contains(valid, c), c.Check("letters", "PARTITION/OFFSET") == nil, "%+v", c)
			}
		}
	}
	require.EqualError(t, resolve.Choice{}.Check("letters", "PARTITION/OFFSET"), "say which letters: PARTITION/OFFSET …, a filter, or --all")
}
