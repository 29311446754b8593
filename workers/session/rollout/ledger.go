package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// Known tells which events need not be applied again: *store.Store.
type Known interface {
	Known(ctx context.Context, sessions []string) (map[string]device.SeqSet, error)
}

// Ledger compares what Kafka holds with what the database has. It knows nothing
// of Temporal, whose work it checks.
type Ledger struct {
	// Kafka, Topic and Group are the poller's. Defaults: device.KafkaEvents,
	// and the poller's own. KafkaOpts are appended.
	Kafka     kafka.Options
	KafkaOpts []kgo.Opt
	Topic     string
	Group     string
	// Database. Required.
	Database Known
	// Patience is how long the database may lag behind Kafka before what it
	// lacks counts as lost. Default 2 min.
	Patience time.Duration

	from map[int32]int64
}

// Proof is what the ledger found.
type Proof struct {
	// Records were read from Kafka: from what the poller's group had committed
	// when the roll began, to what the topic held when the last session had
	// moved. Nothing before was in flight.
	Records int64 `json:"records"`
	// Events are the different ones among them, of Sessions sessions.
	Events   int64 `json:"events"`
	Sessions int   `json:"sessions"`
	// Undecodable records are no events: dead letters.
	Undecodable int64 `json:"undecodable"`
	// Lost are events that the database neither has applied, nor covers with a
	// snapshot, nor refuses because they are past the session's close.
	Lost             int64 `json:"lost"`
	SessionsWithLoss int   `json:"sessions_with_loss"`
	// LostSessions are the first of them.
	LostSessions []Lost `json:"lost_sessions,omitempty"`
}

// Lost is what a session lacks.
type Lost struct {
	Session string        `json:"session_id"`
	Seqs    device.SeqSet `json:"seqs"`
}

const maxLost = 20

func (l *Ledger) validate() error {
	if l.Database == nil {
		return errors.New("roll: no database to compare with")
	}
	l.Topic, l.Group = cmp.Or(l.Topic, device.KafkaEvents), cmp.Or(l.Group, "rollcall-poller")
	l.Patience = cmp.Or(l.Patience, 2*time.Minute)
	return nil
}

func (l *Ledger) open(extra ...kgo.Opt) (*kgo.Client, error) {
	opts, err := l.Kafka.Opts()
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(slices.Concat(opts, l.KafkaOpts, extra)...)
}

// begin notes what is committed: everything from there on may be in flight.
func (l *Ledger) begin(ctx context.Context) error {
	if err := l.validate(); err != nil {
		return err
	}
	_, err := l.bounds(ctx, func(admin *kadm.Client) (err error) {
		starts, err := admin.ListStartOffsets(ctx, l.Topic)
		if err == nil {
			err = starts.Error()
		}
		if err != nil {
			return err
		}
		committed, err := admin.FetchOffsets(ctx, l.Group)
		if err != nil && len(committed) == 0 {
			committed = nil // the group has committed nothing yet
		}
		l.from = map[int32]int64{}
		starts.Each(func(o kadm.ListedOffset) {
			l.from[o.Partition] = o.Offset
			if c, ok := committed.Lookup(l.Topic, o.Partition); ok && c.Err == nil {
				l.from[o.Partition] = max(o.Offset, c.At)
			}
		})
		return nil
	})
	return err
}

// bounds lists the end of each partition, after ask had its turn.
func (l *Ledger) bounds(ctx context.Context, ask func(*kadm.Client) error) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no answer from Kafka within 30 s"))
	defer cancel()
	cl, err := l.open()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	if err := ask(admin); err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", l.Topic, errors.Join(context.Cause(ctx), kafka.Explain(err)))
	}
	ends, err := admin.ListCommittedOffsets(ctx, l.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", l.Topic, errors.Join(context.Cause(ctx), kafka.Explain(err)))
	}
	out := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}

// awaitApplied reads what came in, and waits until the database has it.
func (l *Ledger) awaitApplied(ctx context.Context) (Proof, error) {
	ends, err := l.bounds(ctx, func(*kadm.Client) error { return nil })
	if err != nil {
		return Proof{}, err
	}
	var p Proof
	produced := map[string]device.SeqSet{}
	err = l.read(ctx, ends, func(r *kgo.Record) {
		p.Records++
		e, err := device.DecodeRecord(string(r.Key), r.Value)
		if err != nil {
			p.Undecodable++
			return
		}
		produced[e.Session] = produced[e.Session].Union(device.SeqSet{{From: e.Seq, To: e.Seq}})
	})
	if err != nil {
		return p, err
	}
	for _, seqs := range produced {
		p.Events += seqs.Len()
	}
	p.Sessions = len(produced)
	return p, l.compare(ctx, produced, &p)
}

// read calls f for each record from where the roll began to ends.
func (l *Ledger) read(ctx context.Context, ends map[int32]int64, f func(*kgo.Record)) error {
	from := map[int32]kgo.Offset{}
	for partition, end := range ends {
		if at := l.from[partition]; at < end {
			from[partition] = kgo.NewOffset().At(at)
		}
	}
	if len(from) == 0 {
		return nil
	}
	cl, err := l.open(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.Topic: from}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), // the last record may be one
		kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(1<<20), kgo.MaxConcurrentFetches(1), kgo.MaxDecompressBatchBytes(64<<20),
		kgo.FetchMaxWait(500*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(from) > 0 {
		polling, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no answer from Kafka within 30 s"))
		fetches := cl.PollRecords(polling, 10_000)
		err := fetches.Err()
		cause := context.Cause(polling)
		cancel()
		if err != nil {
			return fmt.Errorf("read %s: %w", l.Topic, errors.Join(cause, kafka.Explain(err)))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < ends[r.Partition] && !r.Attrs.IsControl() {
				f(r)
			}
			if r.Offset >= ends[r.Partition]-1 {
				delete(from, r.Partition)
			}
		})
	}
	return nil
}

// compare asks the database about the sessions until it has all that was
// produced, or patience is over.
func (l *Ledger) compare(ctx context.Context, produced map[string]device.SeqSet, p *Proof) error {
	const chunk = 500
	left := slices.Sorted(maps.Keys(produced))
	lacks := map[string]device.SeqSet{}
	for deadline := time.Now().Add(l.Patience); ; {
		clear(lacks)
		for ids := range slices.Chunk(left, chunk) {
			known, err := l.Database.Known(ctx, ids)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if missing := without(produced[id], known[id]); len(missing) > 0 {
					lacks[id] = missing
				}
			}
		}
		left = slices.Sorted(maps.Keys(lacks))
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
		if err := retry.Sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	p.SessionsWithLoss = len(left)
	for _, id := range left {
		p.Lost += lacks[id].Len()
		if len(p.LostSessions) < maxLost {
			p.LostSessions = append(p.LostSessions, Lost{Session: id, Seqs: lacks[id]})
		}
	}
	return nil
}

// without returns the members of s that are not in o.
func without(s, o device.SeqSet) device.SeqSet {
	var out device.SeqSet
	for _, r := range s {
		next := r.From
		for _, h := range o {
			if h.To < next {
				continue
			}
			if h.From > r.To {
				break
			}
			if h.From > next {
				out = append(out, device.Range{From: next, To: h.From - 1})
			}
			next = h.To + 1
		}
		if next <= r.To {
			out = append(out, device.Range{From: next, To: r.To})
		}
	}
	return out
}
