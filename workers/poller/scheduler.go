package poller

import (
	"container/heap"
	"sync"
)

// scheduler decides which ready lane is next and how many are in flight.
//
// It holds: a lane is in ready at most once; flying never exceeds window, and
// each successful launch is matched by one release. The lane with the oldest
// record goes first, so none starves.
type scheduler struct {
	// launch sends a lane's head, and reports false where there is nothing to
	// send: the lane's partition is gone. It must not block.
	launch func(*lane) bool

	mu     sync.Mutex
	window int
	flying int
	ready  laneHeap
}

// offer queues lanes that are ready.
func (s *scheduler) offer(lanes ...*lane) {
	s.mu.Lock()
	for _, l := range lanes {
		if l.place < 0 {
			heap.Push(&s.ready, l)
		}
	}
	s.mu.Unlock()
	s.dispatch()
}

// release gives a place in the window back.
func (s *scheduler) release() {
	s.mu.Lock()
	s.flying--
	s.mu.Unlock()
	s.dispatch()
}

func (s *scheduler) dispatch() {
	for {
		s.mu.Lock()
		if s.flying >= s.window || len(s.ready) == 0 {
			s.mu.Unlock()
			return
		}
		l := heap.Pop(&s.ready).(*lane)
		s.flying++
		s.mu.Unlock()
		if !s.launch(l) {
			s.mu.Lock()
			s.flying--
			s.mu.Unlock()
		}
	}
}

// forget takes the lanes of a out of the queue.
func (s *scheduler) forget(a *assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.ready[:0]
	for _, l := range s.ready {
		if l.a != a {
			kept = append(kept, l)
		} else {
			l.place = -1
		}
	}
	clear(s.ready[len(kept):])
	s.ready = kept
	for i, l := range s.ready {
		l.place = i
	}
	heap.Init(&s.ready)
}

func (s *scheduler) counts() (flying, ready int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flying, len(s.ready)
}

// laneHeap orders lanes by their oldest record, then by offset and partition,
// so that the order is total.
type laneHeap []*lane

func (h laneHeap) Len() int { return len(h) }

func (h laneHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if !a.oldest.Equal(b.oldest) {
		return a.oldest.Before(b.oldest)
	}
	if a.offset != b.offset {
		return a.offset < b.offset
	}
	return a.a.partition < b.a.partition
}

func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *laneHeap) Push(x any) {
	l := x.(*lane)
	l.place = len(*h)
	*h = append(*h, l)
}

func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.place = -1
	return l
}
