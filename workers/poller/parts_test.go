package poller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/offsets"
)

const someSession = "11111111-2222-4333-8444-555555555555"

func incomingDelta(offset, seq int64) incoming {
	at := time.UnixMilli(1_700_000_000_000).UTC()
	e := device.Event{RAE: "r", Session: someSession, Type: device.Delta, Seq: seq, Time: at,
		Attributes: map[string]device.Attribute{"a": {Value: json.RawMessage("1"), Seq: seq, At: at}}}
	return incoming{arrived: at, record: &kgo.Record{Offset: offset, Timestamp: at.Add(time.Duration(offset))}, fold: device.FoldOf(e)}
}

// The failure that lost records elsewhere: an ack that comes after the
// partition was let go must not be marked, and must not free bytes twice.
func TestLateAckAfterCloseChangesNothing(t *testing.T) {
	var total budget
	var done tally
	a := newAssignment(t.Context(), "t", 0, 100, &total, &done)
	ready, _, _, _ := a.add([]incoming{incomingDelta(5, 2)}, 6, nil)
	require.Len(t, ready, 1)
	f := a.take(ready[0], nil)
	require.NotNil(t, f)
	require.False(t, f.fresh, "below the end at the first fetch: an earlier owner may have sent it")
	a.add([]incoming{incomingDelta(6, 3)}, 7, nil)
	require.Positive(t, total.bytes.Load())

	_, ok := a.close()
	require.False(t, ok)
	require.Zero(t, total.bytes.Load())
	records, again := a.applied(f)
	require.Zero(t, records)
	require.Zero(t, done.duplicates.Load())
	require.False(t, again)
	require.Zero(t, total.bytes.Load())
	_, ok = a.uncommittedLocked()
	require.False(t, ok)
	require.Error(t, a.ctx.Err())
	select {
	case <-a.idle:
	default:
		require.Fail(t, "the last flight has landed")
	}
}

func TestLeavingSendsNothingNewAndSettles(t *testing.T) {
	var total budget
	var done tally
	a := newAssignment(t.Context(), "t", 0, 100, &total, &done)
	ready, _, _, _ := a.add([]incoming{incomingDelta(5, 2)}, 0, nil)
	f := a.take(ready[0], nil)
	require.True(t, f.fresh)
	f.signalled = time.Now()
	a.add([]incoming{incomingDelta(6, 3)}, 0, nil)
	a.leave()
	records, again := a.applied(f)
	require.Equal(t, 1, records)
	require.EqualValues(t, 1, done.applied.Load(), "counted where it is done")
	require.False(t, again)
	require.Nil(t, a.take(f.lane, nil))
	<-a.idle
	o, ok := a.close()
	require.True(t, ok, "what was marked before is committed")
	require.EqualValues(t, 6, o.Offset)
}

func TestLaneFoldsWhileInFlightAndSplitsAtTheLimits(t *testing.T) {
	var total budget
	a := newAssignment(t.Context(), "t", 0, 100, &total, new(tally))
	ready, _, _, _ := a.add([]incoming{incomingDelta(5, 2), incomingDelta(6, 3)}, 0, nil)
	require.Len(t, ready, 1)
	l := ready[0]
	f := a.take(l, nil)
	require.Equal(t, device.SeqSet{{From: 2, To: 3}}, f.batch.Fold.Seqs)
	require.Equal(t, 2, f.batch.Records)

	ready, _, _, _ = a.add([]incoming{incomingDelta(7, 4), incomingDelta(9, 5)}, 0, nil)
	require.Empty(t, ready, "one in flight")
	require.Len(t, l.waiting, 1)
	_, again := a.applied(f)
	require.True(t, again)

	closed := incomingDelta(10, 6)
	closed.fold = device.FoldOf(device.Event{RAE: "r", Session: someSession, Type: device.Closed, Seq: 6, Time: closed.record.Timestamp})
	a.add([]incoming{closed, incomingDelta(11, 7)}, 0, nil)
	require.Len(t, l.waiting, 2, "what follows a close waits behind it")

	var far []incoming
	for i := range int64(2 * maxChunkRanges) {
		far = append(far, incomingDelta(20+i, 10+2*i))
	}
	a.add(far, 0, nil)
	require.Len(t, l.waiting, 4, "a fold never holds more ranges than a set of seqs remembers")
	var records int
	for _, c := range l.waiting {
		records += c.Records()
	}
	require.Equal(t, 2+2+2*maxChunkRanges, records)
}

// A batch's JSON never passes the signal's limit by folding, also where
// encoding/json makes six bytes of one.
func TestFoldedBatchFitsTheSignal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, span := &lane{}, offsets.NewSpan()
		at := time.UnixMilli(1_700_000_000_000).UTC()
		for seq := int64(2); seq < 14; seq++ {
			e := device.Event{RAE: "<&>", Session: someSession, Type: device.Delta, Seq: seq, Time: at, Attributes: map[string]device.Attribute{}}
			for range rapid.IntRange(1, 6).Draw(t, "attributes") {
				name := fmt.Sprintf("a%d", rapid.IntRange(0, 200).Draw(t, "name"))
				text := strings.Repeat(rapid.SampledFrom([]string{"<", "a", "\u2028", "é"}).Draw(t, "letter"), rapid.IntRange(0, 7000).Draw(t, "n"))
				v, err := device.CanonicalOf(text)
				require.NoError(t, err)
				e.Attributes[name] = device.Attribute{Value: v, Seq: seq, At: at}
			}
			c, _ := l.add(device.FoldOf(e), &kgo.Record{Offset: seq, Timestamp: at}, "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a01", at)
			span.Fetched(seq, 0, &c.Unit)
		}
		for _, c := range l.waiting {
			b, err := json.Marshal(c.batch("rollcall.device-events", 1<<30))
			require.NoError(t, err)
			require.LessOrEqual(t, len(b), device.MaxSignalBytes)
			require.LessOrEqual(t, len(b), encodedSize(c.fold)+4<<10)
		}
	})
}

func TestClassify(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want verdict
	}{
		"nil":              {nil, accepted},
		"signal limit":     {serviceerror.NewInvalidArgument("exceeded workflow execution limit for signal events"), refused},
		"wrapped":          {fmt.Errorf("x: %w", serviceerror.NewInvalidArgument("y")), refused},
		"exhausted":        {serviceerror.NewResourceExhausted(enumspb.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "slow down"), busy},
		"continues as new": {serviceerror.NewResourceExhausted(enumspb.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW, "busy"), conflict},
		"server deadline":  {serviceerror.NewDeadlineExceeded("slow"), busy},
		"own deadline":     {context.DeadlineExceeded, busy},
		"unavailable":      {serviceerror.NewUnavailable("down"), outage},
		"no namespace":     {serviceerror.NewNamespaceNotFound("n"), outage},
		"permission":       {serviceerror.NewPermissionDenied("no", ""), outage},
		"internal":         {serviceerror.NewInternal("x"), outage},
		"workflow not yet": {serviceerror.NewWorkflowNotReady("x"), outage},
		"unknown":          {io.ErrUnexpectedEOF, outage},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, classify(tc.err)) })
	}
}

func TestIsFatal(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"nil":                    {nil, false},
		"thrown out":             {kerr.UnknownMemberID, false},
		"behind":                 {kerr.IllegalGeneration, false},
		"behind, new protocol":   {kerr.StaleMemberEpoch, false},
		"out of range":           {kerr.OffsetOutOfRange, false},
		"leader moved":           {kerr.NotLeaderForPartition, false},
		"topic was made anew":    {kerr.UnknownTopicID, false},
		"no ACL":                 {kerr.GroupAuthorizationFailed, true},
		"wrapped":                {fmt.Errorf("join: %w", kerr.TopicAuthorizationFailed), true},
		"another has the name":   {kerr.FencedInstanceID, true},
		"wrong password":         {kerr.SaslAuthenticationFailed, true},
		"no connection":          {io.ErrUnexpectedEOF, false},
		"context":                {context.DeadlineExceeded, false},
		"cannot be decompressed": {errors.New("unable to decompress"), false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, isFatal(tc.err)) })
	}
}

func TestValveOpensAgain(t *testing.T) {
	var total budget
	shut := map[int32]bool{}
	v := &valve{
		partitionBytes: 100, partitionRecords: 1000, partitionAge: time.Hour, now: time.Now, total: &total, totalBytes: 150,
		pause: func(n int32) { shut[n] = true }, resume: func(n int32) { shut[n] = false }, paused: func(int) {}, adjusted: map[int32]*gate{},
	}
	a, b := newAssignment(t.Context(), "t", 0, 1, &total, new(tally)), newAssignment(t.Context(), "t", 1, 1, &total, new(tally))
	shut[0] = true // as left by an earlier assignment
	v.open(a)
	v.open(b)
	require.False(t, shut[0])

	a.growLocked(100)
	v.adjust(a)
	require.Equal(t, map[int32]bool{0: true, 1: false}, shut)
	a.growLocked(-50)
	v.adjust(a)
	require.True(t, shut[0], "half is not below half")
	a.growLocked(-1)
	v.adjust(a)
	require.False(t, shut[0])

	b.growLocked(101) // the total is full
	v.adjust(b)
	require.Equal(t, map[int32]bool{0: true, 1: true}, shut)
	b.close() // revoked: what it held is forgotten
	v.forget(b)
	require.False(t, shut[0])
}

// What is held too long pauses its partition, and what ends it ends the pause.
func TestValveShutsByAge(t *testing.T) {
	var total budget
	now, shut := time.Unix(1_700_000_000, 0), false
	v := &valve{
		partitionBytes: 1 << 20, partitionRecords: 1000, partitionAge: time.Minute, now: func() time.Time { return now },
		total: &total, totalBytes: 1 << 20,
		pause: func(int32) { shut = true }, resume: func(int32) { shut = false }, paused: func(int) {}, adjusted: map[int32]*gate{},
	}
	a := newAssignment(t.Context(), "t", 0, 100, &total, new(tally))
	v.open(a)
	in := incomingDelta(5, 2)
	in.arrived = now
	ready, _, _, _ := a.add([]incoming{in}, 6, nil)
	now = now.Add(59 * time.Second)
	v.adjust(a)
	require.False(t, shut)
	now = now.Add(time.Second)
	v.adjust(a)
	require.True(t, shut)
	a.applied(a.take(ready[0], nil))
	v.adjust(a)
	require.False(t, shut)
}

// A snapshot only confirms where nothing before it is missing; a lane is of the
// confirming only as long as all that waits in it is.
func TestLaneKnowsWhetherItOnlyConfirms(t *testing.T) {
	var total budget
	a := newAssignment(t.Context(), "t", 0, 100, &total, new(tally))
	snapshot := func(offset, seq int64) incoming {
		in := incomingDelta(offset, seq)
		in.fold = device.FoldOf(device.Event{RAE: "r", Session: someSession, Type: device.Snapshot, Seq: seq, Time: in.arrived})
		return in
	}
	ready, _, _, _ := a.add([]incoming{snapshot(1, 7)}, 0, nil)
	require.Len(t, ready, 1)
	l := ready[0]
	require.False(t, l.changes.Load(), "nothing is known to be missing")
	ready, _, _, _ = a.add([]incoming{snapshot(2, 8)}, 0, nil)
	require.Empty(t, ready)
	require.False(t, l.changes.Load(), "two in a row")
	ready, _, _, _ = a.add([]incoming{incomingDelta(3, 9)}, 0, nil)
	require.Equal(t, []*lane{l}, ready, "a change folds in: the scheduler is told")
	require.True(t, l.changes.Load())
	f := a.take(l, nil)
	a.add([]incoming{snapshot(4, 10)}, 0, nil)
	a.applied(f)
	require.False(t, l.changes.Load())
	f = a.take(l, nil)
	a.applied(f)
	ready, _, _, _ = a.add([]incoming{snapshot(5, 12)}, 0, nil)
	require.True(t, ready[0].changes.Load(), "11 is missing: this one mends something")
}

// Records cannot make themselves much older than their arrival, or younger.
func TestClaimsOfAgeAreBounded(t *testing.T) {
	arrived := time.Unix(1_700_000_000, 0)
	for claim, want := range map[time.Duration]time.Duration{
		-time.Hour: -headStart, -time.Second: -time.Second, time.Hour: 0,
	} {
		c := &chunk{Unit: offsets.Unit{Fetched: arrived, Written: arrived.Add(claim)}}
		require.Equal(t, arrived.Add(want), c.age())
	}
}

func TestAliveWhileTheLoopTurns(t *testing.T) {
	p := &Poller{opts: Options{RevokeTimeout: time.Second}}
	require.NoError(t, p.Alive(), "not begun")
	p.lastTurn.Store(time.Now().UnixNano())
	require.NoError(t, p.Alive())
	p.lastTurn.Store(time.Now().Add(-time.Hour).UnixNano())
	require.ErrorContains(t, p.Alive(), "has not turned for 1h")
}

func TestReadyIsCaughtUpOrWorking(t *testing.T) {
	p := &Poller{}
	require.Error(t, p.Ready())
	p.joined.Store(true)
	require.ErrorContains(t, p.Ready(), "no broker has answered a fetch for")
	p.lastFetch.Store(time.Now().Add(-fetchStale / 2).UnixNano())
	require.NoError(t, p.Ready(), "nothing is to do")
	p.behind.Store(5)
	require.ErrorContains(t, p.Ready(), "5 records")
	p.lastProgress.Store(time.Now().UnixNano())
	require.NoError(t, p.Ready())
}

// The defaults come to no more than the memory they derive from, whatever it is.
func TestBudgetsFitTheMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Memory: rapid.IntRange(150, 100_000).Draw(t, "mib") << 20}
		o.setDefaults()
		o.Kafka.Brokers = []string{"localhost:1"}
		require.NoError(t, o.check())
		require.LessOrEqual(t, o.worstCase(), o.Memory)
	})
	o := Options{Memory: 100 << 20}
	require.ErrorContains(t, o.Validate(), "raise it or lower them")
}

// What Temporal refused goes before what came later: else a lane would be applied
// out of order when it goes on.
func TestRefusedBatchStaysAtTheHeadOfItsLane(t *testing.T) {
	var total budget
	a := newAssignment(t.Context(), "t", 0, 100, &total, new(tally))
	closed := incomingDelta(5, 2)
	closed.fold = device.FoldOf(device.Event{RAE: "r", Session: someSession, Type: device.Closed, Seq: 2, Time: closed.record.Timestamp})
	ready, _, _, _ := a.add([]incoming{closed, incomingDelta(6, 3)}, 0, nil)
	require.Len(t, ready, 1)
	f := a.take(ready[0], nil)
	require.EqualValues(t, 5, f.batch.First)
	until := time.UnixMilli(1_700_000_000_000)
	a.refused(f, until)
	ready, stopped, _ := a.sweep(until.Add(-1))
	require.Empty(t, ready, "its stop is not over")
	require.Equal(t, 1, stopped)
	ready, _, _ = a.sweep(until)
	require.Len(t, ready, 1)
	again := a.take(ready[0], nil)
	require.EqualValues(t, 5, again.batch.First)
	require.Equal(t, f.batch, again.batch)
	_, more := a.applied(again)
	require.True(t, more)
	require.EqualValues(t, 6, a.take(ready[0], nil).batch.First)
}

// Whatever becomes of records, the budgets are charged for what is held and for
// nothing else: a byte that is never given back would pause the poller for ever.
func TestBytesAreOfWhatIsHeld(t *testing.T) {
	var total budget
	a := newAssignment(t.Context(), "t", 0, 100, &total, new(tally))
	producer := kafka.NewDeadLetterProducer("dlq", nil, nil)
	letterOf := func(i incoming) *kafka.Letter { return producer.Letter(i.record, string(i.bad.Cause), i.bad.Detail) }
	poison := incomingDelta(6, 3)
	poison.record.Value = make([]byte, 5000)
	poison.bad = &device.Invalid{Cause: device.NotJSON}
	ready, letters, _, _ := a.add([]incoming{incomingDelta(5, 2), poison, incomingDelta(7, 4)}, 8, letterOf)
	require.Len(t, letters, 1)
	require.Greater(t, a.bytes, 5000+3*recordBytes, "a dead letter counts with its value")
	held := func() int {
		n := 0
		for _, l := range a.lanes {
			for _, c := range l.waiting {
				n += c.bytes + c.Records()*recordBytes
			}
		}
		return n
	}
	require.Equal(t, held()+letters[0].bytes+recordBytes, a.bytes)
	require.True(t, a.deadLettered(letters[0]))
	require.Equal(t, held(), a.bytes)
	f := a.take(ready[0], nil)
	a.refused(f, time.Time{})
	require.Equal(t, held(), a.bytes)
	a.applied(a.take(f.lane, nil))
	require.Zero(t, a.bytes)
	require.Zero(t, total.bytes.Load())
}

// A flight that the acker has handed on is not the acker's any more: two who own
// it would end it twice.
func TestAFlightLeavesTheAckerOnce(t *testing.T) {
	var total budget
	a := newAssignment(t.Context(), "t", 0, 100, &total, new(tally))
	ready, _, _, _ := a.add([]incoming{incomingDelta(5, 2)}, 6, nil)
	f := a.take(ready[0], &ticket{})
	var sent, landed, dropped int
	positions := map[string][]device.Position{}
	k := &acker{
		acks: acksOf(func() map[string][]device.Position { return positions }), timeout: time.Hour,
		log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()),
		send: func(*flight) { sent++ }, land: func(*flight) { landed++ }, drop: func(*flight) { dropped++ },
		flights: map[*flight]struct{}{}, wake: make(chan struct{}, 1),
	}
	read := func() {
		_, err := k.readPositions(t.Context(), k.watched())
		require.NoError(t, err)
	}
	k.watch(f)
	read() // it was not signalled, and is not applied
	require.Equal(t, []int{1, 0, 0}, []int{sent, landed, dropped})
	require.Empty(t, k.watched())

	f.signalled = time.Now()
	k.watch(f)
	read()
	require.Equal(t, 1, sent, "the signal is given its time")
	require.Len(t, k.watched(), 1)
	f.signalled = time.Now().Add(-2 * time.Hour)
	read()
	require.Equal(t, []int{2, 0, 0}, []int{sent, landed, dropped})
	require.Empty(t, k.watched())

	positions[someSession] = []device.Position{f.batch.Position()}
	k.watch(f)
	read()
	require.Equal(t, []int{2, 1, 0}, []int{sent, landed, dropped})
	require.Empty(t, k.watched())

	k.watch(f)
	a.close()
	read()
	require.Equal(t, []int{2, 1, 1}, []int{sent, landed, dropped})
	require.Empty(t, k.watched())
}

type acksOf func() map[string][]device.Position

func (f acksOf) Positions(context.Context, []string) (map[string][]device.Position, error) {
	return f(), nil
}

func TestACommitIsNotedOnlyWhenItSucceeded(t *testing.T) {
	var total budget
	a := newAssignment(t.Context(), "t", 0, 100, &total, new(tally))
	c := &committer{topic: "t", metrics: newMetrics(prometheus.NewRegistry())}
	of, next := map[int32]*assignment{0: a}, map[int32]kgo.EpochOffset{0: {Offset: 7}}
	answer := func(code int16) *kmsg.OffsetCommitResponse {
		return &kmsg.OffsetCommitResponse{Topics: []kmsg.OffsetCommitResponseTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitResponseTopicPartition{{ErrorCode: code}}}}}
	}
	require.Error(t, c.committed(of, next, nil, errors.New("no connection")))
	require.EqualValues(t, -1, a.committed)
	require.ErrorIs(t, c.committed(of, next, answer(kerr.RebalanceInProgress.Code), nil), kerr.RebalanceInProgress)
	require.EqualValues(t, -1, a.committed)
	require.NoError(t, c.committed(of, next, answer(0), nil))
	require.EqualValues(t, 7, a.committed)
}
