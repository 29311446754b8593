package bridge_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workers/bridge"
)

// allAcks fails the test for a produce that does not ask for the acknowledgement
// of all in-sync replicas, and counts the others.
func allAcks(t testing.TB, fake *kfake.Cluster) *atomic.Int64 {
	var produces atomic.Int64
	fake.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		if acks := r.(*kmsg.ProduceRequest).Acks; acks != -1 {
			t.Errorf("a produce asks for acks=%d", acks)
		}
		produces.Add(1)
		return nil, nil, false
	})
	return &produces
}

// PUBACK says that the event is in a store that survives the loss of a broker: so
// must what it waits for.
func TestForwardAsksForTheAcksOfAllReplicas(t *testing.T) {
	t.Parallel()
	fake := newKafka(t)
	produces := allAcks(t, fake)
	f := newForwarder(t, fake.ListenAddrs())
	require.NoError(t, f.Forward(bounded(t), topicOf(0), []byte("event")))
	require.NoError(t, f.Forward(bounded(t), topicOf(0), make([]byte, 2<<20)), "its dead letter too")
	require.GreaterOrEqual(t, produces.Load(), int64(2))
}

func TestForwarderHoldsNoMoreBytesThanItMay(t *testing.T) {
	t.Parallel()
	fake := newKafka(t)
	var open atomic.Bool
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1, When: func(kmsg.Request) bool { return !open.Load() }})
	f := newForwarder(t, fake.ListenAddrs(), func(o *bridge.ForwarderOptions) { o.MaxBytes = 1 << 20 })
	payload := bytes.Repeat([]byte("x"), 300<<10)
	results := make(chan error, 4)
	for range 3 {
		f.ForwardAsync(bounded(t), topicOf(0), payload, func(err error) { results <- err })
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	refused := make(chan error, 1)
	f.ForwardAsync(short, topicOf(0), payload, func(err error) { refused <- err })
	select { // it returned: either it waited for its context, or it was taken
	case err := <-refused:
		require.ErrorIs(t, err, context.DeadlineExceeded)
	default:
		require.Fail(t, "1.2 MB wait for Kafka, and may be 1 MiB")
	}
	open.Store(true)
	f.ForwardAsync(bounded(t), topicOf(0), payload, func(err error) { results <- err })
	for range 4 {
		require.NoError(t, <-results)
	}
}

// What Kafka refuses for its size counts as taken when its dead letter is.
func TestForwardIsNotDoneBeforeItsDeadLetterIs(t *testing.T) {
	t.Parallel()
	fake := newKafka(t)
	var tries atomic.Int64
	fault := fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: device.KafkaDeadLetters, Err: kerr.TopicAuthorizationFailed, Count: -1,
		When: func(kmsg.Request) bool { tries.Add(1); return true },
	})
	f := newForwarder(t, fake.ListenAddrs())
	result := make(chan error, 1)
	f.ForwardAsync(bounded(t), topicOf(0), make([]byte, 2<<20), func(err error) { result <- err })
	eventually(t, func() bool { return tries.Load() >= 2 || len(result) > 0 }, "its dead letter is tried again")
	require.Empty(t, result)
	fault.Remove()
	require.NoError(t, <-result)
}

// heldPublisher publishes a command of the session only when it is let go.
type heldPublisher struct {
	session string
	holding chan struct{} // closed when it has the command
	release chan struct{}
	sent    atomic.Int64
}

func newHeldPublisher(session string) *heldPublisher {
	return &heldPublisher{session: session, holding: make(chan struct{}), release: make(chan struct{})}
}

func (p *heldPublisher) Publish(ctx context.Context, m bridge.Message) error {
	c, err := device.DecodeCommand(m.Topic, m.Payload)
	if err != nil {
		return err
	}
	if c.Session == p.session {
		close(p.holding)
		select {
		case <-p.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.sent.Add(1)
	return nil
}

// commandOn produces a command of the session to the partition.
func commandOn(t testing.TB, fake *kfake.Cluster, partition int32, session int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer cl.Close()
	c := commandTo("RAE-1", session, 0, life)
	topic, err := c.Topic()
	require.NoError(t, err)
	value, err := c.Encode()
	require.NoError(t, err)
	require.NoError(t, cl.ProduceSync(bounded(t), &kgo.Record{Topic: device.KafkaCommands, Partition: partition, Key: []byte(topic), Value: value}).FirstErr())
}

// committedOf is the partition's committed offset; -1: not known.
func committedOf(t testing.TB, fake *kfake.Cluster, partition int32) int64 {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...))
	require.NoError(t, err)
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(context.Background(), bridge.DefaultGroup)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return 0
	}
	if err != nil {
		return -1
	}
	o, ok := offsets.Lookup(device.KafkaCommands, partition)
	if !ok {
		return 0
	}
	return max(0, o.At)
}

// The commit waits for a command that is not published yet, also when commands
// behind it are.
func TestNoCommitPassesACommandThatIsNotPublished(t *testing.T) {
	fake, p := newCommandKafka(t), newHeldPublisher(sessionOf(7))
	startDown(t, fake, mosquitto(t), func(o *bridge.DownlinkOptions) { o.Publisher = p })
	commandOn(t, fake, 0, 1)
	eventually(t, func() bool { return committedOf(t, fake, 0) == 1 }, "one that is published is committed")
	commandOn(t, fake, 0, 7)
	<-p.holding
	commandOn(t, fake, 0, 2)
	eventually(t, func() bool { return p.sent.Load() == 2 }, "the one behind it is published")
	// What is committed later shows that this partition has had its turn.
	commandOn(t, fake, 1, 3)
	eventually(t, func() bool { return committedOf(t, fake, 1) == 1 }, "the other partition")
	commandOn(t, fake, 1, 4)
	eventually(t, func() bool { return committedOf(t, fake, 1) == 2 }, "and once more")
	require.EqualValues(t, 1, committedOf(t, fake, 0))
	close(p.release)
	eventually(t, func() bool { return committedOf(t, fake, 0) == 3 }, "all are committed")
}

func TestACommandThatAStopCutsOffComesAgain(t *testing.T) {
	fake, p := newCommandKafka(t), newHeldPublisher(sessionOf(7))
	addr := mosquitto(t)
	d := startDown(t, fake, addr, func(o *bridge.DownlinkOptions) { o.Publisher = p })
	commandOn(t, fake, 0, 1)
	eventually(t, func() bool { return p.sent.Load() == 1 }, "one is published")
	commandOn(t, fake, 0, 7)
	<-p.holding
	d.stop()
	require.EqualValues(t, 1, committedOf(t, fake, 0), "what is published is committed at the stop, and no more")
	again := newHeldPublisher("")
	startDown(t, fake, addr, func(o *bridge.DownlinkOptions) { o.Publisher = again })
	eventually(t, func() bool { return again.sent.Load() == 1 }, "the next one publishes it")
}
