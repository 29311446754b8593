package poller

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

// tally counts records over all lives of the consumer. Those that are done are
// counted under their assignment's lock: who sees nothing left to do sees all of
// it counted.
type tally struct{ fetched, applied, deadLettered, duplicates, handedOver atomic.Int64 }

// DrainReport says what became of the records of a Run. Fetched is the sum of Applied, DeadLettered,
// Duplicates, HandedOver and the records of Left, except where an ack came after
// its partition was let go.
type DrainReport struct {
	Fetched      int64 `json:"fetched"`
	Applied      int64 `json:"applied"`       // signalled, and in the database
	DeadLettered int64 `json:"dead_lettered"` // the produce is acknowledged
	Duplicates   int64 `json:"duplicates"`    // were in the database when they were fetched
	// HandedOver were fetched, and not done when their partition went to
	// another poller or the consumer was built anew.
	HandedOver int64 `json:"handed_over"`
	// Left is what the drain did not get done: the next owner reads it again.
	Left []Left `json:"left"`
	// TookSeconds is the time of the drain.
	TookSeconds float64 `json:"took_seconds"`
	// Complete says that nothing is left, and that this is committed.
	Complete bool `json:"complete"`
	// Error is that of the last commit.
	Error string `json:"error,omitempty"`
}

// Left is what is not done of a partition: the first and the last record, and
// how many there are. Between them may be records that are.
type Left struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"offset_from"`
	To        int64 `json:"offset_to"`
	Records   int   `json:"records"`
}

// DrainReport returns the report of Run. It is the zero DrainReport, and false,
// before Run has drained.
func (p *Poller) DrainReport() (DrainReport, bool) {
	if r := p.report.Load(); r != nil {
		return *r, true
	}
	return DrainReport{}, false
}

// reportDrain makes the report, shows it in the metrics and logs it.
func (p *Poller) reportDrain(left []Left, took time.Duration, err error) {
	r := DrainReport{
		Fetched: p.tally.fetched.Load(), Applied: p.tally.applied.Load(), DeadLettered: p.tally.deadLettered.Load(),
		Duplicates: p.tally.duplicates.Load(), HandedOver: p.tally.handedOver.Load(),
		Left: left, TookSeconds: took.Seconds(), Complete: len(left) == 0 && err == nil,
	}
	if err != nil {
		r.Error = err.Error()
	}
	outcome, records := drainComplete, 0
	if !r.Complete {
		outcome = drainDeadline
	}
	for _, l := range left {
		records += l.Records
	}
	p.metrics.drains.WithLabelValues(outcome).Inc()
	p.metrics.drainSeconds.Set(r.TookSeconds)
	p.metrics.drainLeft.Set(float64(records))
	p.report.Store(&r)
	p.log.Info("drained", "complete", r.Complete, "left_records", records, "took", took, "err", err)
}

// drain runs when the poll loop has ended. The client fetches no more, stays in
// the group and heartbeats, until all is done or the time is over.
func (p *consumer) drain() {
	start := time.Now()
	p.client.PauseFetchTopics(p.opts.Topic)
	ctx, cancel := context.WithTimeout(p.work, p.opts.DrainTimeout)
	defer cancel()
	for p.hasUndone() && ctx.Err() == nil {
		p.lastTurn.Store(time.Now().UnixNano())
		_ = retry.Sleep(ctx, p.opts.AckMin) // the loop looks at ctx
	}
	as := p.owned()
	ctx, cancel = context.WithTimeout(p.work, commitTimeout)
	defer cancel()
	err := p.commits.close(ctx, as)
	left := []Left{}
	for _, a := range p.release(as, false) { // a revoke may have been first: that was handed over
		if a.left.Records > 0 {
			left = append(left, a.left)
		}
	}
	slices.SortFunc(left, func(a, b Left) int { return cmp.Compare(a.Partition, b.Partition) })
	p.reportDrain(left, time.Since(start), err)
}

// hasUndone reports whether something fetched is not done.
func (p *consumer) hasUndone() bool {
	return slices.ContainsFunc(p.owned(), func(a *assignment) bool { return a.load().span > 0 })
}

// abandon gives up after cause, a fatal error: it commits what is done, if that can
// be, and hands over the rest. Of a topic that was made anew nothing is committed: a
// group's offsets are by the topic's name, and these are another log's.
func (p *consumer) abandon(cause error) {
	ctx, cancel := context.WithTimeout(p.work, commitTimeout)
	defer cancel()
	as := p.owned()
	if errors.Is(cause, errRecreated) {
		p.commits.lose(as)
	} else if err := p.commits.close(ctx, as); err != nil {
		p.log.Warn("commit after a fatal error failed: what was done is read again", "err", err)
	}
	p.release(as, true)
}
