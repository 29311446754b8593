package poller

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// line is a scheduler with its launches recorded and a clock that stands.
type line struct {
	*scheduler
	launched []*lane
	inFlight map[*lane]*ticket
	order    []*lane // what is in flight, by launch
}

func newLine(window int, classes ...Class) *line {
	l := &line{inFlight: map[*lane]*ticket{}}
	l.scheduler = newScheduler(newWindow(window, window), classes, func(x *lane, t *ticket) bool {
		l.launched = append(l.launched, x)
		l.order = append(l.order, x)
		l.inFlight[x] = t
		return true
	})
	l.now = func() time.Time { return noon }
	return l
}

func (l *line) land(x *lane) {
	t := l.inFlight[x]
	delete(l.inFlight, x)
	l.order = slices.DeleteFunc(l.order, func(o *lane) bool { return o == x })
	l.release(t, false)
}

func newLane(a *assignment, rae string, at int64, changes bool) *lane {
	l := &lane{a: a, laneKey: laneKey{rae: rae}, oldest: noon.Add(time.Duration(at) * time.Second), offset: at}
	l.changes.Store(changes)
	return l
}

func offsetsOf(lanes []*lane) (out []int64) {
	for _, l := range lanes {
		out = append(out, l.offset)
	}
	return out
}

func TestSchedulerServesTheOldestWithinTheWindow(t *testing.T) {
	l := newLine(2)
	a := &assignment{}
	blocker, other := newLane(a, "r", 0, true), newLane(a, "r", 0, true)
	l.offer(blocker, other)
	var lanes []*lane
	for _, at := range []int64{5, 4, 3, 2, 1} {
		lanes = append(lanes, newLane(a, "r", at, true))
	}
	l.offer(lanes...)
	l.offer(lanes...)
	require.Len(t, l.inFlight, 2, "no more than the window")
	l.land(blocker)
	l.land(other)
	require.Equal(t, []int64{0, 0, 1, 2}, offsetsOf(l.launched))
	l.land(l.launched[2])
	require.Equal(t, []int64{0, 0, 1, 2, 3}, offsetsOf(l.launched))
	l.forget(a)
	l.land(l.launched[3])
	require.Len(t, l.launched, 5)
	require.Zero(t, l.classOf("r").waits())
}

// Far behind, one lane flies at a time, and its ack is no sample of the sink.
func TestSchedulerLetsOneLaneFlyWhileTheReaderCatchesUp(t *testing.T) {
	l := newLine(3)
	a := &assignment{}
	l.catchUp(true)
	for at := range int64(5) {
		l.offer(newLane(a, "r", at, true))
	}
	require.Equal(t, []int64{0}, offsetsOf(l.launched))
	require.Zero(t, l.inFlight[l.launched[0]].epoch)
	require.True(t, l.crowded())
	l.land(l.launched[0])
	require.Equal(t, []int64{0, 1}, offsetsOf(l.launched))
	l.catchUp(false)
	require.Equal(t, []int64{0, 1, 2, 3}, offsetsOf(l.launched), "the window is open again")
	require.NotZero(t, l.inFlight[l.launched[3]].epoch)
	l.land(l.launched[1])
	require.False(t, l.crowded())
}

// A lane whose partition is gone gives its place to the next.
func TestSchedulerSkipsWhatIsGone(t *testing.T) {
	l := newLine(1)
	launch := l.launch
	l.launch = func(x *lane, t *ticket) bool { return x.offset != 1 && launch(x, t) }
	l.offer(newLane(&assignment{}, "r", 1, true), newLane(&assignment{}, "r", 2, true))
	require.Equal(t, []int64{2}, offsetsOf(l.launched))
	require.Equal(t, 1, l.state().classes[0].inFlight)
}

func TestChangesGoBeforeConfirmationsWithAShareForThese(t *testing.T) {
	l := newLine(1)
	a := &assignment{}
	first := newLane(a, "r", 0, true)
	l.offer(first)
	for at := range int64(40) {
		l.offer(newLane(a, "r", 100+at, true), newLane(a, "r", 1+at, false))
	}
	l.land(first)
	for range 39 {
		l.land(l.launched[len(l.launched)-1])
	}
	confirmed := 0
	for i, x := range l.launched[1:] {
		if !x.changes.Load() {
			confirmed++
			require.Equal(t, confirmShare-1, i%confirmShare, "one of %d", confirmShare)
		}
	}
	require.Equal(t, 5, confirmed)
}

func TestChangeThatFoldsIntoAConfirmingLaneMovesIt(t *testing.T) {
	l := newLine(1)
	a := &assignment{}
	blocker, old, folds := newLane(a, "r", 0, true), newLane(a, "r", 1, false), newLane(a, "r", 2, false)
	l.offer(blocker, old, folds)
	folds.changes.Store(true)
	l.offer(folds)
	l.offer(folds)
	require.Equal(t, 2, l.classOf("r").waits())
	l.land(blocker)
	require.Same(t, folds, l.launched[1])
	l.land(folds)
	require.Same(t, old, l.launched[2])
}

// What is shared is places in flight: a class whose batches take long does not
// get more of them for it.
func TestClassesShareThePlacesInFlight(t *testing.T) {
	l := newLine(50, Class{Pattern: "bulk-*", Weight: 1})
	a := &assignment{}
	for at := range int64(5000) {
		l.offer(newLane(a, "bulk-7", at, true))
	}
	require.Equal(t, 50, l.state().classes[0].inFlight, "the flood has all while nobody else has work")
	for at := range int64(5000) {
		l.offer(newLane(a, "other", 1_000_000+at, true))
	}
	// What is of the flood lands ten times as slowly.
	for n := range 3000 {
		for x := range l.inFlight {
			if x.rae == "other" || n%10 == 0 {
				l.land(x)
				break
			}
		}
	}
	st := l.state()
	require.Equal(t, []classState{{"bulk-*", 10, st.classes[0].queued}, {DefaultClass, 40, st.classes[1].queued}, {OverBudget, 0, 0}}, st.classes)
}

// Nothing starves, whatever comes and whatever the classes, as long as batches
// land: a lane waits for a number of launches that follows from its rank and the
// weights alone.
func TestNothingStarves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		classes := make([]Class, rapid.IntRange(0, 3).Draw(t, "classes"))
		weights := DefaultWeight
		for i := range classes {
			classes[i] = Class{Pattern: fmt.Sprintf("c%d", i), Weight: rapid.IntRange(1, 9).Draw(t, "weight")}
			weights += classes[i].Weight
		}
		size := rapid.IntRange(1, 6).Draw(t, "window")
		l, a, now := newLine(size, classes...), &assignment{}, int64(0)
		offer := func(rae string, age int64, changes bool) *lane {
			x := newLane(a, rae, now-age, changes)
			x.offset = now
			l.offer(x)
			return x
		}
		class := func() string { return fmt.Sprintf("c%d", rapid.IntRange(0, len(classes)).Draw(t, "class")) }
		var old []*lane
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now++
			// As chunk.age has it: from headStart before the arrival to it.
			x := offer(class(), rapid.Int64Range(0, 60).Draw(t, "age"), rapid.IntRange(0, 2).Draw(t, "kind") > 0)
			old = append(old, x)
			checkQueues(t, l.scheduler)
			if rapid.IntRange(0, 3).Draw(t, "lands") == 0 && len(l.order) > 0 {
				l.land(l.order[0])
			}
		}
		// Now every class has more work than it can ever do, as old as it may
		// claim to be. Of one kind and class at most these go before: who was
		// there, and who came within a headStart.
		rank := len(old) + 60
		bound := rank * confirmShare * (2*weights + size + len(l.classes))
		for range bound {
			now++
			for n := range len(classes) + 1 {
				rae := fmt.Sprintf("c%d", n)
				if c := l.classOf(rae); c.waits() < 3*rank {
					offer(rae, 60, true)
					offer(rae, 60, false)
				}
			}
			l.land(l.order[0])
			if old = slices.DeleteFunc(old, func(x *lane) bool { return x.queue == nil }); len(old) == 0 {
				checkQueues(t, l.scheduler)
				return
			}
		}
		t.Fatalf("a lane still waits after %d launches", bound)
	})
}

// checkQueues holds the heaps against what they must be.
func checkQueues(t require.TestingT, s *scheduler) {
	require.LessOrEqual(t, len(s.tickets), s.window.limit())
	for _, c := range s.classes {
		for _, h := range []*laneHeap{&c.changes, &c.confirms} {
			for i, x := range *h {
				if x.place != i || x.queue != h || i > 0 && h.Less(i, (i-1)/2) {
					require.Fail(t, "the queue is out of order")
				}
			}
		}
	}
}

func TestClassesAreParsedAndChecked(t *testing.T) {
	c, err := ParseClass("canary-*=1")
	require.NoError(t, err)
	require.Equal(t, Class{Pattern: "canary-*", Weight: 1}, c)
	c, err = ParseClass("a=b=12")
	require.NoError(t, err)
	require.Equal(t, Class{Pattern: "a=b", Weight: 12}, c)
	for _, bad := range []string{"", "x", "=1", "x=", "x=0", "x=-1", "x=1001", "x=1.5", "[=1", "default=3"} {
		_, err := ParseClass(bad)
		require.Error(t, err, bad)
	}
	require.ErrorContains(t, checkClasses([]Class{{"a", 1}, {"a", 2}}), "twice")
	s := newScheduler(newWindow(1, 1), []Class{{"lab-0?", 1}, {"lab-*", 2}}, nil)
	require.Equal(t, "lab-0?", s.classOf("lab-01").Pattern)
	require.Equal(t, "lab-*", s.classOf("lab-011").Pattern)
	require.Equal(t, DefaultClass, s.classOf("roof").Pattern)
}
