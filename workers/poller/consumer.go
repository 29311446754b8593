package poller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

const (
	// pollRecords is how many records one turn of the poll loop takes: few
	// enough that a rebalance does not wait long for their decoding, and that
	// what they come to is little beside the budgets.
	pollRecords = 500
	// pollWait is how long a turn waits for records.
	pollWait = time.Second
	// fetchWait is how long a broker may hold a fetch that finds nothing. A
	// partition that is resumed waits for it, so it is well below the default.
	fetchWait = 500 * time.Millisecond
	// pollPause is the pause between turns while lanes wait for the window and
	// everything that was fetched is folded: what arrives would only wait, and
	// a fetch for every record costs more than folding it.
	pollPause = 20 * time.Millisecond
	// stuckPause is the pause when a fetch failed as the next one may, and
	// warnEvery how often that is told.
	stuckPause = 100 * time.Millisecond
	warnEvery  = time.Second
	// farBehind is how many records have to wait in Kafka for the poller to
	// read on before it applies; see scheduler.catchUp. It goes on with both
	// when fewer than a turn takes are left.
	farBehind = 20 * pollRecords
	// metadataAge is how old the client's picture of the topic may become:
	// partitions that are added are read when it is renewed.
	metadataAge = 10 * time.Second
	// commitTimeout bounds the commits at a revoke and at the end.
	commitTimeout = 10 * time.Second
)

// consumer is one life of the Poller: a Kafka client and all that hangs on it.
type consumer struct {
	*Poller

	client      *kgo.Client
	total       budget
	sched       *scheduler
	acks        *acker
	deadLetters *deadLetters
	valve       *valve
	commits     *committer
	work        context.Context // ends when draining has ended
	workers     sync.WaitGroup  // everything that ends with work
	warned      time.Time       // of a fetch that failed
	watch       *kafka.TopicWatch
	recreated   chan struct{} // holds one: the topic was made anew

	mu          sync.Mutex
	assignments map[int32]*assignment

	built chan struct{} // closed when client is set: callbacks may come before
}

func newConsumer(p *Poller) *consumer {
	return &consumer{Poller: p, assignments: map[int32]*assignment{}, built: make(chan struct{}), recreated: make(chan struct{}, 1)}
}

func (p *consumer) clientOpts() []kgo.Opt {
	o := p.opts
	opts := []kgo.Opt{
		kgo.ConsumerGroup(o.Group),
		kgo.ConsumeTopics(o.Topic),
		kgo.SessionTimeout(o.SessionTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, o.SessionTimeout/3)),
		kgo.DisableAutoCommit(),
		kgo.MetadataMinAge(500 * time.Millisecond), // how soon a partition is tried again after an error; default 5 s
		kgo.MetadataMaxAge(metadataAge),
		kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a transaction's marker is read, and done, as what it is: else it looks like lag, or like a loss
		kgo.FetchMaxBytes(int32(o.FetchBytes)),
		kgo.FetchMaxPartitionBytes(1 << 20),
		kgo.FetchMaxWait(fetchWait),
		kgo.MaxConcurrentFetches(fetches),
		p.oversized.Opt(),
		kgo.OnPartitionsAssigned(p.assigned),
		kgo.AdjustFetchOffsetsFn(p.locate),
		kgo.OnPartitionsRevoked(p.revoked),
		kgo.OnPartitionsLost(p.lost),
	}
	if o.GroupProtocol == ConsumerProtocol {
		opts = append(opts, kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	} else {
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	if o.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(o.InstanceID))
	}
	return opts
}

// run consumes until ctx ends, and then drains; or until the client fails for
// good, and then says how.
func (p *consumer) run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	own, err := p.build(work)
	if err != nil {
		return err
	}
	defer own.unregisterAll()
	for _, run := range []func(context.Context){p.acks.run, p.deadLetters.run, p.commits.run, p.tick, p.watch.Run} {
		p.workers.Go(func() { run(work) })
	}
	if err = p.poll(ctx); err == nil {
		p.drain()
	} else {
		p.abandon(err)
	}
	p.lastTurn.Store(0)
	p.joined.Store(false)
	stop()
	p.client.CloseAllowingRebalance()
	p.workers.Wait()
	return err
}

func (p *consumer) build(work context.Context) (*clientRegisterer, error) {
	p.work = work
	o := p.opts
	p.sched = newScheduler(newWindow(o.WindowMin, o.WindowMax), o.Classes, p.launch)
	p.acks = &acker{
		acks: o.Acks, min: o.AckMin, max: o.AckMax, timeout: o.AckTimeout, log: p.log, metrics: p.metrics,
		land: p.land, drop: p.drop, send: func(f *flight) { p.workers.Go(func() { p.send(f) }) },
		flights: map[*flight]struct{}{}, wake: make(chan struct{}, 1),
	}
	partition := func(n int32) map[string][]int32 { return map[string][]int32{o.Topic: {n}} }
	p.valve = &valve{
		partitionBytes: o.PartitionBytes, partitionRecords: o.PartitionRecords, partitionAge: o.PartitionAge, now: time.Now,
		total: &p.total, totalBytes: int64(o.TotalBytes),
		pause:    func(n int32) { p.client.PauseFetchPartitions(partition(n)) },
		resume:   func(n int32) { p.client.ResumeFetchPartitions(partition(n)) },
		paused:   func(n int) { p.metrics.paused.Set(float64(n)) },
		adjusted: map[int32]*gate{},
	}
	p.deadLetters = &deadLetters{acknowledged: p.deadLettered, log: p.log, metrics: p.metrics, wake: make(chan struct{}, 1)}
	p.commits = &committer{
		topic: o.Topic, interval: o.CommitInterval, records: int64(o.CommitRecords), assignments: p.owned,
		log: p.log, metrics: p.metrics, trigger: make(chan struct{}, 1),
	}
	watch, own := hooks(p.metrics, &p.lastFetch, o.Registerer)
	cl, err := kgo.NewClient(slices.Concat(p.clientOpts(), []kgo.Opt{watch}, p.kafkaOpts)...)
	if err != nil {
		own.unregisterAll()
		return nil, fmt.Errorf("poller: Kafka client: %w", err)
	}
	p.client, p.commits.client = cl, cl
	p.watch = kafka.NewTopicWatch(cl, p.log, p.topicMetrics, p.topicRecreated, o.Topic, o.DeadLetterTopic)
	p.topics.Store(p.watch)
	p.deadLetters.producer = kafka.NewDeadLetterProducer(o.DeadLetterTopic, cl, p.log)
	p.deadLetters.producer.Failed = p.watch.Failed
	close(p.built)
	return own, nil
}

// errRecreated ends the life of a consumer whose topic was made anew.
var errRecreated = errors.New("the topic was made anew")

// topicRecreated is called when topic is another one under its name. Of the events
// the next consumer begins at the start of the new one; dead letters are produced
// to the new one.
func (p *consumer) topicRecreated(topic string) {
	if topic == p.opts.DeadLetterTopic {
		p.client.PurgeTopicsFromProducing(topic)
		return
	}
	p.anew.Recreated()
	p.joined.Store(false)
	select {
	case p.recreated <- struct{}{}:
	default:
	}
}

// poll never waits for a worker or a sink: what it polls is decoded, folded and
// held, and the valve stops the fetching when too much is. It returns nil when
// ctx ends, and what the client cannot recover from.
func (p *consumer) poll(ctx context.Context) error {
	defer p.sched.catchUp(false)
	for behind := false; ; {
		p.lastTurn.Store(time.Now().UnixNano())
		turn, cancel := context.WithTimeout(ctx, pollWait)
		fetches := p.client.PollRecords(turn, pollRecords)
		cancel()
		if ctx.Err() != nil {
			p.client.AllowRebalance()
			return nil
		}
		select {
		case <-p.recreated:
			p.client.AllowRebalance()
			return errRecreated
		default:
		}
		ends := p.take(fetches)
		stuck := p.handleFetchErrors(ctx, fetches, ends)
		p.client.AllowRebalance()
		if err := fatalError(fetches); err != nil {
			return err
		}
		unread := p.unread()
		behind = (unread >= farBehind || behind && unread >= pollRecords) && !p.valve.shut()
		p.sched.catchUp(behind)
		switch { // the next turn sees that ctx ended
		case stuck:
			_ = retry.Sleep(ctx, stuckPause)
		case fetches.NumRecords() < pollRecords && p.sched.crowded():
			_ = retry.Sleep(ctx, pollPause)
		}
	}
}

// unread is how many records wait in Kafka, as of the last fetches.
func (p *consumer) unread() int64 {
	var n int64
	for _, a := range p.owned() {
		n += a.unread()
	}
	return n
}

// take decodes in parallel, a partition at a time, and in order within it.
// It returns where the partitions end.
func (p *consumer) take(fetches kgo.Fetches) (ends map[int32]int64) {
	records, total, now := map[int32][]*kgo.Record{}, 0, time.Now()
	ends = map[int32]int64{}
	starts := map[int32]int64{}
	topicID := ""
	fetches.EachTopic(func(t kgo.FetchTopic) { // there is one
		topicID = device.TopicIDOf(t.TopicID)
		for _, tp := range t.Partitions {
			records[tp.Partition] = append(records[tp.Partition], tp.Records...)
			// What lies beyond it cannot be read yet: a transaction is open.
			ends[tp.Partition] = max(ends[tp.Partition], cmp.Or(max(tp.LastStableOffset, 0), tp.HighWatermark))
			starts[tp.Partition] = max(starts[tp.Partition], tp.LogStartOffset)
			total += len(tp.Records)
		}
	})
	if total > 0 {
		p.metrics.pollRecords.Observe(float64(total))
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for partition, rs := range records {
		if a := p.assignment(partition); a != nil && len(rs) > 0 {
			g.Go(func() error {
				in := make([]incoming, len(rs))
				for i, r := range rs {
					in[i] = decode(r, topicID, now)
				}
				p.noteLost(a, a.skipped(rs[0].Offset, starts[partition]))
				p.ledger.judge(in, now)
				p.accept(a, in, ends[partition])
				return nil
			})
		}
	}
	_ = g.Wait() // no error is ever returned
	return ends
}

// handleFetchErrors passes batches that do not fit memory, and logs fetches that
// failed. It reports whether the next turn should wait a little: a fetch failed as
// the next one may, or what others had fetched has to come again.
func (p *consumer) handleFetchErrors(ctx context.Context, fetches kgo.Fetches, ends map[int32]int64) (stuck bool) {
	ctx, cancel := context.WithTimeout(ctx, kafka.PassTimeout)
	defer cancel()
	fetches.EachError(func(topic string, partition int32, err error) {
		r, why, failed := p.oversized.Pass(ctx, p.client, topic, partition, err)
		if r != nil {
			stuck = true
			p.skip(r, why, ends[partition])
			return
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isFatal(err) {
			return
		}
		stuck = true
		p.watch.Failed(topic, err)
		if now := time.Now(); now.Sub(p.warned) >= warnEvery {
			p.warned = now
			p.log.Warn("fetch failed, trying again", "partition", partition, "err", cmp.Or(failed, err))
		}
	})
	return stuck
}

// noteLost tells of offsets that retention has deleted before they were read.
func (p *consumer) noteLost(a *assignment, n int64) {
	if n <= 0 {
		return
	}
	p.metrics.offsetsLost.Add(float64(n))
	p.log.Error("retention has deleted what was not read yet: the sessions' next snapshots heal what they can; read faster, or keep the topic for longer",
		"partition", a.partition, "offsets", n)
}

func (p *consumer) accept(a *assignment, in []incoming, end int64) {
	for _, i := range in {
		if i.clamped != "" {
			p.metrics.clamped.WithLabelValues(i.clamped).Inc()
		}
	}
	ready, letters, rewinds, markers := a.add(in, end, func(i incoming) *kafka.Letter {
		letter := p.deadLetters.producer.Letter(i.record, string(i.bad.Cause), i.bad.Detail)
		if i.strip {
			letter.Strip()
		}
		return letter
	})
	records := len(in) - markers
	p.metrics.records.Add(float64(records))
	p.tally.fetched.Add(int64(records))
	if rewinds > 0 {
		p.metrics.rewinds.Add(float64(rewinds))
		p.log.Error("offsets went back: was the topic cut or made again? What is at offsets that were applied before is taken for applied",
			"partition", a.partition, "records", rewinds)
	}
	p.valve.adjust(a)
	p.deadLetters.add(letters...)
	p.sched.offer(ready...)
}

// skip dead-letters the record that stands for a producer's batch which would
// not fit memory. End is the partition's.
func (p *consumer) skip(r *kgo.Record, why string, end int64) {
	if a := p.assignment(r.Partition); a != nil {
		bad := &device.Invalid{Cause: kafka.ReasonDecompress, Detail: why}
		p.accept(a, []incoming{{record: r, arrived: r.Timestamp, bad: bad}}, max(end, r.Offset+1))
	}
}

// deadLettered is called when l's produce was acknowledged.
func (p *consumer) deadLettered(l *deadLetter) {
	if l.a.deadLettered(l) {
		p.completed(l.a, 1)
	}
}

func (p *consumer) assignment(partition int32) *assignment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.assignments[partition]
}

// owned returns the assignments that are not yet let go.
func (p *consumer) owned() []*assignment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.assignments))
}
