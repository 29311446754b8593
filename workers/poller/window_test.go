package poller

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// sink is a simulated one: some servers, each of which takes work for so long,
// a fixed way to and from them, and acks that are read at a cadence. Its knee is
// where all servers are busy and nothing queues.
type sink struct {
	servers  int
	work     time.Duration
	way      time.Duration
	cadence  time.Duration
	slowdown float64 // of work

	now  time.Time
	free []time.Time // when each server is next free
	acks ackHeap
	rng  *rand.Rand
	done int
}

type ack struct {
	at, sent time.Time
	epoch    uint32
}

type ackHeap []ack

func (h ackHeap) Len() int           { return len(h) }
func (h ackHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h ackHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ackHeap) Push(x any)        { *h = append(*h, x.(ack)) }
func (h *ackHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func newSink(servers int, work, way, cadence time.Duration) *sink {
	return &sink{servers: servers, work: work, way: way, cadence: cadence, slowdown: 1, now: noon,
		free: make([]time.Time, servers), rng: rand.New(rand.NewPCG(1, 2))}
}

// rate is what the sink can do at most, a second.
func (s *sink) rate() float64 {
	return float64(s.servers) / s.slowdown / s.work.Seconds()
}

func (s *sink) take(epoch uint32) {
	best := 0
	for i := range s.free {
		if s.free[i].Before(s.free[best]) {
			best = i
		}
	}
	begin := s.now.Add(s.way / 2)
	if s.free[best].After(begin) {
		begin = s.free[best]
	}
	took := time.Duration(float64(s.work) * s.slowdown * (0.5 + s.rng.Float64()))
	s.free[best] = begin.Add(took)
	at := s.free[best].Add(s.way / 2)
	if s.cadence > 0 {
		at = noon.Add((at.Sub(noon)/s.cadence + 1) * s.cadence)
	}
	heap.Push(&s.acks, ack{at: at, sent: s.now, epoch: epoch})
}

// flood has more work than the sink can do, for a time. It returns acks a second.
func (s *sink) flood(t require.TestingT, w *window, d time.Duration) float64 {
	end, before := s.now.Add(d), s.done
	for s.now.Before(end) {
		for len(s.acks) < w.limit() {
			s.take(w.launched(s.now, len(s.acks)+1))
		}
		s.land(t, w)
	}
	return float64(s.done-before) / d.Seconds()
}

// trickle has rate batches a second, for a time.
func (s *sink) trickle(t require.TestingT, w *window, rate float64, d time.Duration) {
	end := s.now.Add(d)
	for next := s.now; next.Before(end); next = next.Add(time.Duration(float64(time.Second) / rate)) {
		for len(s.acks) > 0 && s.acks[0].at.Before(next) {
			s.land(t, w)
		}
		s.now = next
		if len(s.acks) < w.limit() {
			s.take(w.launched(s.now, len(s.acks)+1))
		}
	}
}

func (s *sink) land(t require.TestingT, w *window) {
	a := heap.Pop(&s.acks).(ack)
	s.now = a.at
	w.landed(s.now, a.epoch, a.at.Sub(a.sent))
	s.done++
	if w.limit() < w.min || w.limit() > w.max {
		require.Fail(t, "out of bounds", "%d", w.limit())
	}
}

// A window finds a size at which the sink is busy and no long queue is before
// it, whatever the sink, and stays there.
func TestWindowConvergesNearTheKnee(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := func(from, to int, name string) time.Duration {
			return time.Duration(rapid.IntRange(from, to).Draw(t, name)) * time.Millisecond
		}
		s := newSink(rapid.IntRange(1, 10).Draw(t, "servers"), ms(10, 60, "work"), ms(1, 30, "way"), ms(0, 25, "cadence"))
		w := newWindow(4, 1000)
		s.flood(t, w, 10*time.Second)
		// Over the probes of the floor too.
		got := s.flood(t, w, 35*time.Second)
		require.GreaterOrEqual(t, got, 0.85*s.rate(), "the sink is kept busy (window %d)", w.limit())
		unloaded := s.work + s.way + s.cadence
		// What a window of the least size queues belongs to the floor it sees.
		knee := max(s.rate()*unloaded.Seconds(), float64(w.min))
		require.LessOrEqual(t, float64(w.limit()), 6*knee+16, "and has no long queue")
	})
}

func TestWindowNeverLeavesItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.IntRange(1, 50).Draw(t, "min")
		w := newWindow(least, rapid.IntRange(least, 100).Draw(t, "max"))
		now, epochs := noon, []uint32{w.launched(noon, 1)}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				w.cut(now)
			case 1:
				epochs = append(epochs, w.launched(now, rapid.IntRange(1, w.limit()).Draw(t, "inFlight")))
			default:
				latency := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "latency"))
				for range windowSamples {
					w.landed(now, rapid.SampledFrom(epochs).Draw(t, "epoch"), latency)
				}
			}
			require.GreaterOrEqual(t, w.limit(), w.min)
			require.LessOrEqual(t, w.limit(), w.max)
		}
	})
}

func TestWindowRecoversAfterAnOutage(t *testing.T) {
	s, w := newSink(8, 15*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond), newWindow(4, 64)
	s.flood(t, w, 20*time.Second)
	before := w.limit()
	for range 30 { // 30 s of Unavailable
		for range 10 {
			w.cut(s.now)
		}
		s.now = s.now.Add(time.Second)
	}
	require.Equal(t, 4, w.limit(), "closed")
	for i := range s.free {
		s.free[i] = s.now
	}
	for i := range s.acks { // what was in flight all along
		s.acks[i].at = s.now
	}
	s.flood(t, w, 5*time.Second)
	require.InDelta(t, before, w.limit(), float64(before)/2)
	require.GreaterOrEqual(t, s.flood(t, w, 10*time.Second), 0.85*s.rate())
}

// Batches that fold more take longer: that is no overload.
func TestWindowFollowsASinkThatBecomesSlower(t *testing.T) {
	s, w := newSink(10, 10*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond), newWindow(1, 1000)
	s.flood(t, w, 30*time.Second)
	s.slowdown = 8
	s.flood(t, w, 2*time.Minute)
	require.GreaterOrEqual(t, s.flood(t, w, time.Minute), 0.85*s.rate())
	s.slowdown = 1
	s.flood(t, w, 30*time.Second)
	require.GreaterOrEqual(t, s.flood(t, w, time.Minute), 0.85*s.rate())
}

// A light load neither shuts the window nor opens it: a burst finds it ready.
func TestWindowKeepsThroughALightLoadAndARest(t *testing.T) {
	s, w := newSink(10, 10*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond), newWindow(4, 64)
	s.trickle(t, w, 20, time.Minute)
	require.Equal(t, windowStart, w.limit())
	s.flood(t, w, 10*time.Second)
	size := w.limit()
	require.Greater(t, size, windowStart)
	s.trickle(t, w, 20, time.Minute)
	require.Equal(t, size, w.limit())
	s.now = s.now.Add(time.Hour)
	s.acks = nil
	w.launched(s.now, 1)
	require.Equal(t, windowStart, w.limit(), "what was learnt an hour ago is forgotten")
}

func TestWindowIsCutOnceForWhatFailsTogether(t *testing.T) {
	w := newWindow(4, 64)
	w.set(64)
	require.True(t, w.cut(noon))
	require.False(t, w.cut(noon.Add(cutPause/2)))
	require.Equal(t, 32, w.limit())
	require.True(t, w.cut(noon.Add(cutPause)))
	require.Equal(t, 16, w.limit())
	fixed := newWindow(48, 48)
	require.False(t, fixed.cut(noon))
	require.Equal(t, 48, fixed.limit())
}
