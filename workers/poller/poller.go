package poller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
)

const (
	// pollRecords is how many records one turn of the poll loop takes: few
	// enough that a rebalance does not wait long for their decoding.
	pollRecords = 2000
	// fetchWait is how long a broker may hold a fetch that finds nothing. A
	// partition that is resumed waits for it, so it is well below the default.
	fetchWait = 500 * time.Millisecond
	// commitTimeout bounds the commits at a revoke and at the end.
	commitTimeout = 10 * time.Second
)

// Poller is one member of the consumer group. Make it with New; Run it once.
type Poller struct {
	opts      Options
	log       *slog.Logger
	metrics   *metrics
	signaller signaller
	kafkaOpts []kgo.Opt

	client  *kgo.Client
	total   budget
	sched   *scheduler
	acks    *acker
	letters *letters
	valve   *valve
	commits *committer
	work    context.Context // ends when draining has ended
	workers sync.WaitGroup  // everything that ends with work

	mu          sync.Mutex
	assignments map[int32]*assignment

	built  chan struct{} // closed when client is set: callbacks may come before
	joined atomic.Bool
}

// New validates o and returns a Poller that has touched nothing yet.
func New(o Options) (*Poller, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	access, err := o.Kafka.Opts()
	if err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	p := &Poller{
		opts: o, log: o.Logger, metrics: newMetrics(o.Registerer),
		signaller: signaller{o.Temporal, o.TaskQueue}, assignments: map[int32]*assignment{}, built: make(chan struct{}),
	}
	p.kafkaOpts = slices.Concat(access, o.KafkaOpts)
	if err := kgo.ValidateOpts(slices.Concat(p.consumerOpts(), p.kafkaOpts)...); err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	return p, nil
}

func (p *Poller) consumerOpts() []kgo.Opt {
	o := p.opts
	opts := []kgo.Opt{
		kgo.ConsumerGroup(o.Group),
		kgo.ConsumeTopics(o.Topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.MetadataMinAge(500 * time.Millisecond), // how soon a partition is tried again after an error; default 5 s
		kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(int32(o.FetchBytes)),
		kgo.FetchMaxPartitionBytes(1 << 20),
		kgo.FetchMaxWait(fetchWait),
		kgo.MaxConcurrentFetches(4),
		kgo.MaxDecompressBatchBytes(4 * o.FetchBytes),
		kgo.OnPartitionsAssigned(p.assigned),
		kgo.OnPartitionsRevoked(p.revoked),
		kgo.OnPartitionsLost(p.lost),
	}
	if o.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(o.InstanceID))
	}
	return opts
}

// Run consumes until ctx ends, then drains: it fetches no more, sends what it
// has folded, waits for the acks up to the drain timeout, commits, and leaves
// the group. It returns nil then, also where the timeout passed: what was left
// is not committed, and is applied by the next owner.
func (p *Poller) Run(ctx context.Context) error {
	if err := p.wait(ctx); ctx.Err() != nil {
		return nil
	} else if err != nil {
		return err
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if err := p.build(work); err != nil {
		return err
	}
	for _, run := range []func(context.Context){p.acks.run, p.letters.run, p.commits.run, p.tick} {
		p.workers.Go(func() { run(work) })
	}
	err := p.poll(ctx)
	p.drain()
	stop()
	p.client.CloseAllowingRebalance()
	p.workers.Wait()
	return err
}

// wait uses a client of its own: the group is joined only when what is needed
// to make progress is there.
func (p *Poller) wait(ctx context.Context) error {
	cl, err := kgo.NewClient(p.kafkaOpts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	return kafka.Wait(ctx, cl, p.log, p.opts.Topic, p.opts.DeadLetterTopic)
}

func (p *Poller) build(work context.Context) error {
	p.work = work
	o := p.opts
	p.sched = &scheduler{window: o.Window, launch: p.launch}
	p.acks = &acker{
		acks: o.Acks, min: o.AckMin, max: o.AckMax, timeout: o.AckTimeout, log: p.log, metrics: p.metrics,
		land: p.land, drop: p.drop, send: func(f *flight) { p.workers.Go(func() { p.send(f) }) },
		flights: map[*flight]struct{}{}, wake: make(chan struct{}, 1),
	}
	partition := func(n int32) map[string][]int32 { return map[string][]int32{o.Topic: {n}} }
	p.valve = &valve{
		partitionBytes: o.PartitionBytes, partitionRecords: o.PartitionRecords, total: &p.total, totalBytes: int64(o.TotalBytes),
		pause:    func(n int32) { p.client.PauseFetchPartitions(partition(n)) },
		resume:   func(n int32) { p.client.ResumeFetchPartitions(partition(n)) },
		paused:   func(n int) { p.metrics.paused.Set(float64(n)) },
		adjusted: map[int32]*gate{},
	}
	p.letters = &letters{
		produce: func(ctx context.Context, rs ...*kgo.Record) kgo.ProduceResults {
			return p.client.ProduceSync(ctx, rs...)
		},
		buried: p.buried, log: p.log, metrics: p.metrics, wake: make(chan struct{}, 1),
	}
	p.commits = &committer{
		topic: o.Topic, interval: o.CommitInterval, records: int64(o.CommitRecords), assignments: p.owned,
		log: p.log, metrics: p.metrics, trigger: make(chan struct{}, 1),
	}
	own := kprom.NewMetrics("rollcall_poller", kprom.Subsystem("kafka"), kprom.Registerer(o.Registerer))
	cl, err := kgo.NewClient(slices.Concat(p.consumerOpts(), []kgo.Opt{kgo.WithHooks(own)}, p.kafkaOpts)...)
	if err != nil {
		return fmt.Errorf("poller: Kafka client: %w", err)
	}
	p.client, p.commits.client = cl, cl
	close(p.built)
	return nil
}

// poll never waits for a worker or a sink: what it polls is decoded, folded and
// held, and the valve stops the fetching when too much is.
func (p *Poller) poll(ctx context.Context) error {
	for {
		fetches := p.client.PollRecords(ctx, pollRecords)
		if fetches.IsClientClosed() {
			return errors.New("poller: the Kafka client was closed")
		}
		if ctx.Err() != nil {
			p.client.AllowRebalance()
			return nil
		}
		p.take(fetches)
		p.client.AllowRebalance()
	}
}

// take decodes in parallel, a partition at a time, and in order within it.
func (p *Poller) take(fetches kgo.Fetches) {
	records, ends := map[int32][]*kgo.Record{}, map[int32]int64{}
	fetches.EachPartition(func(tp kgo.FetchTopicPartition) {
		records[tp.Partition] = append(records[tp.Partition], tp.Records...)
		ends[tp.Partition] = max(ends[tp.Partition], tp.HighWatermark)
	})
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for partition, rs := range records {
		if a := p.assignment(partition); a != nil && len(rs) > 0 {
			g.Go(func() error {
				in := make([]incoming, len(rs))
				for i, r := range rs {
					in[i] = decode(r)
				}
				p.accept(a, in, ends[partition])
				return nil
			})
		}
	}
	_ = g.Wait() // no error is ever returned
	fetches.EachError(func(_ string, partition int32, err error) {
		var large *kgo.ErrDecompressTooLarge
		switch {
		case errors.As(err, &large):
			p.skip(large)
		case !errors.Is(err, context.Canceled):
			p.log.Warn("fetch failed, the client tries again", "partition", partition, "err", err)
		}
	})
}

func (p *Poller) accept(a *assignment, in []incoming, end int64) {
	p.metrics.records.Add(float64(len(in)))
	ready, letters, rewinds := a.add(in, end, func(i incoming) *kgo.Record {
		return kafka.DeadLetter(p.opts.DeadLetterTopic, i.record, string(i.bad.Cause), i.bad.Detail)
	})
	if rewinds > 0 {
		p.metrics.rewinds.Add(float64(rewinds))
		p.log.Error("offsets went back: was the topic cut or made again? What is at offsets that were applied before is taken for applied",
			"partition", a.partition, "records", rewinds)
	}
	p.valve.adjust(a)
	p.letters.post(letters...)
	p.sched.offer(ready...)
}

// skip dead-letters a producer's batch that would not fit memory. Its value
// stays where it is, in Kafka, and the letter says where that is. The client
// can skip only in a partition that it knows a position of: a bomb that is the
// very first batch of a group without a commit is passed at the next start.
func (p *Poller) skip(e *kgo.ErrDecompressTooLarge) {
	a := p.assignment(e.Partition)
	if a == nil {
		return
	}
	r := &kgo.Record{Topic: e.Topic, Partition: e.Partition, Offset: e.NextOffset - 1, LeaderEpoch: e.Epoch, Timestamp: time.Now()}
	bad := &device.Invalid{Cause: kafka.ReasonDecompress, Detail: fmt.Sprintf("offsets %d to %d: %v", e.Offset, e.NextOffset-1, e)}
	p.accept(a, []incoming{{record: r, bad: bad}}, e.NextOffset)
	p.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{e.Topic: {e.Partition: {Epoch: e.Epoch, Offset: e.NextOffset}}})
}

// buried is called when a dead letter's produce was acknowledged.
func (p *Poller) buried(l *letter) {
	if l.a.buried(l) {
		p.completed(l.a, 1)
	}
}

func (p *Poller) assignment(partition int32) *assignment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.assignments[partition]
}

// owned returns the assignments that are not yet let go.
func (p *Poller) owned() []*assignment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.assignments))
}

// tick keeps gauges, and lets stopped lanes try again.
func (p *Poller) tick(ctx context.Context) {
	t := time.NewTicker(min(time.Second, p.opts.StopRetry))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			stopped := 0
			for _, a := range p.owned() {
				ready, n := a.retry(now)
				p.sched.offer(ready...)
				stopped += n
				p.metrics.lag.WithLabelValues(label(a.partition)).Set(float64(a.load().lag))
			}
			flying, ready := p.sched.counts()
			p.metrics.stopped.Set(float64(stopped))
			p.metrics.inFlight.Set(float64(flying))
			p.metrics.ready.Set(float64(ready))
			p.metrics.buffered.Set(float64(p.total.bytes.Load()))
		}
	}
}

// Ready is nil when the poller has joined its group; else it says why not.
func (p *Poller) Ready() error {
	if !p.joined.Load() {
		return errors.New("poller has not joined its consumer group")
	}
	return nil
}
