package poller

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func incomingOf(rae, session string, at time.Time) incoming {
	return incoming{
		record: &kgo.Record{Timestamp: at, Value: make([]byte, 100)},
		fold:   device.FoldOf(device.Event{RAE: rae, Session: session, Type: device.Delta, Seq: 2}),
	}
}

func TestBudgetsOfOneRAEAreNotAnothers(t *testing.T) {
	over := map[string]int{}
	l := newLedger(Budgets{Sessions: 3, NewSessions: 5, Events: 1, DeadLetterBytes: 250}, func(budget string, n int) { over[budget] += n })
	now := time.UnixMilli(1_700_000_000_000)
	judge := func(i incoming) incoming {
		in := []incoming{i}
		l.judge(in, now)
		return in[0]
	}
	ids := make([]string, 10)
	for i := range ids {
		ids[i] = uuid.NewString()
		in := judge(incomingOf("bad", ids[i], now))
		require.Equal(t, i >= 3, in.bad != nil, "the fourth session is one too many")
		require.Equal(t, i >= 5, in.strip, "and its letters fill a budget too")
	}
	require.Equal(t, map[string]int{"sessions": 7, "dead-letter-bytes": 5}, over)
	require.Nil(t, judge(incomingOf("bad", ids[0], now)).bad, "its open sessions go on")
	require.Nil(t, judge(incomingOf("good", ids[9], now)).bad, "another RAE has its own")

	closed := incomingOf("bad", ids[0], now)
	closed.fold.Closed = 2
	require.Nil(t, judge(closed).bad)
	require.Nil(t, judge(incomingOf("bad", ids[7], now)).bad, "a session has ended")
	now = now.Add(sessionIdle + time.Second)
	require.Nil(t, judge(incomingOf("bad", ids[8], now)).bad, "so have those that nobody hears of")
	require.Equal(t, map[string]int{"bad": 12}, l.offenders(now.Add(-sessionIdle)))
	require.Empty(t, l.offenders(now))

	for range 200 {
		judge(incomingOf("fast", ids[0], now))
	}
	in := judge(incomingOf("fast", ids[0], now))
	require.True(t, in.account.tooFast.Load())
	require.Nil(t, in.bad, "what is too fast waits, and is not dead-lettered")
	now = now.Add(time.Minute)
	require.False(t, judge(incomingOf("fast", ids[0], now)).account.tooFast.Load())
	late := judge(incomingOf("fast", ids[0], now.Add(time.Hour)))
	require.Equal(t, now, late.account.events.at, "a clock that is ahead earns nothing")
}

func TestInventedSerialsTakeNobodysPlace(t *testing.T) {
	l := newLedger(Budgets{Sessions: 10, NewSessions: 20, Events: 10, DeadLetterBytes: 1000}, func(string, int) {})
	now := time.UnixMilli(1_700_000_000_000)
	session := uuid.NewString()
	l.judge([]incoming{incomingOf("lawful", session, now)}, now)
	for i := range 3 * maxAccounts {
		l.judge([]incoming{incomingOf(fmt.Sprint("invented-", i), uuid.NewString(), now)}, now)
	}
	require.LessOrEqual(t, len(l.accounts), maxAccounts)
	require.LessOrEqual(t, l.sessions, maxAccounts+l.budgets.Sessions)
	in := []incoming{incomingOf("lawful", session, now)}
	l.judge(in, now)
	require.Nil(t, in[0].bad)
	require.Equal(t, "lawful", in[0].account.rae)
}

func TestLanesOfARAEThatIsTooFastAreInAClassOfTheirOwn(t *testing.T) {
	s := newScheduler(newWindow(1, 1), nil, func(*lane, *ticket) bool { return true })
	fast := &account{}
	fast.tooFast.Store(true)
	a := newAssignment(t.Context(), "t", 0, 100, &budget{}, new(tally))
	hold, slow := &lane{a: a, laneKey: laneKey{rae: "r0"}}, &lane{a: a, laneKey: laneKey{rae: "r1"}, account: fast}
	s.offer(hold)
	s.offer(slow)
	require.Equal(t, s.over, slow.class)
	s.forget(a)
	fast.tooFast.Store(false)
	s.offer(slow)
	require.NotEqual(t, s.over, slow.class, "until it is not any more")
}
