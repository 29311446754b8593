package poller

import "container/heap"

// laneHeap orders lanes by their oldest record, then by offset and partition,
// so that the order is total. A lane knows the heap that it is in.
type laneHeap []*lane

func (h *laneHeap) push(l *lane) {
	l.queue = h
	heap.Push(h, l)
}

func (h *laneHeap) pop() *lane { return heap.Pop(h).(*lane) }

func (h *laneHeap) remove(l *lane) { heap.Remove(h, l.place) }

// forget takes the lanes of a out.
func (h *laneHeap) forget(a *assignment) {
	kept := (*h)[:0]
	for _, l := range *h {
		if l.a == a {
			l.queue = nil
			continue
		}
		l.place = len(kept)
		kept = append(kept, l)
	}
	clear((*h)[len(kept):])
	*h = kept
	heap.Init(h)
}

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

// Push is container/heap's; push is ours.
func (h *laneHeap) Push(x any) {
	l := x.(*lane)
	l.place = len(*h)
	*h = append(*h, l)
}

// Pop is container/heap's; pop is ours.
func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.queue = nil
	return l
}
