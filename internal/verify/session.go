package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// maxAsked is how many snapshots of a session are asked for where it changes
// all the time: as many as its RAE gives at once.
const maxAsked = 3

// session verifies one.
func (v *Verifier) session(ctx context.Context, s Session) Result {
	for asked := 1; ; asked++ {
		// Why there is none, the look afterwards says.
		before, _ := v.state(ctx, s.ID)
		a := v.ask(ctx, s)
		r, again := judge(s, before, a, v.look(ctx, s, a))
		if !again || ctx.Err() != nil {
			return r
		}
		if asked == maxAsked {
			r.cannotAsk("edge: the device changed so fast that %d snapshots came with changes behind them, and none could be compared", asked)
			r.conclude()
			return r
		}
	}
}

// Pauses between two questions to an edge, which doubles, and between two looks
// at the cloud.
const (
	askFirst  = time.Second
	askMost   = 10 * time.Second
	lookFirst = 20 * time.Millisecond
	lookMost  = time.Second
)

// ask has the edge send a snapshot.
func (v *Verifier) ask(ctx context.Context, s Session) answer {
	switch {
	case v.o.Edge == nil || s.Closed:
		return answer{}
	case v.isSilent(s.RAE):
		return answer{silence: fmt.Sprintf("not asked: RAE %s did not reply for another session", s.RAE)}
	}
	ctx, cancel := context.WithTimeout(ctx, v.o.Timeout)
	defer cancel()
	wait, last := askFirst, ""
	for {
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
			pause(ctx, &wait, askMost)
		case !lost:
			return answer{silence: err.Error()}
		}
		if ctx.Err() != nil {
			v.replied(s.RAE, last != "")
			if last == "" {
				last = "it is offline, or its commands do not reach it"
			}
			return answer{silence: fmt.Sprintf("no snapshot within %s; %s", v.o.Timeout, last)}
		}
	}
}

const (
	// queryFor bounds one question to a workflow, and tries how often one is
	// asked that does not answer.
	queryFor = 10 * time.Second
	tries    = 3
	// lagging is when a workflow is asked whether it has a snapshot that the
	// database does not have; before that the database alone is asked, which
	// costs less and knows it first.
	lagging = 5 * time.Second
	// standing is how long workflow and database must both stand still, each
	// with other events applied, to count as different: longer than an upsert
	// whose answer was lost takes to be tried again.
	standing = 10 * time.Second
)

// look returns the first moment, with the snapshot applied that was asked for,
// at which workflow and database have applied the same events; or that at which
// they have stood still for long without.
func (v *Verifier) look(ctx context.Context, s Session, a answer) moment {
	ctx, cancel := context.WithTimeout(ctx, v.o.Timeout)
	defer cancel()
	begun := time.Now()
	var last mark
	since, failures, wait := begun, 0, lookFirst
	for {
		m, err := v.lookOnce(ctx, s, a, time.Since(begun))
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
			if failures++; failures == tries || ctx.Err() != nil {
				return moment{failed: err.Error()}
			}
		case m.absent, complete && (m.workflow == nil || m.same()):
			return m
		case time.Since(since) > standing && max(now.databaseSnapshot, now.snapshot) >= a.seq:
			return m
		}
		if pause(ctx, &wait, lookMost); ctx.Err() != nil {
			return moment{failed: v.inVain(a, now)}
		}
	}
}

// mark is how far both sides have come.
type mark struct{ asOf, snapshot, databaseAsOf, databaseSnapshot int64 }

func (m moment) mark() mark {
	out := mark{databaseAsOf: m.database.AsOf, databaseSnapshot: m.database.Snapshot}
	if m.workflow != nil {
		out.asOf, out.snapshot = m.workflow.AsOf, m.workflow.Snapshot
	}
	return out
}

// inVain says what look waited for.
func (v *Verifier) inVain(a answer, m mark) string {
	if m.databaseSnapshot < a.seq {
		return fmt.Sprintf("cloud: the snapshot that the RAE sent at seq %d was not applied within %s: is there a backlog, or no poller or worker?", a.seq, v.o.Timeout)
	}
	return fmt.Sprintf("cloud: within %s, workflow and database were never seen with the same events applied", v.o.Timeout)
}

// lookOnce looks at both sides. It leaves the workflow out, as if there were
// none, while it cannot have what is waited for.
func (v *Verifier) lookOnce(ctx context.Context, s Session, a answer, waited time.Duration) (moment, error) {
	var m moment
	stored, err := v.o.Database.Load(ctx, s.ID)
	if err != nil {
		return m, fmt.Errorf("database: %w", err)
	}
	m.database, m.absent = stored.State, !stored.Found
	if m.absent || m.database.Snapshot < a.seq && waited < lagging {
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
	ctx, cancel := context.WithTimeoutCause(ctx, queryFor, fmt.Errorf("no answer within %s: does a worker run?", queryFor))
	defer cancel()
	w, err := v.o.Workflows.State(ctx, session)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return w, err
}

// pause waits for about wait, and doubles it up to most, or until ctx ends.
func pause(ctx context.Context, wait *time.Duration, most time.Duration) {
	t := time.NewTimer(*wait/2 + rand.N(*wait/2+1))
	defer t.Stop()
	*wait = min(2**wait, most)
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
