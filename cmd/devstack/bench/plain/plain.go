// Package plain is the consumer that a team would write first: franz-go, a
// goroutine a partition, one conditional upsert transaction a record, and a
// commit of offsets every 1,000 records or second. The benchmark measures the
// platform against it: it is what users would otherwise have.
//
// It is meant to be good of its kind. A transaction is one round trip, a
// revoked partition is finished before it is let go, an outage of the database
// is waited for, and replays change nothing, because every write is conditional
// on seq. Its tables have the shape of the platform's, attribute history
// included; it has no workflows, gaps, repairs, identities or dead letters.
package plain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Commit when either is reached.
const (
	commitRecords  = 1000
	commitInterval = time.Second
)

// Options of Run. All but the last two are required.
type Options struct {
	Brokers      []string
	Topic, Group string
	DatabaseURL  string

	// Batched makes all that a poll returned of a partition one transaction,
	// which is what the same team would write second. Default: one a record.
	Batched bool
	// Logger. Default slog.Default().
	Logger *slog.Logger
}

// Run makes the tables and consumes until ctx is cancelled.
func Run(ctx context.Context, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	config, err := pgxpool.ParseConfig(o.DatabaseURL)
	if err != nil {
		return fmt.Errorf("database URL: %w", err)
	}
	config.MaxConns = 16 // a partition uses one
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, schema); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	c := &consumer{options: o, pool: pool, log: o.Logger, partitions: map[int32]*partition{}}
	c.client, err = kgo.NewClient(
		kgo.SeedBrokers(o.Brokers...), kgo.ConsumeTopics(o.Topic), kgo.ConsumerGroup(o.Group),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(commitInterval), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(c.assigned), kgo.OnPartitionsRevoked(c.revoked), kgo.OnPartitionsLost(c.revoked),
	)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer c.client.CloseAllowingRebalance()
	return c.run(ctx)
}

type consumer struct {
	options Options
	client  *kgo.Client
	pool    *pgxpool.Pool
	log     *slog.Logger
	applied atomic.Int64 // since the last commit by count

	mu         sync.Mutex
	partitions map[int32]*partition
}

// partition is an assigned partition and the goroutine that works on it.
type partition struct {
	polled chan []*kgo.Record
	quit   context.CancelFunc
	done   chan struct{}
}

func (c *consumer) assigned(ctx context.Context, _ *kgo.Client, assigned map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range assigned[c.options.Topic] {
		ctx, quit := context.WithCancel(ctx)
		p := &partition{polled: make(chan []*kgo.Record, 2), quit: quit, done: make(chan struct{})}
		c.partitions[n] = p
		go c.work(ctx, p)
	}
}

func (c *consumer) revoked(ctx context.Context, client *kgo.Client, revoked map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range revoked[c.options.Topic] {
		if p := c.partitions[n]; p != nil {
			p.quit()
			<-p.done
			delete(c.partitions, n)
		}
	}
	if err := client.CommitMarkedOffsets(ctx); err != nil {
		c.log.Warn("commit at a rebalance failed", "err", err)
	}
}

func (c *consumer) run(ctx context.Context) error {
	for {
		fetches := c.client.PollRecords(ctx, 10_000)
		if ctx.Err() != nil {
			return nil
		}
		if fetches.IsClientClosed() {
			return errors.New("the Kafka client was closed")
		}
		fetches.EachError(func(_ string, partition int32, err error) {
			c.log.Warn("fetch failed", "partition", partition, "err", err)
		})
		fetches.EachPartition(func(tp kgo.FetchTopicPartition) {
			c.mu.Lock()
			p := c.partitions[tp.Partition]
			c.mu.Unlock()
			if p == nil || len(tp.Records) == 0 {
				return
			}
			select {
			case p.polled <- tp.Records: // back-pressure: the slowest partition holds the poll
			case <-p.done:
			case <-ctx.Done():
			}
		})
		c.client.AllowRebalance()
	}
}

// work applies what is polled of one partition, in order.
func (c *consumer) work(ctx context.Context, p *partition) {
	defer close(p.done)
	for {
		select {
		case <-ctx.Done():
			return
		case records := <-p.polled:
			for len(records) > 0 {
				n := 1
				if c.options.Batched {
					n = len(records)
				}
				if !c.apply(ctx, records[:n]) {
					return
				}
				c.client.MarkCommitRecords(records[n-1])
				if c.applied.Add(int64(n)) >= commitRecords {
					c.applied.Store(0)
					if err := c.client.CommitMarkedOffsets(ctx); err != nil {
						c.log.Warn("commit failed", "err", err)
					}
				}
				records = records[n:]
			}
		}
	}
}

// apply writes records in one transaction, and tries until that succeeds or
// the partition is revoked.
func (c *consumer) apply(ctx context.Context, records []*kgo.Record) bool {
	tx := &transaction{}
	for _, r := range records {
		e, err := device.DecodeRecord(string(r.Key), r.Value)
		if err != nil {
			c.log.Error("record skipped", "partition", r.Partition, "offset", r.Offset, "err", err)
			continue
		}
		tx.add(e, r.Timestamp)
	}
	for {
		err := tx.run(ctx, c.pool)
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(500 * time.Millisecond):
			c.log.Warn("apply failed, trying again", "err", err)
		}
	}
}
