package rollout

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// Law: without is set difference.
func TestWithoutLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (device.SeqSet, map[int64]bool) {
			var s device.SeqSet
			members := map[int64]bool{}
			for _, seq := range rapid.SliceOfN(rapid.Int64Range(1, 20), 0, 12).Draw(t, name) {
				s = s.Union(device.SeqSet{{From: seq, To: seq}})
				members[seq] = true
			}
			return s, members
		}
		a, inA := draw("a")
		b, inB := draw("b")
		got := without(a, b)
		for seq := int64(0); seq <= 21; seq++ {
			require.Equal(t, inA[seq] && !inB[seq], got.Has(seq), "%d of %s without %s: %s", seq, a, b, got)
		}
	})
	require.Equal(t, device.SeqSet{{From: 3, To: 5}}, without(device.SeqSet{{From: 1, To: 9}}, device.SeqSet{{From: 1, To: 2}, {From: 6, To: device.MaxSeq}}))
}

// tables is what the database knows.
type tables func(session string) device.SeqSet

func (f tables) Known(_ context.Context, sessions []string) (map[string]device.SeqSet, error) {
	out := map[string]device.SeqSet{}
	for _, s := range sessions {
		if known := f(s); known != nil {
			out[s] = known
		}
	}
	return out, nil
}

// topic is a topic of a Kafka-protocol broker, of three partitions.
type topic struct {
	*kgo.Client
	t       *testing.T
	brokers []string
}

func newTopic(t *testing.T) topic {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, device.KafkaEvents))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic(device.KafkaEvents))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return topic{cl, t, cluster.ListenAddrs()}
}

func (k topic) produce(session string, seqs ...int64) {
	for _, seq := range seqs {
		e := device.Event{
			RAE: "RAE-1", Session: session, Type: device.Delta, Seq: seq, Time: time.Unix(1e9, 0),
			Attributes: map[string]device.Attribute{"a": {Value: json.RawMessage("1"), Seq: seq, At: time.Unix(1e9, 0)}},
		}
		if seq == 1 {
			e.Type = device.Opened
		}
		value, err := e.Encode()
		require.NoError(k.t, err)
		key := fmt.Sprintf("rollcall/v1/RAE-1/sessions/%s/events", session)
		require.NoError(k.t, k.ProduceSync(k.t.Context(), &kgo.Record{Key: []byte(key), Value: value}).FirstErr())
	}
}

func (k topic) ledger(db Known) *Ledger {
	return &Ledger{Kafka: kafka.Options{Brokers: k.brokers}, Database: db, Patience: 2 * time.Second}
}

func TestLedgerFindsWhatTheDatabaseLacks(t *testing.T) {
	k := newTopic(t)
	whole, holed, unknown := uuid.NewString(), uuid.NewString(), uuid.NewString()
	l := k.ledger(tables(func(session string) device.SeqSet {
		switch session {
		case whole:
			return device.SeqSet{{From: 1, To: 7}}
		case holed:
			return device.SeqSet{{From: 1, To: 2}, {From: 5, To: device.MaxSeq}}
		}
		return nil
	}))
	require.NoError(t, l.begin(t.Context()))
	k.produce(whole, 1, 2, 3, 2, 3, 4)
	k.produce(holed, 1, 2, 3, 4, 5, 6)
	k.produce(unknown, 1)
	require.NoError(t, k.ProduceSync(t.Context(), &kgo.Record{Key: []byte("nonsense"), Value: []byte("{")}).FirstErr())
	p, err := l.awaitApplied(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 14, p.Records)
	require.EqualValues(t, 11, p.Events)
	require.Equal(t, 3, p.Sessions)
	require.EqualValues(t, 1, p.Undecodable)
	require.EqualValues(t, 3, p.Lost)
	require.ElementsMatch(t, []Lost{{holed, device.SeqSet{{From: 3, To: 4}}}, {unknown, device.SeqSet{{From: 1, To: 1}}}}, p.LostSessions)
	require.Equal(t, 2, p.SessionsWithLoss)
}

// What was committed when the roll began is left out, and what was in flight is
// not; a database that lags is waited for.
func TestLedgerBeginsAtTheCommit(t *testing.T) {
	k := newTopic(t)
	session := uuid.NewString()
	k.produce(session, 1, 2, 3)
	admin := kadm.NewClient(k.Client)
	ends, err := admin.ListEndOffsets(t.Context(), device.KafkaEvents)
	require.NoError(t, err)
	_, err = admin.CommitOffsets(t.Context(), "rollcall-poller", ends.Offsets())
	require.NoError(t, err)
	k.produce(session, 4)
	asked := 0
	l := k.ledger(tables(func(string) device.SeqSet {
		if asked++; asked < 3 {
			return device.SeqSet{{From: 1, To: 3}}
		}
		return device.SeqSet{{From: 1, To: 5}}
	}))
	l.Patience = time.Hour
	require.NoError(t, l.begin(t.Context()))
	k.produce(session, 5)
	p, err := l.awaitApplied(t.Context())
	require.NoError(t, err)
	require.Equal(t, Proof{Records: 2, Events: 2, Sessions: 1}, p)
	require.Equal(t, 3, asked)
}

func TestLedgerOfNothing(t *testing.T) {
	k := newTopic(t)
	l := k.ledger(tables(func(string) device.SeqSet { return nil }))
	require.NoError(t, l.begin(t.Context()))
	p, err := l.awaitApplied(t.Context())
	require.NoError(t, err)
	require.Equal(t, Proof{}, p)

	require.ErrorContains(t, (&Ledger{}).begin(t.Context()), "no database")
	l.Topic = "absent"
	require.ErrorContains(t, l.begin(t.Context()), "offsets of absent")
}
