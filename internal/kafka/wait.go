package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

var backoff = retry.Backoff{First: 250 * time.Millisecond, Max: 15 * time.Second}

// Wait returns when the cluster answers and has all topics, or with ctx's
// error. Until then it tries again with jittered back-off, and says what it
// waits for and what to do: services start in any order.
func Wait(ctx context.Context, cl *kgo.Client, log *slog.Logger, topics ...string) error {
	for n := 0; ; n++ {
		_, err := describe(ctx, cl, topics)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("waiting for Kafka", "err", err, "brokers", cl.OptValue(kgo.SeedBrokers))
		if backoff.Sleep(ctx, n) != nil {
			return ctx.Err()
		}
	}
}

// Check returns nil when the cluster answers, has all topics, and every partition
// of them has a leader, which is what producing and fetching need; else what is
// missing.
func Check(ctx context.Context, cl *kgo.Client, topics ...string) error {
	details, err := describe(ctx, cl, topics)
	if err != nil {
		return err
	}
	for _, t := range topics {
		for _, p := range details[t].Partitions.Sorted() {
			if p.Err != nil || p.Leader < 0 {
				return fmt.Errorf("partition %d of topic %s has no leader", p.Partition, t)
			}
		}
	}
	return nil
}

// describe returns what the cluster says of the topics, all of which exist.
func describe(ctx context.Context, cl *kgo.Client, topics []string) (kadm.TopicDetails, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	details, err := kadm.NewClient(cl).ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("brokers do not answer: %w", Explain(err))
	}
	var missing []string
	for _, t := range topics {
		if d, ok := details[t]; !ok || d.Err != nil || len(d.Partitions) == 0 {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("topics do not exist, or may not be described: %s (create them)", strings.Join(missing, ", "))
	}
	return details, nil
}
