// Package resolve is how a person resolves what could not be applied: dead
// letters (package dlq) and quarantined batches (package quarantine).
//
// Both take the same steps. The items are chosen; one that is named and was
// resolved before is refused; the plan says what would be done and changes
// nothing; the person confirms it; then each item is replayed or dropped and,
// behind that, marked. A crash between the two leaves an item replayed and not
// marked: it may be replayed again, which changes nothing in the tables
// (invariant 5 of docs/architecture.md).
package resolve

import (
	"context"
	"errors"
	"fmt"
)

// Resolution is what a person decided about an item.
type Resolution string

// Resolutions.
const (
	Replayed Resolution = "replayed"
	Dropped  Resolution = "dropped"
)

// Imperative is the resolution as a question begins with it.
func (r Resolution) Imperative() string {
	if r == Replayed {
		return "Replay"
	}
	return "Drop"
}

// Choice is how items were chosen.
type Choice struct {
	Named    int  // items that were named
	Filtered bool // by a filter
	All      bool
}

// Check reports a choice of nothing, or two that exclude each other. Items is
// what they are called, as in "letters", and form how one is named.
func (c Choice) Check(items, form string) error {
	switch {
	case c.Named == 0 && !c.Filtered && !c.All:
		return fmt.Errorf("say which %s: %s …, a filter, or --all", items, form)
	case c.Named > 0 && (c.Filtered || c.All):
		return fmt.Errorf("%s are named: a filter and --all choose among all, and are not for these", items)
	case c.All && c.Filtered:
		return errors.New("--all and a filter exclude each other")
	}
	return nil
}

// Plan is what a resolution would do.
type Plan interface {
	// Able is how many items it can be done to.
	Able() int
}

// Report is what a resolution did.
type Report interface {
	// Left is how many items it left as they were.
	Left() int
}

// Command is one run of a resolution. All fields but Confirm are required.
type Command[P Plan, R Report] struct {
	Items      string // what they are called, as in "letters"
	Resolution Resolution
	// Plan reads what would be done, and changes nothing. An item that was named
	// and resolved before is an error.
	Plan func(context.Context) (P, error)
	// Resolve does it. With an error it returns what was done until then.
	Resolve func(context.Context, P) (R, error)

	DryRun bool
	// Confirm asks the person, and returns nil for a yes. Nil: nobody is asked.
	Confirm func(question string) error
	// Describe is a plan as the question names it: "3 letters (bad-seq 3)".
	Describe   func(P) string
	ShowPlan   func(P) error
	ShowReport func(R) error
}

// Run plans, asks, resolves and shows what was done, also when that ended early.
// It fails when any item was left as it was.
func (c Command[P, R]) Run(ctx context.Context) error {
	plan, err := c.Plan(ctx)
	if err != nil {
		return err
	}
	if c.DryRun {
		return c.ShowPlan(plan)
	}
	if plan.Able() > 0 && c.Confirm != nil {
		if err := c.Confirm(c.Resolution.Imperative() + " " + c.Describe(plan) + "?"); err != nil {
			return err
		}
	}
	report, err := c.Resolve(ctx, plan)
	if err == nil {
		err = LeftError(c.Items, report.Left())
	}
	return errors.Join(err, c.ShowReport(report))
}

// LeftError is the error of n items that were left as they were, or nil.
func LeftError(items string, n int) error {
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d %s were left as they are", n, items)
}
