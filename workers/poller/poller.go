package poller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

const (
	// restartCalm is how long a consumer has to last to begin the back-off anew.
	restartCalm = time.Minute
	// turnSlack is how long a turn of the poll loop may take beside what a
	// rebalance may, before the loop is taken for stuck.
	turnSlack = 30 * time.Second
	// stallAfter is how long nothing may be done while something is to do,
	// before the poller is not ready.
	stallAfter = 30 * time.Second
)

// restartBackoff is between two lives of the consumer.
var restartBackoff = retry.Backoff{First: 500 * time.Millisecond, Max: 30 * time.Second}

// Poller is one member of the consumer group. Make it with New; Run it once.
type Poller struct {
	opts      Options
	log       *slog.Logger
	metrics   *metrics
	signaller signaller
	kafkaOpts []kgo.Opt
	oversized *kafka.Oversized

	ledger       *ledger
	topicMetrics *kafka.TopicMetrics
	anew         kafka.Anew
	topics       atomic.Pointer[kafka.TopicWatch] // of the present consumer

	tally        tally
	draining     chan struct{} // closed by Drain
	once         sync.Once
	report       atomic.Pointer[DrainReport]
	joined       atomic.Bool
	lastTurn     atomic.Int64               // when the poll loop last turned, unix ns; 0: it does not run
	lastProgress atomic.Int64               // when something was last done or nothing was to do, unix ns
	behind       atomic.Int64               // records to do, as of the last tick
	lastFetch    atomic.Int64               // when a broker last answered a fetch or none was due, unix ns
	asking       atomic.Pointer[kgo.Client] // of Ping, while Run runs
}

// New validates o and returns a Poller that has touched nothing yet.
func New(o Options) (*Poller, error) {
	o.setDefaults()
	if err := errors.Join(o.missing(), o.check()); err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	access, err := o.Kafka.Opts()
	if err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	p := &Poller{
		opts: o, log: o.Logger, metrics: newMetrics(o.Registerer), topicMetrics: kafka.NewTopicMetrics(o.Registerer, "rollcall_poller"),
		signaller: signaller{o.Temporal, o.TaskQueue}, draining: make(chan struct{}),
	}
	p.ledger = newLedger(o.Budgets, func(budget string, n int) { p.metrics.overBudget.WithLabelValues(budget).Add(float64(n)) })
	p.kafkaOpts = slices.Concat(access, o.KafkaOpts)
	if p.oversized, err = kafka.NewOversized(expansion*o.FetchBytes, access...); err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	if err := kgo.ValidateOpts(slices.Concat(newConsumer(p).clientOpts(), p.kafkaOpts)...); err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	return p, nil
}

// Run consumes until ctx ends or Drain is called, then drains: it fetches no
// more, sends what it has folded, waits for the acks up to the drain timeout,
// commits, and leaves the group. It returns nil then, also where the timeout
// passed: what was left is not committed, and is applied by the next owner.
// DrainReport tells. When the Kafka client fails for good, a new one takes its
// place, after a back-off: Run returns no error of an outage.
func (p *Poller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	asking, err := kgo.NewClient(p.kafkaOpts...)
	if err != nil {
		return fmt.Errorf("poller: Kafka client: %w", err)
	}
	defer asking.Close()
	p.asking.Store(asking)
	// The group is joined only when what is needed to make progress is there.
	if err := kafka.Wait(ctx, asking, p.log, p.opts.Topic, p.opts.DeadLetterTopic); err != nil && ctx.Err() == nil {
		return err
	}
	for n := 0; ctx.Err() == nil; n++ {
		born := time.Now()
		err := newConsumer(p).run(ctx)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errRecreated) {
			continue
		}
		if time.Since(born) >= restartCalm {
			n = 0
		}
		pause := restartBackoff.Delay(n)
		p.metrics.restarts.Inc()
		p.log.Error("the Kafka client failed for good, a new one takes its place", "err", err, "retry_in", pause)
		_ = retry.Sleep(ctx, pause) // the loop looks at ctx
	}
	if p.report.Load() == nil { // there was nothing to drain
		p.reportDrain([]Left{}, 0, nil)
	}
	return nil
}

// Drain makes Run drain and return, as the end of its context does. It returns
// at once, and may be called at any time and more than once.
func (p *Poller) Drain() { p.once.Do(func() { close(p.draining) }) }

// Ready is nil when the poller has joined its group, its fetches are answered, and
// it is caught up or working; else it says why not.
func (p *Poller) Ready() error {
	if w := p.topics.Load(); w != nil {
		if err := w.Ready(); err != nil {
			return err
		}
	}
	if !p.joined.Load() {
		return errors.New("poller has not joined its consumer group")
	}
	if err := p.fetching(); err != nil {
		return err
	}
	idle := time.Since(time.Unix(0, p.lastProgress.Load()))
	if n := p.behind.Load(); n > 0 && idle > stallAfter {
		return fmt.Errorf("nothing was applied for %s, and %d records are to do", idle.Round(time.Second), n)
	}
	return nil
}

// Alive is nil while the poll loop turns, whatever it can reach; else it says
// for how long it has not. Before the loop begins, and while the consumer is
// built anew, there is none to turn.
func (p *Poller) Alive() error {
	last := p.lastTurn.Load()
	if last == 0 {
		return nil
	}
	if since := time.Since(time.Unix(0, last)); since > turnSlack+p.opts.RevokeTimeout+2*commitTimeout {
		return fmt.Errorf("the poll loop has not turned for %s", since.Round(time.Second))
	}
	return nil
}
