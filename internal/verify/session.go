package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

// maxSnapshots is how many snapshots of a session are asked for where it changes
// all the time: as many as its RAE gives at once.
const maxSnapshots = 3

// session verifies one.
func (v *Verifier) session(ctx context.Context, s Session) Result {
	for asked := 1; ; asked++ {
		// If there is none, look says why.
		before, _ := v.state(ctx, s.ID)
		a := v.ask(ctx, s)
		r, again := compare(s, before, a, v.look(ctx, s, a))
		if !again || ctx.Err() != nil {
			return r
		}
		if asked == maxSnapshots {
			r.cannotAsk("edge: the device changed so fast that %d snapshots came with changes behind them, and none could be compared", asked)
			r.conclude()
			return r
		}
	}
}

var (
	askBackoff  = retry.Backoff{First: time.Second, Max: 10 * time.Second}      // between two questions to an edge
	pollBackoff = retry.Backoff{First: 20 * time.Millisecond, Max: time.Second} // between two reads of the cloud
)

// ask has the edge send a snapshot.
func (v *Verifier) ask(ctx context.Context, s Session) answer {
	switch {
	case v.o.Edge == nil || s.Closed:
		return answer{}
	case v.isSilent(s.RAE):
		return answer{noReply: fmt.Sprintf("not asked: RAE %s did not reply for another session", s.RAE)}
	}
	ctx, cancel := context.WithTimeout(ctx, v.o.Timeout)
	defer cancel()
	last := ""
	for n := 0; ; n++ {
		once, cancel := context.WithTimeout(ctx, CommandLife)
		reply, err := v.o.Edge.Snapshot(once, s)
		lost := once.Err() != nil
		cancel()
		switch {
		case err == nil && reply.Outcome == device.Done:
			v.replied(s.RAE, true)
			return answer{seq: reply.SnapshotSeq()}
		case err == nil && reply.Outcome == device.UnknownSession:
			v.replied(s.RAE, true)
			return answer{unknown: true}
		case err == nil: // refused or expired
			last = fmt.Sprintf("%s: %s", reply.Outcome, reply.Detail)
			_ = askBackoff.Sleep(ctx, n)
		case !lost:
			return answer{noReply: err.Error()}
		}
		if ctx.Err() != nil {
			v.replied(s.RAE, last != "")
			if last == "" {
				last = "it is offline, or its commands do not reach it"
			}
			return answer{noReply: fmt.Sprintf("no snapshot within %s; %s", v.o.Timeout, last)}
		}
	}
}

const (
	// queryTimeout bounds one question to a workflow; after maxQueryFailures in a
	// row its session is unreachable.
	queryTimeout     = 10 * time.Second
	maxQueryFailures = 3
	// askWorkflowAfter is when a workflow is asked whether it has a snapshot that
	// the database does not have. Until then the database alone is asked, which
	// costs less and has it first.
	askWorkflowAfter = 5 * time.Second
	// stalledAfter is how long workflow and database must both not move, each with
	// other events applied, to count as different: longer than it takes to try an
	// upsert again whose answer was lost.
	stalledAfter = 10 * time.Second
)

// look reads workflow and database until both have applied the snapshot that was
// asked for and the same events, or have not moved for stalledAfter, and returns
// what they had then.
func (v *Verifier) look(ctx context.Context, s Session, a answer) sample {
	ctx, cancel := context.WithTimeout(ctx, v.o.Timeout)
	defer cancel()
	begun := time.Now()
	var last mark
	since, failures := begun, 0
	for n := 0; ; n++ {
		m, err := v.sampleOnce(ctx, s, a, time.Since(begun))
		now := m.mark()
		if err == nil {
			failures = 0
			if now != last {
				last, since = now, time.Now()
			}
		}
		complete := now.databaseSnapshot >= a.seq && (!a.unknown || m.database.Closed > 0)
		switch {
		case err != nil:
			if failures++; failures == maxQueryFailures || ctx.Err() != nil {
				return sample{failed: err.Error()}
			}
		case m.absent, complete && (m.workflow == nil || m.same()):
			return m
		case time.Since(since) > stalledAfter && max(now.databaseSnapshot, now.snapshot) >= a.seq:
			return m
		}
		if pollBackoff.Sleep(ctx, n) != nil {
			return sample{failed: v.timeoutText(a, now)}
		}
	}
}

// mark is how far both sides have come.
type mark struct{ asOf, snapshot, databaseAsOf, databaseSnapshot int64 }

func (m sample) mark() mark {
	out := mark{databaseAsOf: m.database.AsOf, databaseSnapshot: m.database.Snapshot}
	if m.workflow != nil {
		out.asOf, out.snapshot = m.workflow.AsOf, m.workflow.Snapshot
	}
	return out
}

// timeoutText says what look did not see within Timeout.
func (v *Verifier) timeoutText(a answer, m mark) string {
	if m.databaseSnapshot < a.seq {
		return fmt.Sprintf("cloud: the snapshot that the RAE sent at seq %d was not applied within %s: is there a backlog, or no poller or worker?", a.seq, v.o.Timeout)
	}
	return fmt.Sprintf("cloud: within %s, workflow and database were never seen with the same events applied", v.o.Timeout)
}

// sampleOnce reads both sides. It leaves the workflow out, as if there were none,
// while it cannot have what is waited for.
func (v *Verifier) sampleOnce(ctx context.Context, s Session, a answer, waited time.Duration) (sample, error) {
	var m sample
	stored, err := v.o.Database.Load(ctx, s.ID)
	if err != nil {
		return m, fmt.Errorf("database: %w", err)
	}
	m.database, m.absent = stored.State, !stored.Found
	if m.absent || m.database.Snapshot < a.seq && waited < askWorkflowAfter {
		return m, nil
	}
	w, err := v.state(ctx, s.ID)
	if errors.Is(err, ErrGone) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("workflow: %w", err)
	}
	m.workflow = &w
	return m, nil
}

func (v *Verifier) state(ctx context.Context, session string) (State, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, queryTimeout, fmt.Errorf("no answer within %s: does a worker run?", queryTimeout))
	defer cancel()
	w, err := v.o.Workflows.State(ctx, session)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return w, err
}
