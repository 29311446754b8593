package quarantine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/quarantine"
	"github.com/rollcall-platform/rollcall/internal/resolve"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// ledger is a Source and a Database. A batch has as many records as its ID is
// long.
type ledger struct {
	errs     map[string]error // by what was done and the ID: "replay abc"
	done     []string
	onReplay func()
}

func (l *ledger) do(what, id string) (int, error) {
	l.done = append(l.done, what+" "+id)
	return len(id), l.errs[what+" "+id]
}

func (l *ledger) Count(_ context.Context, q store.QuarantinedBatch) (int, error) {
	return l.do("count", q.ID)
}

func (l *ledger) Replay(_ context.Context, q store.QuarantinedBatch) (int, error) {
	if l.onReplay != nil {
		l.onReplay()
	}
	return l.do("replay", q.ID)
}

func (l *ledger) ResolveQuarantine(ctx context.Context, ids []string, by, outcome string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := l.do(outcome+" by "+by, ids[0])
	return err
}

var batches = []store.QuarantinedBatch{{ID: "a"}, {ID: "bb"}, {ID: "ccc"}}

// run resolves batches; refused are those that were left, by ID.
func (l *ledger) run(ctx context.Context, t *testing.T, to resolve.Resolution) (r quarantine.Report, refused []string, err error) {
	t.Helper()
	resolver := &quarantine.Resolver{
		Resolution: to, Source: l, Database: l, By: "jana", Timeout: time.Minute,
		Refused: func(q store.QuarantinedBatch, why error) {
			require.Error(t, why)
			refused = append(refused, q.ID)
		},
	}
	plan, err := resolver.Plan(ctx, batches)
	if err != nil {
		return plan.Report, refused, err
	}
	r, err = resolver.Resolve(ctx, plan)
	return r, refused, err
}

func TestReplayMarksEachBehindIt(t *testing.T) {
	l := &ledger{}
	r, refused, err := l.run(t.Context(), t, resolve.Replayed)
	require.NoError(t, err)
	require.Equal(t, quarantine.Report{Done: 3, Records: 6}, r)
	require.Empty(t, refused)
	require.Equal(t, []string{"count a", "count bb", "count ccc",
		"replay a", "replayed by jana a", "replay bb", "replayed by jana bb", "replay ccc", "replayed by jana ccc"}, l.done)
}

func TestDropReadsNothing(t *testing.T) {
	l := &ledger{}
	r, _, err := l.run(t.Context(), t, resolve.Dropped)
	require.NoError(t, err)
	require.Equal(t, quarantine.Report{Done: 3}, r)
	require.Equal(t, []string{"dropped by jana a", "dropped by jana bb", "dropped by jana ccc"}, l.done)
}

// What is gone is left, before or after the plan, and does not stop the others.
func TestWhatIsGoneIsLeft(t *testing.T) {
	l := &ledger{errs: map[string]error{
		"count a":   fmt.Errorf("%w: deleted", quarantine.ErrGone),
		"replay bb": fmt.Errorf("%w: deleted meanwhile", quarantine.ErrGone),
	}}
	r, refused, err := l.run(t.Context(), t, resolve.Replayed)
	require.NoError(t, err)
	require.Equal(t, quarantine.Report{Done: 1, Records: 3, Remaining: []string{"a", "bb"}}, r)
	require.Equal(t, []string{"a", "bb"}, refused)
	require.NotContains(t, l.done, "replay a")
	require.NotContains(t, l.done, "replayed by jana bb")
}

// An outage is not taken for what is gone: it ends the command, with what was
// done before it.
func TestOutageStops(t *testing.T) {
	outage := errors.New("no broker")
	for step, want := range map[string]quarantine.Report{
		"count bb":            {Done: 1, Records: 1},
		"replay bb":           {Done: 1, Records: 1, Remaining: []string{"bb"}},
		"replayed by jana bb": {Done: 1, Records: 1, Remaining: []string{"bb"}},
	} {
		l := &ledger{errs: map[string]error{step: outage}}
		r, _, err := l.run(t.Context(), t, resolve.Replayed)
		require.ErrorIs(t, err, outage, step)
		require.Equal(t, want, r, step)
		require.NotContains(t, l.done, "replay ccc", step)
	}
}

// A batch that was replayed is marked though the command was cancelled; the
// next one is not begun.
func TestCancelledBehindAReplay(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := &ledger{onReplay: cancel}
	r, refused, err := l.run(ctx, t, resolve.Replayed)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, r.Done)
	require.Equal(t, []string{"bb"}, refused)
	require.Contains(t, l.done, "replayed by jana a")
	require.NotContains(t, l.done, "replay bb")
}

func TestResolvedBefore(t *testing.T) {
	require.NoError(t, quarantine.ResolvedBefore(batches))
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	err := quarantine.ResolvedBefore(append([]store.QuarantinedBatch{{ID: "z", Outcome: store.OutcomeDropped, ResolvedBy: "ja\x1bna", ResolvedAt: at}}, batches...))
	require.EqualError(t, err, `z was dropped by "ja\x1bna" at 2026-11-21T09:00:00Z; --again does it once more`)
}
