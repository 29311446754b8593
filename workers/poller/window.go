package poller

import (
	"math"
	"time"
)

const (
	// windowStart is where the window begins, and begins again after a rest.
	windowStart = 16
	// tolerance is how many times its floor the ack latency may be before the
	// window shrinks. The sink commits in groups and acks are read in groups,
	// so that some waiting is what filling those groups looks like; beyond it
	// a batch waits better in its lane, where it folds and may be overtaken.
	tolerance = 3
	// windowSamples is how many acks one decision needs, at least.
	windowSamples = 8
	// floorAge is how long a floor is believed that nothing has confirmed.
	floorAge = 30 * time.Second
	// windowRest is how long nothing has to be in flight before what was
	// learnt is forgotten.
	windowRest = 30 * time.Second
	// cutPause is the least time between two cuts: what fails together is one
	// sign.
	cutPause = time.Second
)

// window is how many sessions may have a batch sent and not yet applied. It
// follows the sink by the latency from launch to ack.
//
// The rule is gradient2's of Netflix's concurrency-limits: the size is
// multiplied by tolerance × floor / latency, at most 1 and at least ½, and its
// square root is added for the queue that keeps a sink busy. The floor is that
// of BBR (draft-cardwell-iccrg-bbr-congestion-control): the least latency seen,
// believed for a time; then, if the sink was kept full all along, the window
// shuts to a quarter for one decision and looks again. So a sink that becomes
// slower by itself, because batches fold more, is not taken for an overloaded
// one, and an overload is not taken for the sink's nature. As in TCP, it doubles
// until the first sign of a queue, only a window that was full may grow, one
// that was less than half full does not shrink, a cut comes at most once for
// what fails together, and what was sent more than once is no sample (Karn).
//
// failsafe-go's adaptive limiter was read for the place: its baseline is an
// average that follows a lasting overload, a limit follows what is in flight
// down when the load is light, nothing can cut it, and it has its own clock.
//
// Invariant: min ≤ limit() ≤ max, always. The scheduler's lock guards it.
type window struct {
	min, max int
	size     float64
	slow     bool // doubling, until the first sign of a queue

	epoch  uint32 // of the decision that is in force; samples of others do not count
	n      int
	sum    time.Duration
	most   int // the most that was in flight in this epoch
	last   time.Time
	cutAt  time.Time
	floor  time.Duration
	seenAt time.Time // when the floor was last confirmed

	probing bool
	resume  float64
}

// newWindow adapts between least and most. Where these are equal it is fixed.
func newWindow(least, most int) *window {
	w := &window{min: least, max: most}
	w.rest(windowStart)
	return w
}

// rest forgets what was learnt and begins at size.
func (w *window) rest(size float64) {
	w.slow, w.probing, w.floor = true, false, 0
	w.set(size)
}

// set begins an epoch.
func (w *window) set(size float64) {
	w.size = min(max(size, float64(w.min)), float64(w.max))
	w.epoch++
	w.n, w.sum, w.most = 0, 0, 0
}

func (w *window) limit() int { return int(w.size) }

// launched notes that a batch is sent. inFlight is how many are now, it included.
// It returns the epoch that the sample will belong to.
func (w *window) launched(now time.Time, inFlight int) uint32 {
	if inFlight == 1 && !w.last.IsZero() && now.Sub(w.last) > windowRest {
		w.last = now
		w.rest(min(w.size, windowStart))
	}
	w.most = max(w.most, inFlight)
	return w.epoch
}

// landed takes the latency of what was launched in epoch.
func (w *window) landed(now time.Time, epoch uint32, latency time.Duration) {
	w.last = now
	if epoch != w.epoch || w.min == w.max {
		return
	}
	w.n++
	w.sum += latency
	if w.n >= max(windowSamples, w.limit()/2) || w.probing && w.n >= windowSamples {
		w.decide(now, w.sum/time.Duration(w.n))
	}
}

func (w *window) decide(now time.Time, latency time.Duration) {
	full := w.most >= w.limit()
	switch {
	case w.probing:
		w.probing = false
		w.floor, w.seenAt = latency, now
		w.set(w.resume)
		return
	case w.floor == 0 || latency <= w.floor:
		w.floor, w.seenAt = latency, now
	case now.Sub(w.seenAt) <= floorAge:
	case full:
		w.probing, w.resume = true, w.size
		w.set(w.size / 4)
		return
	default: // slower, and not by our doing
		w.floor, w.seenAt = latency, now
	}
	gradient := min(1, max(0.5, tolerance*float64(w.floor)/float64(latency)))
	switch {
	case gradient < 1 && 2*w.most >= w.limit():
		w.slow = false
		w.set(gradient*w.size + math.Sqrt(w.size))
	case gradient == 1 && full && w.slow:
		w.set(2 * w.size)
	case gradient == 1 && full:
		w.set(w.size + math.Sqrt(w.size))
	default:
		w.set(w.size)
	}
}

// cut halves the window: the sink says that it has too much, or cannot be
// reached. It reports whether it did.
func (w *window) cut(now time.Time) bool {
	if w.min == w.max || now.Sub(w.cutAt) < cutPause {
		return false
	}
	w.cutAt, w.slow, w.probing = now, false, false
	w.set(w.size / 2)
	return true
}
