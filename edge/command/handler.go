package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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
	RememberedReply(id string) (device.Reply, bool)
	HasSession(session string) bool
	Do(ctx context.Context, c device.Command, run func(*registry.CommandTxn) (result any, err error)) (device.Reply, error)
	Reply(ctx context.Context, reply device.Reply, until time.Time) error
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

	// Burst is how many commands for one session are done at once, and
	// Interval the time after which one more is. A higher rate costs traffic;
	// a lower one lets a gap wait. Defaults DefaultBurst and DefaultInterval.
	Burst    int
	Interval time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Handler answers commands. Not safe for concurrent use.
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

// Close unregisters the metrics.
func (h *Handler) Close() { h.metrics.unregister() }

// Handle answers one message that came on topic. When it returns nil the
// message is dealt with: its answer is on disk, or it can have none. After an
// error nothing has changed, and the message must be given again.
func (h *Handler) Handle(ctx context.Context, topic string, payload []byte) error {
	c, err := device.DecodeCommand(topic, payload)
	if err == nil && c.RAE != h.o.RAE {
		err = fmt.Errorf("it is for RAE %q", c.RAE)
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
	h.o.Logger.Info("command answered", "session", c.Session, "command", c.ID, "source", c.Source, "action", c.Action,
		"outcome", reply.Outcome, "detail", reply.Detail, "result", clip(string(reply.Result)), "repeated", result == resultRepeated)
	return nil
}

// answer decides what becomes of a command, and returns when the reply is on
// disk. Its result is the value of the metric's label.
func (h *Handler) answer(ctx context.Context, c device.Command) (result string, reply device.Reply, err error) {
	if reply, ok := h.o.Registry.RememberedReply(c.ID); ok {
		return resultRepeated, reply, h.o.Registry.Reply(ctx, reply, c.Expires)
	}
	now := h.o.Now()
	outcome, detail := h.admit(c, now)
	if outcome == device.Done {
		reply, outcome, detail, err = h.do(ctx, c)
		if err != nil {
			return "", device.Reply{}, err
		}
		if outcome == device.Done {
			h.limit.take(c.Session, now)
			return string(device.Done), reply, nil
		}
	}
	reply = device.Reply{
		Command: c.ID, RAE: c.RAE, Session: c.Session, Action: c.Action, Outcome: outcome, Detail: detail,
		Time: h.o.Now().UTC().Truncate(time.Millisecond),
	}
	return string(outcome), reply, h.o.Registry.Reply(ctx, reply, c.Expires)
}

// admit reports why a command is not done, or device.Done where it may be.
func (h *Handler) admit(c device.Command, now time.Time) (outcome device.Outcome, detail string) {
	if c.Expired(now) {
		return device.Expired, fmt.Sprintf("it is %s here", now.UTC().Format(time.RFC3339))
	}
	if !h.o.Registry.HasSession(c.Session) {
		return device.UnknownSession, ""
	}
	spec, known := device.SpecOfAction(c.Action)
	if !known || handlers[c.Action] == nil {
		return device.Unsupported, fmt.Sprintf("this RAE does not know the action %q", c.Action)
	}
	if err := spec.CheckArguments(c.Arguments); err != nil {
		return device.Refused, clip(err.Error())
	}
	if wait := h.limit.wait(c.Session, now); wait > 0 {
		return device.Refused, fmt.Sprintf("too many commands for this session: ask again in %s", wait.Round(100*time.Millisecond))
	}
	return device.Done, ""
}

// do runs the handler of the command's action. An outcome other than device.Done
// is to be answered; an error means that the command is to be given again.
func (h *Handler) do(ctx context.Context, c device.Command) (reply device.Reply, outcome device.Outcome, detail string, err error) {
	reply, err = h.o.Registry.Do(ctx, c, func(txn *registry.CommandTxn) (any, error) {
		return handlers[c.Action](txn, c.Arguments)
	})
	var invalid *device.Invalid
	switch {
	case err == nil:
		return reply, device.Done, "", nil
	case errors.Is(err, registry.ErrUnknownSession): // closed since
		return reply, device.UnknownSession, "", nil
	case errors.Is(err, registry.ErrTooManyReplies):
		return reply, device.Refused, "too many commands for this RAE have not expired: ask again later", nil
	case errors.As(err, &invalid):
		return reply, device.Refused, clip("the result breaks the contract: " + invalid.Error()), nil
	}
	return reply, "", "", err
}

// maxDetail bounds a reply's detail in bytes, well within the contract's limit.
const maxDetail = 512

// clip makes text that may quote a command fit for a reply's detail.
func clip(text string) string {
	if len(text) > maxDetail {
		text = text[:maxDetail]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
}
