package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/groupcommit"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// fake is a database whose transactions take a time and refuse what is bad.
type fake struct {
	takes time.Duration
	fail  func([]store.Update) error
	hold  chan struct{} // if set, each transaction takes one from it

	mu      sync.Mutex
	groups  [][]string
	running map[string]bool
	at      int // transactions that run now
	most    int
	both    bool // a session was in two transactions at once
}

func (f *fake) Apply(ctx context.Context, updates []store.Update) error {
	names := make([]string, len(updates))
	f.mu.Lock()
	if f.running == nil {
		f.running = map[string]bool{}
	}
	for i, u := range updates {
		names[i] = u.Session
		f.both = f.both || f.running[u.Session]
		f.running[u.Session] = true
	}
	f.groups = append(f.groups, names)
	f.at++
	f.most = max(f.most, f.at)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.at--
		for _, u := range updates {
			delete(f.running, u.Session)
		}
	}()
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.fail != nil {
		return f.fail(updates)
	}
	return nil
}

func (f *fake) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []int
	for _, g := range f.groups {
		out = append(out, len(g))
	}
	return out
}

func update(session string) store.Update { return store.Update{Session: session} }

func name(i int) string { return fmt.Sprintf("s%03d", i) }

func committer(t require.TestingT, o groupcommit.Options) *groupcommit.Committer {
	c, err := groupcommit.New(o)
	require.NoError(t, err)
	return c
}

func closeNow(t require.TestingT, c *groupcommit.Committer) {
	require.NoError(t, c.Close(context.Background()))
}

// applies starts n callers, each with a session of its own, and returns their
// results when all have one.
func applies(c *groupcommit.Committer, n int) []error {
	out := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { out[i] = c.Apply(context.Background(), update(name(i))) })
	}
	wg.Wait()
	return out
}

func TestALoneUpdateGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Millisecond}
		c := committer(t, groupcommit.Options{Store: f, Linger: 5 * time.Millisecond})
		for i := range 50 { // 20 ms apart, as in light load
			begun := time.Now()
			require.NoError(t, c.Apply(t.Context(), update(name(i))))
			require.Equal(t, time.Millisecond, time.Since(begun), "no wait but the transaction itself")
			time.Sleep(20 * time.Millisecond)
		}
		closeNow(t, c)
	})
}

func TestWhatComesDuringACommitGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hold: make(chan struct{})}
		c := committer(t, groupcommit.Options{Store: f, Committers: 1, Linger: -1, Sessions: 20})
		done := make(chan []error)
		go func() { done <- applies(c, 31) }()
		synctest.Wait()
		require.Equal(t, []int{1}, f.sizes())
		f.hold <- struct{}{}
		synctest.Wait()
		require.Equal(t, []int{1, 20}, f.sizes())
		f.hold <- struct{}{}
		f.hold <- struct{}{}
		require.Equal(t, make([]error, 31), <-done)
		require.Equal(t, []int{1, 20, 10}, f.sizes())
		closeNow(t, c)
	})
}

// In a steady stream with gaps well below Linger, updates gather though the
// database is quick; none waits longer than Linger.
func TestLingersWhileMoreAreLikely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: 100 * time.Microsecond}
		c := committer(t, groupcommit.Options{Store: f, Linger: 5 * time.Millisecond})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var longest time.Duration
		for i := range 500 {
			wg.Go(func() {
				begun := time.Now()
				if err := c.Apply(context.Background(), update(name(i))); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				longest = max(longest, time.Since(begun))
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		require.LessOrEqual(t, longest, 5*time.Millisecond+2*f.takes)
		require.Less(t, len(f.sizes()), 180, "about three updates a group and more")
		closeNow(t, c)
	})
}

// A few callers that each wait for their result before they send the next
// update are all there is: waiting for more of them would be in vain.
func TestDoesNotWaitForWhoCannotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Millisecond}
		c := committer(t, groupcommit.Options{Store: f, Committers: 1, Linger: 50 * time.Millisecond})
		begun := time.Now()
		var wg sync.WaitGroup
		for caller := range 8 {
			wg.Go(func() {
				for range 500 {
					if err := c.Apply(context.Background(), update(name(caller))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.Less(t, time.Since(begun)/500, 3*time.Millisecond, "a round takes about a transaction")
		closeNow(t, c)
	})
}

func TestCommittersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: 10 * time.Millisecond}
		c := committer(t, groupcommit.Options{Store: f, Committers: 3, Sessions: 4})
		for _, err := range applies(c, 100) {
			require.NoError(t, err)
		}
		require.Equal(t, 3, f.most)
		require.False(t, f.both)
		for _, n := range f.sizes() {
			require.LessOrEqual(t, n, 4)
		}
		closeNow(t, c)
	})
}

func TestASessionIsNeverTwiceInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Millisecond}
		c := committer(t, groupcommit.Options{Store: f, Committers: 4, Sessions: 8})
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if err := c.Apply(context.Background(), update(name(i%3))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.False(t, f.both)
		applied := 0
		for _, g := range f.groups {
			require.Len(t, slices.Compact(slices.Sorted(slices.Values(g))), len(g))
			applied += len(g)
		}
		require.Equal(t, 200, applied)
		closeNow(t, c)
	})
}

var errOutage = errors.New("connection refused")

func refuse(bad map[string]bool) func([]store.Update) error {
	return func(updates []store.Update) error {
		for _, u := range updates {
			if bad[u.Session] {
				return fmt.Errorf("%w: %s", store.ErrRefused, u.Session)
			}
		}
		return nil
	}
}

func TestOneBadUpdateFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Millisecond, fail: refuse(map[string]bool{name(5): true})}
		c := committer(t, groupcommit.Options{Store: f, Committers: 1})
		for i, err := range applies(c, 32) {
			if i == 5 {
				require.ErrorIs(t, err, store.ErrRefused)
				require.ErrorContains(t, err, name(5))
			} else {
				require.NoError(t, err)
			}
		}
		require.LessOrEqual(t, len(f.sizes()), 2+2*5, "two more transactions for each halving")
		closeNow(t, c)
	})
}

func TestAnOutageReachesEveryCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Millisecond, fail: func([]store.Update) error { return errOutage }}
		c := committer(t, groupcommit.Options{Store: f, Committers: 1})
		for _, err := range applies(c, 20) {
			require.ErrorIs(t, err, errOutage)
		}
		require.Len(t, f.sizes(), 2, "an outage is not searched for a culprit")
		closeNow(t, c)
	})
}

func TestWhoLeavesSpoilsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hold: make(chan struct{})}
		c := committer(t, groupcommit.Options{Store: f, Committers: 1})
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 4)
		call := func(ctx context.Context, session string) {
			go func() { results <- c.Apply(ctx, update(session)) }()
			synctest.Wait()
		}
		call(t.Context(), "first")
		call(ctx, "queued, leaves")
		call(t.Context(), "queued, stays")
		cancel()
		require.ErrorIs(t, <-results, context.Canceled)
		f.hold <- struct{}{}
		require.NoError(t, <-results)
		synctest.Wait()
		require.Equal(t, [][]string{{"first"}, {"queued, stays"}}, f.groups)

		// One of two in a transaction leaves: the other gets its result.
		ctx, cancel = context.WithCancel(t.Context())
		call(ctx, "a")
		call(t.Context(), "b")
		f.hold <- struct{}{}
		require.NoError(t, <-results)
		synctest.Wait()
		require.Equal(t, []string{"a", "b"}, f.groups[2])
		cancel()
		require.ErrorIs(t, <-results, context.Canceled)
		f.hold <- struct{}{}
		require.NoError(t, <-results)

		// Nobody waits any more: the transaction is given up.
		ctx, cancel = context.WithCancel(t.Context())
		call(ctx, "a")
		cancel()
		require.ErrorIs(t, <-results, context.Canceled)
		synctest.Wait()
		require.Zero(t, f.at)
		closeNow(t, c)
	})
}

func TestATransactionIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := committer(t, groupcommit.Options{Store: &fake{takes: time.Hour}, Timeout: 3 * time.Second})
		begun := time.Now()
		require.ErrorIs(t, c.Apply(t.Context(), update("a")), context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(begun))
		closeNow(t, c)
	})
}

func TestCallersWaitForRoom(t *testing.T) {
	for what, o := range map[string]groupcommit.Options{
		"count": {MaxSessions: 2}, "bytes": {MaxBytes: 100 << 10},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := prometheus.NewRegistry()
				f := &fake{hold: make(chan struct{})}
				o.Store, o.Committers, o.Registerer = f, 1, registry
				c := committer(t, o)
				big := func(session string) store.Update {
					u := update(session)
					u.Write = map[string]device.Attribute{"a": {Value: make([]byte, 40<<10)}}
					return u
				}
				results := make(chan error, 3)
				for i := range 3 {
					go func() { results <- c.Apply(t.Context(), big(name(i))) }()
					synctest.Wait()
				}
				require.InDelta(t, 1, metrictest.Value(t, registry, "rollcall_group_commit_queue_sessions"), 0, "one runs, one is queued, one waits outside")
				require.InDelta(t, 42<<10, metrictest.Value(t, registry, "rollcall_group_commit_queue_bytes"), 1<<10)

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, c.Apply(ctx, big("late")), context.DeadlineExceeded)
				for range 3 {
					f.hold <- struct{}{}
				}
				for range 3 {
					require.NoError(t, <-results)
				}
				require.Equal(t, []int{1, 1, 1}, f.sizes())

				// One that is larger than all the room there is goes alone.
				u := big("huge")
				u.Write["a"] = device.Attribute{Value: make([]byte, 200<<10)}
				go func() { results <- c.Apply(t.Context(), u) }()
				f.hold <- struct{}{}
				require.NoError(t, <-results)
				closeNow(t, c)
			})
		})
	}
}

func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Second}
		c := committer(t, groupcommit.Options{Store: f, Sessions: 4})
		done := make(chan []error)
		go func() { done <- applies(c, 20) }()
		synctest.Wait()
		require.NoError(t, c.Close(t.Context()))
		require.Equal(t, make([]error, 20), <-done)
		require.ErrorIs(t, c.Apply(t.Context(), update("late")), groupcommit.ErrClosed)
		require.NoError(t, c.Close(t.Context()), "twice is once")
	})
}

func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := committer(t, groupcommit.Options{Store: &fake{takes: time.Hour}, Timeout: 2 * time.Hour, Sessions: 4, Committers: 2})
		done := make(chan []error)
		go func() { done <- applies(c, 20) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Close(ctx), context.DeadlineExceeded)
		for _, err := range <-done {
			require.Error(t, err)
		}
	})
}

// Whatever is refused, whenever callers leave: exactly the refused fail, who
// stays gets a result, and what was reported committed is.
func TestExactlyTheRefusedFail(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			n := rapid.IntRange(1, 120).Draw(rt, "updates")
			bad, leaves := map[string]bool{}, map[int]time.Duration{}
			for i := range n {
				if rapid.IntRange(0, 9).Draw(rt, "bad") == 0 {
					bad[name(i)] = true
				}
				if rapid.IntRange(0, 9).Draw(rt, "leaves") == 0 {
					leaves[i] = time.Duration(rapid.IntRange(0, 20).Draw(rt, "after")) * time.Millisecond
				}
			}
			gap := time.Duration(rapid.IntRange(0, 3000).Draw(rt, "gap")) * time.Microsecond
			committed := map[string]bool{}
			f := &fake{takes: time.Duration(rapid.IntRange(0, 5000).Draw(rt, "takes")) * time.Microsecond}
			f.fail = func(updates []store.Update) error {
				err := refuse(bad)(updates)
				f.mu.Lock()
				defer f.mu.Unlock()
				for _, u := range updates {
					committed[u.Session] = committed[u.Session] || err == nil
				}
				return err
			}
			c := committer(rt, groupcommit.Options{
				Store: f, Sessions: rapid.IntRange(1, 40).Draw(rt, "group"), Committers: rapid.IntRange(1, 4).Draw(rt, "committers"),
				Linger: time.Duration(rapid.IntRange(-1, 8).Draw(rt, "linger")) * time.Millisecond, MaxSessions: rapid.IntRange(1, 200).Draw(rt, "room"),
			})
			errs := make([]error, n)
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					ctx := context.Background()
					if after, ok := leaves[i]; ok {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, after)
						defer cancel()
					}
					errs[i] = c.Apply(ctx, update(name(i)))
				})
				time.Sleep(gap)
			}
			wg.Wait()
			closeNow(rt, c)
			for i, err := range errs {
				_, mayLeave := leaves[i]
				switch {
				case mayLeave && errors.Is(err, context.DeadlineExceeded):
				case bad[name(i)]:
					require.ErrorIs(rt, err, store.ErrRefused)
				default:
					require.NoError(rt, err)
					require.True(rt, committed[name(i)])
				}
			}
			require.False(rt, f.both)
		})
	})
}

func TestOptions(t *testing.T) {
	for says, o := range map[string]groupcommit.Options{
		"no Store":   {},
		"below zero": {Store: &fake{}, Committers: -1},
	} {
		_, err := groupcommit.New(o)
		require.ErrorContains(t, err, says)
	}
}

// The names are an interface: see docs/metrics.md.
func TestMetricNames(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	c := committer(t, groupcommit.Options{Store: &fake{}, Registerer: registry})
	require.NoError(t, c.Apply(t.Context(), update("a")))
	closeNow(t, c)
	families, err := registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Equal(t, []string{
		"rollcall_group_commit_bisections_total",
		"rollcall_group_commit_queue_bytes",
		"rollcall_group_commit_queue_sessions",
		"rollcall_group_commit_seconds",
		"rollcall_group_commit_sessions",
		"rollcall_group_commit_wait_seconds",
	}, names)
	_, err = groupcommit.New(groupcommit.Options{Store: &fake{}, Registerer: registry})
	require.Error(t, err, "names twice in one registry")
}
