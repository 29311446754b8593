package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

const (
	// heldAfter is how long a poll must be open to count as one that the server
	// holds: one that nobody takes fails sooner.
	heldAfter = time.Second
	// quietAfter is how long a worker may have no poll that the server holds
	// before it is not ready: all its slots are taken, and none gets free.
	quietAfter = 30 * time.Second
)

// Polls watches the long polls for workflow tasks that a client sends: a worker
// that has started takes tasks only while the server answers them.
type Polls struct {
	now func() time.Time

	mu     sync.Mutex
	open   map[*time.Time]struct{} // when each that is open began
	good   time.Time               // when the server last answered one, or Polls began
	failed time.Time               // when one last failed
	err    error                   // by what
}

// NewPolls returns a Polls that has seen none.
func NewPolls() *Polls {
	return &Polls{now: time.Now, open: map[*time.Time]struct{}{}, failed: time.Now(), err: errors.New("none yet")}
}

// Intercept is a grpc.UnaryClientInterceptor for the client's DialOptions.
func (p *Polls) Intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !strings.HasSuffix(method, "/PollWorkflowTaskQueue") {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	begun := p.begin()
	err := invoke(ctx, method, req, reply, cc, opts...)
	if errors.Is(ctx.Err(), context.Canceled) { // the worker stops
		p.end(begun, nil, false)
	} else {
		p.end(begun, err, true)
	}
	return err
}

func (p *Polls) begin() *time.Time {
	begun := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[&begun] = struct{}{}
	return &begun
}

func (p *Polls) end(begun *time.Time, err error, told bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, begun)
	switch {
	case !told:
	case err != nil:
		p.failed, p.err = p.now(), err
	default:
		p.good = p.now()
	}
}

// Ready is nil while the server holds a poll or has just answered one; else why
// the worker gets no tasks.
func (p *Polls) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for begun := range p.open {
		if now.Sub(*begun) >= heldAfter {
			return nil
		}
	}
	if p.failed.After(p.good) {
		return fmt.Errorf("polls for tasks fail, the last %s ago: %w", now.Sub(p.failed).Round(time.Second), p.err)
	}
	if idle := now.Sub(p.good); idle > quietAfter {
		return fmt.Errorf("no poll for tasks is open, for %s: every slot for workflow tasks is taken", idle.Round(time.Second))
	}
	return nil
}
