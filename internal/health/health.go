// Package health says whether a service can do its work now and, if not, what
// it lacks.
//
// A Set holds checks, which answer from memory: a component's own (Add), or
// that of a dependency, which is asked in the background at an interval
// (Watch). So readiness may be asked for at any rate and costs no dependency
// anything.
package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Defaults of a Dependency.
const (
	Interval = 5 * time.Second
	Timeout  = 5 * time.Second
)

// Dependency is something outside of the process that a service needs.
type Dependency struct {
	// Name is that of the check. Required.
	Name string
	// Ask returns nil when the dependency does now what the service needs of
	// it, else what it does not. It must end when its context does; one that
	// does not makes the check fail. Required.
	Ask func(context.Context) error
	// Interval is the time between two questions, give or take a fifth, so
	// that services which started together do not ask together. Default 5 s.
	Interval time.Duration
	// Timeout bounds one question. Default 5 s.
	Timeout time.Duration
}

// Status is what one check says.
type Status struct {
	OK bool `json:"ok"`
	// Error is what is missing, where OK is false.
	Error string `json:"error,omitempty"`
	// LastSuccess is how many seconds ago the dependency last did what was
	// asked of it. Nil: never, or the check is a component's own, which answers
	// for this moment.
	LastSuccess *float64 `json:"last_success_seconds_ago,omitempty"`
}

// Set is the checks of a service. It is ready when all of them pass. It is a
// prometheus.Collector of rollcall_dependency_up. Its methods may be called at
// any time, from any goroutine.
type Set struct {
	now func() time.Time

	mu     sync.Mutex
	checks map[string]func() Status
}

// NewSet returns a Set without checks.
func NewSet() *Set { return &Set{now: time.Now, checks: map[string]func() Status{}} }

// Add adds a check, which must answer at once. A second check of the same name
// replaces the first.
func (s *Set) Add(name string, ready func() error) {
	s.set(name, func() Status { return status(ready()) })
}

// Remove removes the check of this name, if there is one.
func (s *Set) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.checks, name)
}

func (s *Set) set(name string, check func() Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = check
}

func status(err error) Status {
	if err != nil {
		return Status{Error: printable.Text(err.Error())}
	}
	return Status{OK: true}
}

// Watch asks d until ctx ends. Its check replaces another of the same name, and
// fails until the first answer, while the last answer was an error, and when
// there has been no answer for as long as two questions may take.
func (s *Set) Watch(ctx context.Context, d Dependency) {
	if d.Interval == 0 {
		d.Interval = Interval
	}
	if d.Timeout == 0 {
		d.Timeout = Timeout
	}
	w := &watch{now: s.now, stale: 2 * (d.Interval + d.Timeout), err: errors.New("not asked yet"), answered: s.now()}
	s.set(d.Name, w.status)
	for ctx.Err() == nil {
		err := ask(ctx, d)
		if ctx.Err() != nil {
			return
		}
		w.answer(err)
		timer := time.NewTimer(d.Interval*4/5 + rand.N(d.Interval*2/5+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// ask asks once. A question that panics is answered by an error.
func ask(ctx context.Context, d Dependency) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the check panics: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	err = d.Ask(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s: %w", d.Timeout, err)
	}
	return err
}

// watch is what is known of a dependency.
type watch struct {
	now   func() time.Time
	stale time.Duration

	mu       sync.Mutex
	err      error
	answered time.Time // when the last question ended, by success or error
	success  time.Time // when the last that succeeded did; zero: none
}

func (w *watch) answer(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err, w.answered = err, w.now()
	if err == nil {
		w.success = w.answered
	}
}

func (w *watch) status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.err
	if idle := w.now().Sub(w.answered); idle > w.stale {
		err = fmt.Errorf("not known: the last answer is %s old", idle.Round(time.Second))
		if w.err != nil {
			err = fmt.Errorf("%w (it was: %w)", err, w.err)
		}
	}
	st := status(err)
	if !w.success.IsZero() {
		age := w.now().Sub(w.success).Round(time.Millisecond).Seconds()
		st.LastSuccess = &age
	}
	return st
}

// Check returns what each check says, and whether all pass.
func (s *Set) Check() (checks map[string]Status, ready bool) {
	s.mu.Lock()
	all := maps.Clone(s.checks)
	s.mu.Unlock()
	checks, ready = make(map[string]Status, len(all)), true
	for name, check := range all {
		checks[name] = check()
		ready = ready && checks[name].OK
	}
	return checks, ready
}

var up = prometheus.NewDesc("rollcall_dependency_up", "1 while the readiness check of this name passes, else 0.", []string{"dependency"}, nil)

// Describe implements prometheus.Collector.
func (*Set) Describe(c chan<- *prometheus.Desc) { c <- up }

// Collect implements prometheus.Collector.
func (s *Set) Collect(c chan<- prometheus.Metric) {
	checks, _ := s.Check()
	for name, st := range checks {
		value := 0.0
		if st.OK {
			value = 1
		}
		c <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, value, name)
	}
}
