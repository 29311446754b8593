package offsets_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/kafka/offsets"
)

// Whatever the gaps, the units and the order of completion, what is committable
// is one past the last record below which all fetched records are done.
func TestSpanCommitsOnlyWhatIsDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := offsets.NewSpan()
		units := make([]*offsets.Unit, rapid.IntRange(1, 10).Draw(t, "units"))
		for i := range units {
			units[i] = &offsets.Unit{}
		}
		type fetched struct {
			offset int64
			epoch  int32
			unit   *offsets.Unit
		}
		var model []fetched // everything that was fetched, and
		done := map[*offsets.Unit]bool{}
		closed := false
		offset, epoch := int64(rapid.IntRange(0, 5).Draw(t, "start")), int32(7)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			u := rapid.SampledFrom(units).Draw(t, "unit")
			switch what := rapid.IntRange(0, 99).Draw(t, "what"); {
			case what == 0:
				span.Close()
				closed = true
			case what < 20 || done[u]:
				require.Equal(t, !closed && !done[u], span.Complete(u))
				done[u] = done[u] || !closed
			default:
				offset += int64(rapid.IntRange(1, 4).Draw(t, "gap"))
				epoch += int32(rapid.IntRange(0, 1).Draw(t, "epoch"))
				require.True(t, span.Fetched(offset, epoch, u))
				model = append(model, fetched{offset, epoch, u})
			}

			want, pending := kgo.EpochOffset{Epoch: -1, Offset: -1}, model
			for len(pending) > 0 && done[pending[0].unit] {
				want = kgo.EpochOffset{Epoch: pending[0].epoch, Offset: pending[0].offset + 1}
				pending = pending[1:]
			}
			got, ok := span.Committable()
			require.Equal(t, want.Offset >= 0 && !closed, ok)
			require.Equal(t, want, got)
			require.Equal(t, want.Offset, span.Next())
			require.Equal(t, closed, span.Closed())
			require.Equal(t, len(pending), span.Len())

			var oldest *offsets.Unit
			records, first, last := 0, int64(0), int64(0)
			for _, r := range pending {
				if done[r.unit] {
					continue
				}
				if oldest == nil {
					oldest, first = r.unit, r.offset
				}
				records, last = records+1, r.offset
			}
			require.Same(t, oldest, span.Oldest())
			n, from, to := span.Undone()
			require.Equal(t, []int64{int64(records), first, last}, []int64{int64(n), from, to})
			if len(model) > 0 {
				require.Equal(t, model[len(model)-1].offset, span.Last())
			}
			for _, u := range units {
				want := 0
				for _, r := range model {
					if r.unit == u {
						want++
					}
				}
				require.Equal(t, want, u.Records())
			}
		}
	})
}

func TestClosedSpanMarksNothing(t *testing.T) {
	span := offsets.NewSpan()
	early, late := &offsets.Unit{}, &offsets.Unit{}
	span.Fetched(10, 0, early)
	span.Fetched(11, 0, late)
	require.True(t, span.Complete(early))
	require.False(t, span.Complete(early), "twice")
	span.Close()
	require.False(t, span.Complete(late))
	_, ok := span.Committable()
	require.False(t, ok)
}

func TestSpanTellsARewind(t *testing.T) {
	span := offsets.NewSpan()
	require.True(t, span.Fetched(10, 0, &offsets.Unit{}))
	require.False(t, span.Fetched(3, 0, &offsets.Unit{}))
	require.False(t, span.Fetched(3, 0, &offsets.Unit{}), "the same offset again")
	require.True(t, span.Fetched(4, 0, &offsets.Unit{}))
}

// A Span that keeps up needs no more room the longer it lives.
func TestSpanForgetsWhatIsDone(t *testing.T) {
	for _, open := range []int{0, 10} { // records that wait for another
		span := offsets.NewSpan()
		var waiting []*offsets.Unit
		for offset := range int64(10_000) {
			u := &offsets.Unit{}
			span.Fetched(offset, 0, u)
			if waiting = append(waiting, u); len(waiting) > open {
				require.True(t, span.Complete(waiting[0]))
				waiting = waiting[1:]
			}
		}
		require.Less(t, offsets.Capacity(&span), 100)
	}
}

// Whatever is assigned, fetched, done and revoked, in whatever order and however
// late: a partition's mark is one past the last record of its present assignment
// below which all are done, and nothing else is ever marked.
func TestTrackerMarksOnlyWhatItOwns(t *testing.T) {
	type record struct {
		tracked *offsets.Record
		done    bool
	}
	rapid.Check(t, func(t *rapid.T) {
		const topic, partitions = "commands", 3
		owned := map[int32][]*record{} // the model: the records of each present assignment
		marked, wantMarked := map[int32]kgo.EpochOffset{}, map[int32]kgo.EpochOffset{}
		marks, wantMarks := 0, 0
		tracker := offsets.NewTracker(topic, func(m map[string]map[int32]kgo.EpochOffset) {
			require.Len(t, m, 1)
			require.Len(t, m[topic], 1)
			for p, o := range m[topic] {
				require.Contains(t, owned, p)
				marked[p] = o
				marks++
			}
		})
		open := func(rs []*record) []*record {
			for len(rs) > 0 && rs[0].done {
				rs = rs[1:]
			}
			return rs
		}
		var all []*record
		offset := map[int32]int64{}
		stopped := false
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			p := int32(rapid.IntRange(0, partitions-1).Draw(t, "partition"))
			rs, own := owned[p]
			switch rapid.SampledFrom([]string{"fetch", "fetch", "fetch", "done", "done", "done", "assign", "revoke", "stop"}).Draw(t, "what") {
			case "assign":
				tracker.Assign([]int32{p})
				owned[p] = nil
				offset[p] = rapid.Int64Range(0, offset[p]).Draw(t, "committed") // what is not committed comes again
			case "revoke":
				forgotten := 0
				if own {
					forgotten = len(open(rs))
				}
				require.Equal(t, forgotten, tracker.Revoke([]int32{p}))
				delete(owned, p)
			case "stop":
				tracker.Stop()
				stopped = true
			case "fetch":
				offset[p] += rapid.Int64Range(1, 3).Draw(t, "gap")
				tracked := tracker.Fetched(&kgo.Record{Partition: p, Offset: offset[p], LeaderEpoch: 5})
				require.Equal(t, own, tracked != nil)
				if own {
					require.Equal(t, stopped, tracked.Context().Err() != nil)
					r := &record{tracked: tracked}
					owned[p], all = append(rs, r), append(all, r)
				}
			case "done":
				if len(all) == 0 {
					continue
				}
				r := rapid.SampledFrom(all).Draw(t, "record")
				present := false
				for _, o := range owned[r.tracked.Partition] {
					present = present || o == r
				}
				before := open(owned[r.tracked.Partition])
				if present {
					r.done = true
				}
				after := open(owned[r.tracked.Partition])
				require.Equal(t, len(before)-len(after), tracker.Done(r.tracked))
				if !present {
					require.Error(t, r.tracked.Context().Err(), "its assignment has ended")
				}
				if n := len(before) - len(after); n > 0 {
					wantMarks++
					wantMarked[r.tracked.Partition] = kgo.EpochOffset{Epoch: 5, Offset: before[n-1].tracked.Offset + 1}
				}
			}
			require.Equal(t, wantMarks, marks)
			require.Equal(t, wantMarked, marked)
		}
	})
}
