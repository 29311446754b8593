package poller

import (
	"path"
	"slices"
	"sync"
	"time"
)

// confirmShare: of this many launches of a class that has both, one is of a
// lane that only confirms.
const confirmShare = 8

// scheduler decides which ready lane is next and when it may go.
//
// The class that holds the fewest places in flight for its weight is next; in
// it a lane with a change before one that only confirms, with a share kept for
// these; among those the one with the oldest record.
//
// Invariant: a lane is in one queue at most, and once; no launch takes what is in
// flight past the limit; each launch is matched by one release. Nothing starves: a
// class without a place in flight is passed over no more often than the sum of
// the weights over its own before it is next; in it a confirming lane is passed
// over by at most confirmShare-1 changes; and headStart bounds what may overtake
// a lane by its record's age.
type scheduler struct {
	// launch sends a lane's head, and reports false where there is nothing to
	// send: the lane's partition is gone. It must not block.
	launch func(*lane, *ticket) bool
	now    func() time.Time

	mu      sync.Mutex
	behind  bool // see catchUp
	window  *window
	classes []*class // in the order their patterns are tried; the default takes the rest
	over    *class   // the last of them: of RAEs over their budget of events
	tickets map[*ticket]struct{}
}

// class is a class with its lanes that wait and the number that is in flight.
type class struct {
	Class
	inFlight          int
	passed            int // times another was next while this had work
	changes, confirms laneHeap
	sinceConfirm      int
}

// ticket is a place in the window.
type ticket struct {
	class *class
	at    time.Time
	epoch uint32
	// resent is set when a signal was tried again: the time to its ack says
	// nothing about the sink. It is its flight's owner's.
	resent bool
}

func newScheduler(w *window, classes []Class, launch func(*lane, *ticket) bool) *scheduler {
	s := &scheduler{launch: launch, now: time.Now, window: w, tickets: map[*ticket]struct{}{}}
	for _, c := range classes {
		s.classes = append(s.classes, &class{Class: c})
	}
	s.classes = append(s.classes, &class{Class: Class{Pattern: DefaultClass, Weight: DefaultWeight}})
	s.over = &class{Class: Class{Pattern: OverBudget, Weight: overBudgetWeight}}
	s.classes = append(s.classes, s.over)
	return s
}

// classOf is the first class whose pattern matches.
func (s *scheduler) classOf(rae string) *class {
	last := len(s.classes) - 2
	for _, c := range s.classes[:last] {
		if ok, _ := path.Match(c.Pattern, rae); ok { // the pattern was checked
			return c
		}
	}
	return s.classes[last]
}

// offer queues lanes that are ready, and moves those that wait among the
// confirming and have a change now.
func (s *scheduler) offer(lanes ...*lane) {
	if len(lanes) == 0 {
		return
	}
	s.mu.Lock()
	for _, l := range lanes {
		if l.own == nil {
			l.own = s.classOf(l.rae)
		}
		if l.queue == nil {
			l.class = l.own
			if l.account != nil && l.account.tooFast.Load() {
				l.class = s.over
			}
		}
		queue := &l.class.confirms
		if l.changes.Load() {
			queue = &l.class.changes
		}
		switch {
		case l.queue == nil:
			queue.push(l)
		case l.queue != queue && queue == &l.class.changes:
			l.queue.remove(l)
			queue.push(l)
		}
	}
	s.mu.Unlock()
	s.dispatch()
}

// release gives t's place back. acked says that its batch was signalled and is
// applied now: the time it took tells of the sink.
func (s *scheduler) release(t *ticket, acked bool) {
	s.mu.Lock()
	s.freeLocked(t)
	if acked && !t.resent {
		now := s.now()
		s.window.landed(now, t.epoch, now.Sub(t.at))
	}
	s.mu.Unlock()
	s.dispatch()
}

func (s *scheduler) freeLocked(t *ticket) {
	delete(s.tickets, t)
	t.class.inFlight--
}

// cut halves the window, and reports whether it did.
func (s *scheduler) cut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.cut(s.now())
}

// catchUp says whether the reader is far behind the end of what waits in Kafka.
// While it is, one lane is in flight at a time. An apply costs as much as reading
// hundreds of records, and a session that is applied now would have to be applied
// again for what is read next. So a backlog is folded first, as far as the budgets
// go, and then applied once.
func (s *scheduler) catchUp(behind bool) {
	s.mu.Lock()
	changed := s.behind != behind
	s.behind = behind
	s.mu.Unlock()
	if changed {
		s.dispatch()
	}
}

// limitLocked is how many places there are.
func (s *scheduler) limitLocked() int {
	if s.behind {
		return 1
	}
	return s.window.limit()
}

// crowded reports whether lanes wait for a place.
func (s *scheduler) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.classes, func(c *class) bool { return c.waits() > 0 })
}

func (s *scheduler) dispatch() {
	for {
		s.mu.Lock()
		if len(s.tickets) >= s.limitLocked() {
			s.mu.Unlock()
			return
		}
		c := s.nextLocked()
		if c == nil {
			s.mu.Unlock()
			return
		}
		l := c.pop()
		now := s.now()
		t := &ticket{class: c, at: now}
		c.inFlight++
		s.tickets[t] = struct{}{}
		if !s.behind { // else the time to the ack tells nothing: no epoch is 0
			t.epoch = s.window.launched(now, len(s.tickets))
		}
		s.mu.Unlock()
		if !s.launch(l, t) {
			s.mu.Lock()
			s.freeLocked(t)
			s.mu.Unlock()
		}
	}
}

// nextLocked returns the class whose lane is next, nil where nothing waits.
func (s *scheduler) nextLocked() *class {
	total := 0
	for _, c := range s.classes {
		if c.waits() > 0 {
			total += c.Weight
		}
	}
	var best *class
	for _, c := range s.classes {
		switch {
		case c.waits() == 0:
			c.passed = 0
		case best == nil || c.before(best, total):
			best = c
		}
	}
	for _, c := range s.classes {
		if c != best && c.waits() > 0 {
			c.passed++
		}
	}
	if best != nil {
		best.passed = 0
	}
	return best
}

// before reports whether c goes before d: the one that has waited its time
// without a place, else the one that would hold fewer for its weight.
func (c *class) before(d *class, total int) bool {
	switch cd, dd := c.due(total), d.due(total); {
	case cd && dd:
		return c.passed*c.Weight > d.passed*d.Weight
	case cd != dd:
		return cd
	}
	return (c.inFlight+1)*d.Weight < (d.inFlight+1)*c.Weight
}

// due reports whether c, without a place, was passed over as often as its weight
// allows: where the window is smaller than the number of classes, shares are
// shares of launches.
func (c *class) due(total int) bool { return c.inFlight == 0 && c.passed*c.Weight >= total }

func (c *class) waits() int { return len(c.changes) + len(c.confirms) }

// pop takes the lane that is next. There must be one.
func (c *class) pop() *lane {
	switch {
	case len(c.confirms) == 0:
		c.sinceConfirm = 0
		return c.changes.pop()
	case len(c.changes) == 0 || c.sinceConfirm >= confirmShare-1:
		c.sinceConfirm = 0
		return c.confirms.pop()
	}
	c.sinceConfirm++
	return c.changes.pop()
}

// forget takes the lanes of a out of the queues.
func (s *scheduler) forget(a *assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.classes {
		c.changes.forget(a)
		c.confirms.forget(a)
	}
}

// schedulerState is what the scheduler's gauges show.
type schedulerState struct {
	window  int
	oldest  time.Time // when the oldest ticket was given; zero for none
	classes []classState
}

type classState struct {
	name             string
	inFlight, queued int
}

func (s *scheduler) state() schedulerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := schedulerState{window: s.window.limit()}
	for t := range s.tickets {
		if st.oldest.IsZero() || t.at.Before(st.oldest) {
			st.oldest = t.at
		}
	}
	for _, c := range s.classes {
		st.classes = append(st.classes, classState{c.Pattern, c.inFlight, c.waits()})
	}
	return st
}
