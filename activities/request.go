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

// RequestSnapshot asks the session's edge for a snapshot. It does not wait for
// the reply. Done again for the same request it sends the same command, which
// the edge does once.
func (a *Activities) RequestSnapshot(ctx context.Context, in workflows.SnapshotRequest) (workflows.SnapshotRequestResult, error) {
	if a.commands == nil {
		return workflows.SnapshotRequestResult{Outcome: workflows.RequestDisabled, Detail: "this worker has no Kafka to send commands to"}, nil
	}
	session, err := uuid.Parse(in.Session)
	if err != nil {
		return workflows.SnapshotRequestResult{}, fmt.Errorf("request a snapshot of session %q: %w", in.Session, err)
	}
	now := a.now()
	if wait := a.limit.take(now); wait > 0 {
		return workflows.SnapshotRequestResult{Outcome: workflows.RequestDeferred, Wait: wait, Detail: "this worker asks for no more snapshots just now"}, nil
	}
	now = now.UTC().Truncate(time.Millisecond)
	c := device.Command{
		ID: uuid.NewSHA1(session, []byte(in.Nonce)).String(), Source: device.CommandSource("session"), RAE: in.RAE, Session: in.Session,
		Action: device.ActionSnapshot, Time: now, Expires: now.Add(min(max(in.Life, time.Second), device.MaxCommandLife)), Reason: in.Reason,
	}
	begun := time.Now()
	if err := a.commands.Send(ctx, c); err != nil {
		a.observe(workflows.ActivityRequestSnapshot, "error", begun)
		return workflows.SnapshotRequestResult{}, fmt.Errorf("request a snapshot of session %s: %w", in.Session, err)
	}
	a.observe(workflows.ActivityRequestSnapshot, "ok", begun)
	return workflows.SnapshotRequestResult{Outcome: workflows.RequestSent, Command: c.ID, Expires: c.Expires}, nil
}

// limiter lets so many through in a second. Who comes too early is told when to
// come again, each a little after the one before: what waits does not come back
// at once, however much it is.
//
// Both clocks run ahead of time by what they have given away: taken by the
// requests that were let through, promised by those that were sent off.
type limiter struct {
	mu              sync.Mutex
	step            time.Duration // between two
	taken, promised time.Time
}

const limitBurst = time.Second

func newLimiter(rate float64) *limiter {
	return &limiter{step: time.Duration(float64(time.Second) / rate)}
}

// take returns 0, or after how long to try again.
func (l *limiter) take(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from := now.Add(-max(limitBurst, l.step)); l.taken.Before(from) {
		l.taken = from
	}
	if next := l.taken.Add(l.step); !next.After(now) {
		l.taken = next
		return 0
	}
	if l.promised.Before(now) {
		l.promised = now
	}
	// The line may be longer than anybody waits for; its end is then shared.
	l.promised = l.promised.Add(l.step)
	if most := now.Add(device.MaxCommandLife); l.promised.After(most) {
		l.promised = most
	}
	return max(l.promised.Sub(now), time.Second)
}
