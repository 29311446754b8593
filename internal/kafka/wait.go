package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Backoff is how long to wait before try n (from 0) of something that an
// outage fails: base doubled each time up to most, then a random half of it
// taken off, so that what failed together does not come back together.
func Backoff(n int, base, most time.Duration) time.Duration {
	d := most
	if n < 30 && base<<n < most {
		d = base << n
	}
	return d/2 + rand.N(d/2+1)
}

// Sleep waits for d, or returns ctx's error if that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Wait returns when the cluster answers and has all topics, or with ctx's
// error. Until then it tries again with jittered back-off, and says what it
// waits for and what to do: services start in any order.
func Wait(ctx context.Context, cl *kgo.Client, log *slog.Logger, topics ...string) error {
	for n := 0; ; n++ {
		err := check(ctx, cl, topics)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("waiting for Kafka", "err", err, "brokers", cl.OptValue(kgo.SeedBrokers))
		if err := Sleep(ctx, Backoff(n, 250*time.Millisecond, 15*time.Second)); err != nil {
			return err
		}
	}
}

func check(ctx context.Context, cl *kgo.Client, topics []string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	details, err := kadm.NewClient(cl).ListTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("brokers do not answer: %w", Explain(err))
	}
	var missing []string
	for _, t := range topics {
		if d, ok := details[t]; !ok || d.Err != nil || len(d.Partitions) == 0 {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("topics do not exist, or may not be described: %s (create them)", strings.Join(missing, ", "))
	}
	return nil
}
