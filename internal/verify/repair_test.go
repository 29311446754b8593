package verify_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/internal/verify"
)

// fleet is sessions whose workflows believe more than the database has, until they
// are told to look.
type fleet struct {
	mu       sync.Mutex
	differs  map[string]bool
	repaired []time.Time
	err      error
	helpless bool // a repair changes nothing
}

func (f *fleet) State(_ context.Context, id string) (verify.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.differs[id] {
		return verify.State{RAE: rae, AsOf: 9, Attributes: map[string]device.Attribute{"a": value("new", 9)}}, nil
	}
	return verify.State{RAE: rae, AsOf: 7, Attributes: map[string]device.Attribute{"a": value("old", 7)}}, nil
}

func (f *fleet) Load(context.Context, string) (store.Stored, error) {
	return store.Stored{Found: true, State: device.State{
		RAE: rae, AsOf: 7, Seen: device.SeqSet{{From: 1, To: 7}}, Attributes: maps.Clone(map[string]device.Attribute{"a": value("old", 7)}),
	}}, nil
}

func (f *fleet) Repair(_ context.Context, id string) (verify.Repair, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.repaired = append(f.repaired, time.Now())
	if f.err != nil {
		return verify.Repair{}, f.err
	}
	if !f.helpless {
		delete(f.differs, id)
	}
	return verify.Repair{Lost: device.SeqSet{{From: 8, To: 9}}, Snapshot: "sent"}, nil
}

func (f *fleet) run(t *testing.T, sessions, differing int, repairs bool) (verify.Summary, []verify.Result) {
	t.Helper()
	f.differs = map[string]bool{}
	var all []verify.Session
	for n := range sessions {
		id := fmt.Sprintf("509aeecb-bb04-4bb3-a982-%012d", n)
		f.differs[id] = n < differing
		all = append(all, verify.Session{ID: id, RAE: rae})
	}
	o := verify.Options{Workflows: f, Database: f, Timeout: 30 * time.Second, RepairRate: 2}
	if repairs {
		o.Repairs = f
	}
	v, err := verify.New(o)
	require.NoError(t, err)
	var sum verify.Summary
	var results []verify.Result
	require.NoError(t, v.Run(t.Context(), all, func(r verify.Result) { sum.Add(r); results = append(results, r) }))
	return sum, results
}

func TestRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		sum, results := f.run(t, 12, 9, true)
		require.Equal(t, verify.Summary{Sessions: 12, Equal: 12, Repaired: 9}, sum)
		require.True(t, sum.OK())
		require.Len(t, f.repaired, 9, "those that are equal are left alone")
		require.GreaterOrEqual(t, f.repaired[8].Sub(f.repaired[0]), 4*time.Second, "two in a second")
		receipts := 0
		for _, r := range results {
			if r.Repair == nil {
				continue
			}
			receipts++
			require.Equal(t, verify.Equal, r.Verdict)
			require.Equal(t, device.SeqSet{{From: 8, To: 9}}, r.Repair.Lost)
			require.Equal(t, "sent", r.Repair.Snapshot)
			require.NotEmpty(t, r.Repair.Findings, "what was found before")
		}
		require.Equal(t, 9, receipts)
	})
}

func TestRepairIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		sum, _ := f.run(t, 2, 1, false)
		require.Equal(t, verify.Summary{Sessions: 2, Equal: 1, Drift: 1}, sum)
		require.Empty(t, f.repaired)
	})
}

func TestRepairThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{err: errors.New("no worker")}
		sum, results := f.run(t, 1, 1, true)
		require.Equal(t, verify.Summary{Sessions: 1, Drift: 1}, sum)
		require.Equal(t, "no worker", results[0].Repair.Failed)

		f = &fleet{helpless: true}
		sum, results = f.run(t, 1, 1, true)
		require.Equal(t, verify.Summary{Sessions: 1, Drift: 1}, sum)
		require.Len(t, f.repaired, 1, "it is told once")
		require.NotNil(t, results[0].Repair)

		f = &fleet{err: verify.ErrGone}
		_, results = f.run(t, 1, 1, true)
		require.Contains(t, results[0].Repair.Snapshot, "does not run")
		require.Empty(t, results[0].Repair.Failed)
	})
}
