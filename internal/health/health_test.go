package health

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/metrictest"
)

// dependency is one that the test breaks and mends.
type dependency struct {
	asked   atomic.Int64
	failure atomic.Pointer[error]
}

func (d *dependency) set(err error) { d.failure.Store(&err) }

func (d *dependency) ask(context.Context) error {
	d.asked.Add(1)
	if err := d.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func one(s *Set) Status {
	checks, _ := s.Check()
	return checks["database"]
}

func TestWatchFollowsTheDependency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := NewSet(), &dependency{}
		r := prometheus.NewRegistry()
		r.MustRegister(s)
		d.set(errors.New("connection refused"))
		go s.Watch(t.Context(), Dependency{Name: "database", Ask: d.ask})
		synctest.Wait()
		require.Equal(t, Status{Error: "connection refused"}, one(s), "never seen: no age")
		require.Zero(t, metrictest.Value(t, r, "rollcall_dependency_up", "dependency", "database"))

		for range 3 { // it turns and comes back, as often as the dependency does
			d.set(nil)
			time.Sleep(2 * Interval)
			synctest.Wait()
			st := one(s)
			require.True(t, st.OK)
			require.Empty(t, st.Error)
			require.LessOrEqual(t, *st.LastSuccess, 1.2*Interval.Seconds())
			require.InDelta(t, 1, metrictest.Value(t, r, "rollcall_dependency_up", "dependency", "database"), 0)

			d.set(errors.New("the database system is shutting down"))
			time.Sleep(time.Minute)
			st = one(s)
			require.False(t, st.OK)
			require.Equal(t, "the database system is shutting down", st.Error)
			require.InDelta(t, 60, *st.LastSuccess, 2*Interval.Seconds(), "how long it has been away")
		}
	})
}

// However often readiness is asked for, the dependency is asked at its interval.
func TestLoadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := NewSet(), &dependency{}
		go s.Watch(t.Context(), Dependency{Name: "database", Ask: d.ask})
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			for range 50 {
				s.Check()
			}
		}
		require.InDelta(t, 60/Interval.Seconds(), d.asked.Load(), 4)
	})
}

// A check that hangs, though its context has ended, is no answer.
func TestHangingCheckIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, release := NewSet(), make(chan struct{})
		var hang atomic.Bool
		go s.Watch(t.Context(), Dependency{Name: "database", Ask: func(context.Context) error {
			if hang.Load() {
				<-release
			}
			return nil
		}})
		synctest.Wait()
		require.True(t, one(s).OK)
		hang.Store(true)
		time.Sleep(time.Minute)
		require.False(t, one(s).OK)
		require.Regexp(t, `^not known: the last answer is \S+ old$`, one(s).Error)
		hang.Store(false)
		close(release)
		synctest.Wait()
		require.True(t, one(s).OK)
	})
}

func TestTimeoutAndPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet()
		go s.Watch(t.Context(), Dependency{Name: "database", Ask: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		go s.Watch(t.Context(), Dependency{Name: "kafka", Ask: func(context.Context) error { panic("nil map") }})
		synctest.Wait()
		checks, ready := s.Check()
		require.False(t, ready)
		require.Equal(t, "not asked yet", checks["database"].Error)
		require.Equal(t, "the check panics: nil map", checks["kafka"].Error)
		time.Sleep(Timeout)
		synctest.Wait()
		require.Equal(t, "no answer within 5s: context deadline exceeded", one(s).Error)
	})
}

func TestAllMustPass(t *testing.T) {
	s := NewSet()
	_, ready := s.Check()
	require.True(t, ready)
	s.Add("poller", func() error { return nil })
	s.Add("kafka", func() error { return errors.New("no broker") })
	checks, ready := s.Check()
	require.False(t, ready)
	require.Equal(t, map[string]Status{"poller": {OK: true}, "kafka": {Error: "no broker"}}, checks)
	s.Add("kafka", func() error { return nil })
	_, ready = s.Check()
	require.True(t, ready)
	s.Add("start", func() error { return errors.New("starting") })
	s.Remove("start")
	_, ready = s.Check()
	require.True(t, ready)
}
