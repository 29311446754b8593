package poller_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

// patience only bounds a failure.
const patience = time.Minute

func eventually(t testing.TB, ok func() bool, msg string, args ...any) {
	t.Helper()
	require.Eventually(t, ok, patience, 5*time.Millisecond, append([]any{msg}, args...)...)
}

// cluster is a Kafka to test against, with topics of the test's own.
type cluster struct {
	brokers           []string
	fake              *kfake.Cluster // nil: a real one
	topic, dlq, group string
	admin             *kadm.Client
	producer          *kgo.Client
}

func newFake(t testing.TB, partitions int32) *cluster {
	c := &cluster{topic: device.KafkaEvents, dlq: device.KafkaDeadLetters, group: "g"}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, c.topic), kfake.SeedTopics(1, c.dlq),
		kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0", "group.consumer.heartbeat.interval.ms": "100"}))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	c.fake, c.brokers = fake, fake.ListenAddrs()
	c.connect(t)
	return c
}

// newReal makes topics of its own in the Kafka at brokers.
func newReal(t testing.TB, partitions int32, brokers []string) *cluster {
	id := uuid.NewString()
	c := &cluster{brokers: brokers, topic: "events-" + id, dlq: "dlq-" + id, group: "g-" + id}
	c.connect(t)
	_, err := c.admin.CreateTopic(t.Context(), partitions, 1, nil, c.topic)
	require.NoError(t, err)
	_, err = c.admin.CreateTopic(t.Context(), 1, 1, nil, c.dlq)
	require.NoError(t, err)
	return c
}

func (c *cluster) connect(t testing.TB) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	c.producer, c.admin = cl, kadm.NewClient(cl)
}

func (c *cluster) produce(t testing.TB, rs ...*kgo.Record) {
	t.Helper()
	require.NoError(t, c.producer.ProduceSync(t.Context(), rs...).FirstErr())
}

// left is how many records of the topic are not committed; -1: not known.
func (c *cluster) left(t testing.TB) int64 {
	ends, err := c.admin.ListEndOffsets(context.WithoutCancel(t.Context()), c.topic)
	if err != nil {
		return -1
	}
	committed := c.committed(t)
	if ends.Error() != nil || committed < 0 {
		return -1
	}
	left := -committed
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	return left
}

// committed is the sum of the partitions' committed offsets; -1: not known.
func (c *cluster) committed(t testing.TB) (sum int64) {
	offsets, err := c.admin.FetchOffsets(context.WithoutCancel(t.Context()), c.group)
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return 0
	case err != nil || offsets.Error() != nil:
		return -1
	}
	offsets.Each(func(o kadm.OffsetResponse) { sum += max(0, o.At) })
	return sum
}

// letters reads the dead-letter topic, which must have n records by now.
func (c *cluster) letters(t testing.TB, n int) []*kgo.Record {
	t.Helper()
	ends, err := c.admin.ListEndOffsets(t.Context(), c.dlq)
	require.NoError(t, err)
	end, _ := ends.Lookup(c.dlq, 0)
	require.EqualValues(t, n, end.Offset, "dead letters are missing, or too many")
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.ConsumeTopics(c.dlq), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var rs []*kgo.Record
	for len(rs) < n {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			var got []string
			for _, r := range rs {
				got = append(got, kafka.Header(r, "want")+"="+kafka.Header(r, kafka.HeaderReason))
			}
			require.Fail(t, "dead letters are missing", "%d of %d: %q", len(rs), n, got)
		}
		rs = append(rs, fs.Records()...)
	}
	require.Len(t, rs, n)
	return rs
}

// history is what some devices did, and the records that tell of it.
type history struct {
	models  map[string]devicetest.Model
	records []*kgo.Record // of all sessions, interleaved
}

func newHistory(t testing.TB, topic string, sessions, most int) history {
	h := history{models: map[string]devicetest.Model{}}
	var all [][]device.Event
	for i := range sessions {
		id := uuid.NewString()
		events := devicetest.History(fmt.Sprintf("rae-%d", i%5), id, most).Example(i)
		h.models[id] = devicetest.Of(events)
		all = append(all, events)
	}
	for n := 0; n < most; n++ {
		for _, events := range all {
			if n < len(events) {
				h.records = append(h.records, record(t, topic, events[n]))
			}
		}
	}
	return h
}

func record(t testing.TB, topic string, e device.Event) *kgo.Record {
	key, err := device.SessionTopic(e.RAE, e.Session, device.KindEvents)
	require.NoError(t, err)
	value, err := e.Encode()
	require.NoError(t, err)
	return &kgo.Record{Topic: topic, Key: []byte(key), Value: value}
}

// tables stands for Temporal, the worker and the database.
type tables struct {
	mu        sync.Mutex
	states    map[string]*device.State
	positions map[string][]device.Position
	unapplied map[string]int // batches accepted and not applied, by session
	overlaps  int            // batches that came while one of their session was not applied
	signals   int
	topicIDs  map[string]bool // of the batches that were accepted
	waiting   []func()        // held back while shut

	shut  atomic.Bool  // accept, but do not apply
	delay atomic.Int64 // from acceptance to application
	// As the workflow does it: batches of another RAE than the session's owner are
	// quarantined, after foreignDelay.
	owners       map[string]string
	foreign      map[string]device.Batch // by coordinates
	foreignQueue []device.Batch
	foreignDelay atomic.Int64

	refuse  atomic.Pointer[func(b device.Batch) error] // answer of a signal
	lose    atomic.Pointer[func(n int) bool]           // accepted, but never applied: by the count of signals
	readErr atomic.Pointer[error]                      // answer of a read of positions
	reads   atomic.Int64
}

func newTables() *tables {
	return &tables{
		states: map[string]*device.State{}, positions: map[string][]device.Position{}, unapplied: map[string]int{}, topicIDs: map[string]bool{},
		owners: map[string]string{}, foreign: map[string]device.Batch{},
	}
}

func (s *tables) setRefuse(f func(device.Batch) error) { s.refuse.Store(&f) }

func (s *tables) accept(b device.Batch) error {
	if err := b.Check(); err != nil {
		return serviceerror.NewInvalidArgument(err.Error())
	}
	if f := s.refuse.Load(); f != nil && *f != nil {
		if err := (*f)(b); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signals++
	s.topicIDs[b.TopicID] = true
	if f := s.lose.Load(); f != nil && (*f)(s.signals) {
		return nil
	}
	if owner := s.owners[b.Fold.Session]; owner != "" && owner != b.Fold.RAE {
		s.foreignQueue = append(s.foreignQueue, b)
		if s.foreignDelay.Load() == 0 {
			s.refuseForeignLocked()
		}
		return nil
	}
	if s.unapplied[b.Fold.Session] > 0 {
		s.overlaps++
	}
	s.unapplied[b.Fold.Session]++
	apply := func() { s.apply(b) }
	switch d := time.Duration(s.delay.Load()); {
	case s.shut.Load():
		s.waiting = append(s.waiting, apply)
	case d > 0:
		time.AfterFunc(d, apply)
	default:
		s.applyLocked(b)
	}
	return nil
}

func (s *tables) apply(b device.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applyLocked(b)
}

func (s *tables) applyLocked(b device.Batch) {
	id := b.Fold.Session
	s.unapplied[id]--
	if device.Reached(s.positions[id], b.Position()) {
		return
	}
	if s.states[id] == nil {
		s.states[id] = &device.State{}
	}
	s.states[id].Apply(b.Fold)
	s.positions[id] = device.Advance(s.positions[id], b.Position())
}

func (s *tables) own(session, rae string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owners[session] = rae
}

// refuseForeign quarantines the foreign batches that wait.
func (s *tables) refuseForeign() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuseForeignLocked()
}

func (s *tables) refuseForeignLocked() {
	for _, b := range s.foreignQueue {
		id := b.Fold.Session
		s.foreign[fmt.Sprint(b.Partition, b.First, b.Last)] = b
		s.positions[id] = device.Advance(s.positions[id], b.Position().Foreign(b.Fold.RAE))
	}
	s.foreignQueue = nil
}

func (s *tables) foreignRecords() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.foreign {
		n += b.Records
	}
	return n
}

func (s *tables) seqOf(session string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.states[session] == nil {
		return 0
	}
	return s.states[session].AsOf
}

// open applies what was held back, and holds nothing back any more.
func (s *tables) open() {
	s.shut.Store(false)
	s.step()
}

// held is how many batches are held back.
func (s *tables) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// inFlight is how many sessions have a batch that was accepted and not applied.
func (s *tables) inFlight() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, batches := range s.unapplied {
		if batches > 0 {
			n++
		}
	}
	return n
}

// step applies what was held back until now.
func (s *tables) step() {
	s.mu.Lock()
	held := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, apply := range held {
		apply()
	}
}

func (s *tables) counts() (signals, overlaps, sessions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signals, s.overlaps, len(s.states)
}

// equal compares the tables with the models, which share no code with the fold.
func (s *tables) equal(t testing.TB, h history) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(t, s.states, len(h.models))
	for id, m := range h.models {
		got := s.states[id]
		require.NotNil(t, got, "session %s is missing", id)
		require.Equal(t, m.Seq, got.AsOf)
		require.Equal(t, m.Closed, got.Closed != 0)
		require.Empty(t, got.Missing())
		live := got.Live()
		require.Len(t, live, len(m.Attributes))
		for name, a := range m.Attributes {
			require.JSONEq(t, string(a.Value), string(live[name].Value))
			require.Equal(t, a.Seq, live[name].Seq)
		}
	}
}

// logs is how many incarnations of the topic there were batches of, and how many
// batches.
func (s *tables) logs() (ids, signals int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.topicIDs), s.signals
}

// line is one poller's connection to everything; cut is its power cord.
type line struct {
	tables *tables
	dead   atomic.Bool
	mu     sync.Mutex
	conns  []net.Conn
}

var errCut = errors.New("cut")

func (l *line) dial(ctx context.Context, network, host string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead.Load() {
		return nil, errCut
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err == nil {
		l.conns = append(l.conns, c)
	}
	return c, err
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead.Store(true)
	for _, c := range l.conns {
		c.Close()
	}
}

func (l *line) SignalWithStartWorkflow(_ context.Context, id, name string, arg any, o client.StartWorkflowOptions, _ any, _ ...any) (client.WorkflowRun, error) {
	b, ok := arg.(device.Batch)
	switch {
	case l.dead.Load():
		return nil, errCut
	case !ok || name != device.SignalEvents || id != device.WorkflowID(b.Fold.Session) || o.RetryPolicy != nil || o.WorkflowExecutionTimeout != 0:
		return nil, serviceerror.NewInvalidArgument("not what the contract says")
	}
	return nil, l.tables.accept(b)
}

func (l *line) Positions(_ context.Context, sessions []string) (map[string][]device.Position, error) {
	l.tables.reads.Add(1)
	if l.dead.Load() {
		return nil, errCut
	}
	if err := l.tables.readErr.Load(); err != nil && *err != nil {
		return nil, *err
	}
	out := map[string][]device.Position{}
	l.tables.mu.Lock()
	defer l.tables.mu.Unlock()
	for _, id := range sessions {
		if p := l.tables.positions[id]; p != nil {
			out[id] = append([]device.Position(nil), p...)
		}
	}
	return out, nil
}

// running is a poller that runs.
type running struct {
	*poller.Poller
	line    *line
	metrics *prometheus.Registry
	stop    context.CancelFunc
	done    chan error
}

func start(t testing.TB, c *cluster, s *tables, change ...func(*poller.Options)) *running {
	t.Helper()
	r := &running{line: &line{tables: s}, metrics: prometheus.NewRegistry(), done: make(chan error, 1)}
	o := poller.Options{
		Kafka: kafka.Options{Brokers: c.brokers}, Topic: c.topic, DeadLetterTopic: c.dlq, Group: c.group,
		SessionTimeout: 30 * time.Second, // a machine that stands still for a moment is not dead
		Temporal:       r.line, Acks: r.line, Registerer: r.metrics,
		AckMin: 2 * time.Millisecond, AckMax: 20 * time.Millisecond, CommitInterval: 50 * time.Millisecond,
		KafkaOpts: []kgo.Opt{kgo.Dialer(r.line.dial), kgo.HeartbeatInterval(100 * time.Millisecond)},
		Logger:    slog.New(slog.DiscardHandler),
	}
	if os.Getenv("ROLLCALL_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	r.Poller, err = poller.New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); r.line.cut(); <-r.done; close(r.done) })
	return r
}

// drain stops the poller in an orderly way.
func (r *running) drain(t testing.TB) {
	t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		require.NoError(t, err)
		r.done <- nil
	case <-time.After(patience):
		require.Fail(t, "the poller does not stop")
	}
}

// kill is kill -9: from now on nothing that the poller does reaches anybody.
func (r *running) kill() {
	r.line.cut()
	r.stop()
}

func short(session time.Duration) func(*poller.Options) {
	return func(o *poller.Options) {
		o.KafkaOpts = append(o.KafkaOpts, kgo.SessionTimeout(session), kgo.HeartbeatInterval(session/5))
		o.DrainTimeout = time.Millisecond
	}
}

const metricPrefix = "rollcall_poller_"

// hasSeries reports whether the metric has been told anything.
func (r *running) hasSeries(t testing.TB, name string) bool {
	t.Helper()
	return metrictest.HasSeries(t, r.metrics, metricPrefix+name)
}

// metric sums a metric over its labels; pairs of label and value choose among them.
func (r *running) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	return metrictest.Value(t, r.metrics, metricPrefix+name, labels...)
}

// metricOrZero is metric, also before anything was told.
func (r *running) metricOrZero(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	return metrictest.ValueOrZero(t, r.metrics, metricPrefix+name, labels...)
}

func portOf(t testing.TB, addr string) int {
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}
