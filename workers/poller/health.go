package poller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// fetchStale is how long no broker may answer a fetch. Each answers within
// fetchWait, with or without records.
const fetchStale = 15 * time.Second

// Ping returns nil when Kafka answers and has the topics with leaders; else what
// is missing. Its client is not the consumer's: that the consumer gets on is for
// Ready to say.
func (p *Poller) Ping(ctx context.Context) error {
	cl := p.asking.Load()
	if cl == nil {
		return errors.New("poller does not run")
	}
	return kafka.Check(ctx, cl, p.opts.Topic, p.opts.DeadLetterTopic)
}

// fetching is nil while brokers answer the fetches, or none is due.
func (p *Poller) fetching() error {
	if idle := time.Since(time.Unix(0, p.lastFetch.Load())); idle > fetchStale {
		return fmt.Errorf("no broker has answered a fetch for %s", idle.Round(time.Second))
	}
	return nil
}

// noteIdle notes that no fetch is due: no partition is ours, or some are paused.
func (p *consumer) noteIdle(now time.Time) {
	if len(p.owned()) == 0 || p.valve.shut() {
		p.lastFetch.Store(now.UnixNano())
	}
}
