package workflows

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// 100,000 sessions that fell silent in the same moment, or lost the same
// broker's events, are spread evenly over the time they have: no minute, and no
// second of the grace, has much more than its share.
func TestDeadlinesOfManySessionsAreSpread(t *testing.T) {
	const sessions = 100_000
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	for name, deadline := range map[string]struct {
		of   func(*session) time.Time
		from time.Duration
		span time.Duration
	}{
		"idle":     {func(s *session) time.Time { return s.idleAt() }, 72 * time.Hour, 72 * time.Hour / 10},
		"overdue":  {func(s *session) time.Time { return s.snapshotOverdueAt() }, 9 * time.Hour, 90 * time.Minute},
		"gap":      {func(s *session) time.Time { return s.firstRequestAt(now) }, minGrace, maxGrace - minGrace},
		"back-off": {func(s *session) time.Time { return now.Add(s.requestBackOff(4)) }, 2 * time.Minute, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			const parts = 100
			counts := make([]int, parts)
			for i := range sessions {
				s := &session{
					id: uuid.NewSHA1(uuid.NameSpaceOID, []byte{byte(i), byte(i >> 8), byte(i >> 16)}).String(), options: Options{}.withDefaults(),
					CarriedState: CarriedState{LastSignalAt: now, LastSnapshotAt: now},
				}
				s.State.AsOf = 7
				after := deadline.of(s).Sub(now) - deadline.from
				require.GreaterOrEqual(t, after, time.Duration(0))
				require.Less(t, after, deadline.span)
				counts[after*parts/deadline.span]++
			}
			for i, n := range counts {
				require.InDelta(t, sessions/parts, n, sessions/parts/5, "part %d of %d", i, parts)
			}
		})
	}
}
