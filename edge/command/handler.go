package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// Defaults of Options.
const (
	DefaultBurst    = 3
	DefaultInterval = 10 * time.Second
)

// Registry is what a Handler needs of a registry.Registry.
type Registry interface {
	Answered(id string) (device.Reply, bool)
	HasSession(session string) bool
	SnapshotNow(ctx context.Context, c device.Command) (device.Reply, error)
	Answer(ctx context.Context, reply device.Reply, until time.Time) error
}

// Options of a Handler.
type Options struct {
	// RAE is the serial of this RAE. Required.
	RAE string
	// Registry is required.
	Registry Registry
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer

	// Burst is how many snapshots of one session may be asked for at once,
	// and Interval the time in which it may be asked for one more. A higher
	// rate costs traffic; a lower one lets a gap wait. Defaults DefaultBurst
	// and DefaultInterval.
	Burst    int
	Interval time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Handler answers commands. Handle is called by one goroutine.
type Handler struct {
	o       Options
	limit   *limiter
	metrics *metrics
}

// New validates the options.
func New(o Options) (*Handler, error) {
	if o.Registry == nil || o.Logger == nil {
		return nil, errors.New("command: Registry and Logger are required")
	}
	if err := device.CheckRAE(o.RAE); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if o.Burst <= 0 {
		o.Burst = DefaultBurst
	}
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	h := &Handler{o: o, limit: newLimiter(o.Burst, o.Interval)}
	var err error
	h.metrics, err = newMetrics(o.Registerer)
	return h, err
}

// Close takes the metrics back.
func (h *Handler) Close() { h.metrics.unregister() }

// Handle answers one message that came on topic. When it returns nil the
// message is dealt with: its answer is on disk, or it can have none. After an
// error nothing has changed, and the message must be given again.
func (h *Handler) Handle(ctx context.Context, topic string, payload []byte) error {
	c, err := device.DecodeCommand(topic, payload)
	if err == nil && c.RAE != h.o.RAE {
		err = fmt.Errorf("it is for RAE %s", c.RAE)
	}
	if err != nil {
		// Whom to answer is not known, or not to be believed.
		h.metrics.count(resultInvalid)
		h.o.Logger.Warn("command ignored: it breaks the contract", "topic", topic, "err", err)
		return nil
	}
	result, reply, err := h.answer(ctx, c)
	if errors.Is(err, registry.ErrOutboxFull) && c.Expired(h.o.Now()) {
		h.metrics.count(resultDropped)
		h.o.Logger.Warn("command expired before its answer had room in the outbox", "session", c.Session, "command", c.ID)
		return nil
	}
	if err != nil {
		return err
	}
	h.metrics.count(result)
	h.o.Logger.Info("command answered", "session", c.Session, "command", c.ID, "source", c.Source, "action", c.Action, "outcome", reply.Outcome, "seq", reply.SnapshotSeq(), "repeated", result == resultRepeated)
	return nil
}

// answer decides, and returns when the reply is on disk.
func (h *Handler) answer(ctx context.Context, c device.Command) (result string, _ device.Reply, err error) {
	if reply, ok := h.o.Registry.Answered(c.ID); ok {
		return resultRepeated, reply, h.o.Registry.Answer(ctx, reply, c.Expires)
	}
	now := h.o.Now()
	spec, known := device.SpecOfAction(c.Action)
	switch {
	case c.Expired(now):
		return h.reply(ctx, c, device.Expired, fmt.Sprintf("it is %s here", now.UTC().Format(time.RFC3339)))
	case !h.o.Registry.HasSession(c.Session):
		return h.reply(ctx, c, device.UnknownSession, "")
	case !known || c.Action != device.ActionSnapshot:
		return h.reply(ctx, c, device.Unsupported, fmt.Sprintf("this RAE does not know the action %q", c.Action))
	}
	if err := spec.CheckArguments(c.Arguments); err != nil {
		return h.reply(ctx, c, device.Refused, err.Error())
	}
	if wait := h.limit.wait(c.Session, now); wait > 0 {
		return h.reply(ctx, c, device.Refused, fmt.Sprintf("too many commands for this session: ask again in %s", wait.Round(100*time.Millisecond)))
	}
	reply, err := h.o.Registry.SnapshotNow(ctx, c)
	switch {
	case errors.Is(err, registry.ErrUnknownSession): // closed since
		return h.reply(ctx, c, device.UnknownSession, "")
	case errors.Is(err, registry.ErrTooManyAnswers):
		return h.reply(ctx, c, device.Refused, "too many commands for this RAE have not expired: ask again later")
	case err == nil:
		h.limit.take(c.Session, now)
	}
	return string(device.Done), reply, err
}

func (h *Handler) reply(ctx context.Context, c device.Command, outcome device.Outcome, detail string) (string, device.Reply, error) {
	reply := device.Reply{
		Command: c.ID, RAE: c.RAE, Session: c.Session, Action: c.Action, Outcome: outcome, Detail: detail,
		Time: h.o.Now().UTC().Truncate(time.Millisecond),
	}
	return string(outcome), reply, h.o.Registry.Answer(ctx, reply, c.Expires)
}
