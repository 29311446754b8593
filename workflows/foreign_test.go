package workflows_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// A RAE that sends another's session changes nothing of it, whenever its batches
// come and whoever of the two starts the workflow's run.
func TestForeignBatchesChangeNothing(t *testing.T) {
	const other = "RAE-0666"
	foreign := func(offset int64, e device.Event) device.Batch {
		b := batch(offset, e)
		b.Fold.RAE = other
		return b
	}
	for _, starter := range []string{rae, other} {
		t.Run("started by "+starter, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := &database{}
				h := newHarness(t, db)
				h.at(0, func() { h.signal(batch(1, delta(1, "a"), delta(2, "b"))) })
				h.stop(time.Minute)
				h.run(input())

				h = newHarness(t, db)
				in := input()
				in.RAE = starter
				h.at(0, func() { // in one task, before the run has loaded the session
					h.signal(foreign(3, delta(3, "x")))
					h.signal(batch(4, delta(3, "a")))
					h.signal(foreign(5, snapshot(9, map[string]device.Attribute{"x": attributeAt(9)})))
				})
				h.at(time.Second, func() {
					h.signal(batch(6, delta(4, "c")))
					h.signal(foreign(7, delta(99, "a")))
				})
				h.stop(time.Minute)
				h.run(in)

				v := h.view()
				require.Equal(t, rae, v.RAE)
				require.EqualValues(t, 4, v.AsOf)
				require.Equal(t, map[string]string{"a": "3", "b": "2", "c": "4"}, values(v.Attributes))
				require.EqualValues(t, 3, v.Counters.Refused)
				for _, r := range v.RecentRefusals {
					require.Equal(t, workflows.CauseForeign, r.Cause)
					require.Equal(t, other, r.Foreign)
					require.Contains(t, r.Detail, other)
				}
				require.Equal(t, position(7), v.Positions, "the owner's own")
				require.Contains(t, db.positions, position(8)[0].Foreign(other), "so that its poller goes on")
			})
		})
	}
}
