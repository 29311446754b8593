package activities

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Commands sends commands to edges.
type Commands interface {
	// Send returns nil when Kafka has the command.
	Send(ctx context.Context, c device.Command) error
}

// RequestSnapshot sends the session's edge a command for a snapshot, and does not
// wait for the reply. A request that is repeated sends the same command, which the
// edge does once.
func (a *Activities) RequestSnapshot(ctx context.Context, in workflows.SnapshotRequest) (workflows.SnapshotRequestResult, error) {
	if a.commands == nil {
		return workflows.SnapshotRequestResult{Outcome: workflows.RequestDisabled, Detail: "this worker has no Kafka to send commands to"}, nil
	}
	session, err := uuid.Parse(in.Session)
	if err != nil {
		return workflows.SnapshotRequestResult{}, fmt.Errorf("request a snapshot of session %q: %w", in.Session, err)
	}
	now := a.now()
	if wait := a.rateLimit.take(now); wait > 0 {
		return workflows.SnapshotRequestResult{Outcome: workflows.RequestDeferred, Wait: wait, Detail: "this worker's rate limit for snapshot requests is reached"}, nil
	}
	now = now.UTC().Truncate(time.Millisecond)
	c := device.Command{
		ID: uuid.NewSHA1(session, []byte(in.Nonce)).String(), Source: device.CommandSource("session"), RAE: in.RAE, Session: in.Session,
		Action: device.ActionSnapshot, Time: now, Expires: now.Add(min(max(in.Life, time.Second), device.MaxCommandLife)), Reason: in.Reason,
	}
	began := time.Now()
	if err := a.commands.Send(ctx, c); err != nil {
		a.observe(workflows.ActivityRequestSnapshot, "error", began)
		return workflows.SnapshotRequestResult{}, fmt.Errorf("request a snapshot of session %s: %w", in.Session, err)
	}
	a.observe(workflows.ActivityRequestSnapshot, "ok", began)
	return workflows.SnapshotRequestResult{Outcome: workflows.RequestSent, Command: c.ID, Expires: c.Expires}, nil
}

// rateLimiter allows a number of requests in a second. It tells each request beyond
// that when to come again, and each a different time: what has to wait does not come
// back at once, however much it is.
//
// Both clocks run ahead of the time by what they have given away: taken by the
// requests that were allowed, promised by those that were deferred.
type rateLimiter struct {
	mu              sync.Mutex
	interval        time.Duration // between two requests
	taken, promised time.Time
}

// rateBurst is how many seconds' worth of requests are allowed at once.
const rateBurst = time.Second

func newRateLimiter(rate float64) *rateLimiter {
	return &rateLimiter{interval: time.Duration(float64(time.Second) / rate)}
}

// take returns 0 where the request is allowed, else after how long to come again.
func (l *rateLimiter) take(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from := now.Add(-max(rateBurst, l.interval)); l.taken.Before(from) {
		l.taken = from
	}
	if next := l.taken.Add(l.interval); !next.After(now) {
		l.taken = next
		return 0
	}
	if l.promised.Before(now) {
		l.promised = now
	}
	// Nobody waits for longer than a command may live: the requests beyond that
	// share the last place.
	l.promised = l.promised.Add(l.interval)
	if most := now.Add(device.MaxCommandLife); l.promised.After(most) {
		l.promised = most
	}
	return max(l.promised.Sub(now), time.Second)
}
