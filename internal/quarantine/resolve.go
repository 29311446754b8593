package quarantine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka/replay"
	"github.com/rollcall-platform/rollcall/internal/resolve"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// Source is where the records of batches are. An error that wraps ErrGone is
// about one batch; any other would meet the next batch too.
type Source interface {
	// Count returns how many records the batch has, all of them.
	Count(ctx context.Context, q store.QuarantinedBatch) (int, error)
	// Replay produces them once more, and returns how many when all are
	// acknowledged.
	Replay(ctx context.Context, q store.QuarantinedBatch) (int, error)
}

// Kafka is the Source of a platform that runs.
type Kafka struct {
	Log *replay.Log
	// Topic is the events'. A batch of another topic is ErrGone: nobody reads
	// what would be replayed there.
	Topic string
}

func (k Kafka) checkTopic(q store.QuarantinedBatch) error {
	if q.Topic != "" && q.Topic != k.Topic {
		return fmt.Errorf("%w: they are of topic %q, which is not the events' (--topic)", ErrGone, q.Topic)
	}
	return nil
}

// Count implements Source.
func (k Kafka) Count(ctx context.Context, q store.QuarantinedBatch) (n int, err error) {
	if err := k.checkTopic(q); err != nil {
		return 0, err
	}
	err = Each(ctx, k.Log, q, func(*kgo.Record) error { n++; return nil })
	return n, err
}

// Replay implements Source.
func (k Kafka) Replay(ctx context.Context, q store.QuarantinedBatch) (int, error) {
	if err := k.checkTopic(q); err != nil {
		return 0, err
	}
	return Replay(ctx, k.Log, q)
}

// Database keeps what became of batches.
type Database interface {
	ResolveQuarantine(ctx context.Context, ids []string, by, outcome string) error
}

// Resolver replays or drops batches. All fields are required.
type Resolver struct {
	Resolution resolve.Resolution
	Source     Source // of a replay; a drop reads nothing
	Database   Database
	By         string        // who decided
	Timeout    time.Duration // for the database to take a mark
	// Refused is told of each batch that is left as it was, and why.
	Refused func(q store.QuarantinedBatch, why error)
}

// Report counts what became of batches, or would. It implements resolve.Report.
type Report struct {
	Done      int      `json:"done"`
	Records   int      `json:"records,omitempty"`
	Remaining []string `json:"left,omitempty"` // IDs of batches that stay as they were
}

// Left implements resolve.Report.
func (r Report) Left() int { return len(r.Remaining) }

// Plan is what can be done, as Report counts it. It implements resolve.Plan.
type Plan struct {
	Batches []store.QuarantinedBatch // that it can be done to
	Report
}

// Able implements resolve.Plan.
func (p Plan) Able() int { return len(p.Batches) }

func (r *Resolver) leave(to *Report, q store.QuarantinedBatch, why error) {
	to.Remaining = append(to.Remaining, q.ID)
	r.Refused(q, why)
}

// Plan looks which of the batches can be resolved. It changes nothing.
func (r *Resolver) Plan(ctx context.Context, batches []store.QuarantinedBatch) (Plan, error) {
	var p Plan
	for _, q := range batches {
		n, err := 0, error(nil)
		if r.Resolution == resolve.Replayed {
			n, err = r.Source.Count(ctx, q)
		}
		switch {
		case errors.Is(err, ErrGone):
			r.leave(&p.Report, q, err)
		case err != nil:
			return p, err
		default:
			p.Batches = append(p.Batches, q)
			p.Done, p.Records = p.Done+1, p.Records+n
		}
	}
	return p, nil
}

// Resolve does what was planned, batch by batch, and marks each behind it. What
// is done stays done when a later one fails.
func (r *Resolver) Resolve(ctx context.Context, p Plan) (Report, error) {
	out := Report{Remaining: p.Remaining}
	for _, q := range p.Batches {
		n, err := r.resolve(ctx, q)
		if err == nil {
			out.Done, out.Records = out.Done+1, out.Records+n
			continue
		}
		if r.leave(&out, q, err); !errors.Is(err, ErrGone) {
			return out, err
		}
	}
	return out, nil
}

func (r *Resolver) resolve(ctx context.Context, q store.QuarantinedBatch) (n int, err error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if r.Resolution == resolve.Replayed {
		if n, err = r.Source.Replay(ctx, q); err != nil {
			return n, err
		}
	}
	// The batch is replayed: its mark is due, also when ctx has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Timeout)
	defer cancel()
	return n, r.Database.ResolveQuarantine(ctx, []string{q.ID}, r.By, string(r.Resolution))
}

// ResolvedBefore returns an error for each batch that was replayed or dropped
// before, joined, or nil.
func ResolvedBefore(batches []store.QuarantinedBatch) error {
	var before []error
	for _, q := range batches {
		if q.Outcome != "" {
			before = append(before, fmt.Errorf("%s was %s by %q at %s; --again does it once more", q.ID, q.Outcome, q.ResolvedBy, q.ResolvedAt.UTC().Format(time.RFC3339)))
		}
	}
	return errors.Join(before...)
}
