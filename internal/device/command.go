package device

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Types of the two messages about a command, on the wire: rollcall.device.command.{action}.v1
// and rollcall.device.reply.v1.
const (
	typeCommandPrefix = typePrefix + "command."
	typeReply         = typePrefix + "reply" + typeSuffix
)

// Limits of commands and replies.
const (
	MaxCommandBytes = 8 << 10      // a command or a reply, encoded
	MaxCommandLife  = time.Hour    // from a command's time to its expiry
	maxCommandText  = 1 << 10      // bytes of a reason, a detail, a source
	replySuffix     = "/reply"     // of a reply's CloudEvents id
	sourcePrefix    = "/rae/"      // of what a RAE says
	commandSource   = "/rollcall/" // of what the cloud says
)

// Command is what the cloud asks of the edge, about one session.
//
// It is delivered at least once. The edge does what it asks at most once: it
// remembers the ID until Expires, and answers a repetition as before.
type Command struct {
	ID      string // UUID; a reply names it
	Source  string // who asks: /rollcall/{service}
	RAE     string
	Session string
	Action  Action
	// Arguments are a JSON object as the action's ActionSpec has it; nil: none.
	Arguments json.RawMessage
	Time      time.Time // when it was asked, to the millisecond
	Expires   time.Time // from then on nobody waits for it, nor may it be done; at most MaxCommandLife after Time
	Reason    string    // why, for people; may be empty
}

// CommandSource is the Source of a service's commands.
func CommandSource(service string) string { return commandSource + service }

// Outcome is what became of a command.
type Outcome string

// Outcomes.
const (
	Done           Outcome = "done"            // Reply.Result is what came of it
	Refused        Outcome = "refused"         // too many, ask again later with a new ID; or arguments that the action does not take
	Expired        Outcome = "expired"         // it came too late, by the clock of the RAE
	UnknownSession Outcome = "unknown-session" // the RAE has no such session: it is closed, or never was
	Unsupported    Outcome = "unsupported"     // the RAE's version does not know the action
)

// Reply is the edge's answer to a command.
type Reply struct {
	Command string // ID of the command
	RAE     string
	Session string
	Action  Action
	Outcome Outcome
	Detail  string // for people; may be empty
	// Result, of Done, is a JSON object as the action's ActionSpec has it; nil:
	// none.
	Result json.RawMessage
	Time   time.Time // when the edge decided, to the millisecond
}

type commandData struct {
	RAE       string          `json:"rae"`
	Session   string          `json:"session"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
	Expires   time.Time       `json:"expires"`
	Reason    string          `json:"reason,omitempty"`
}

type replyData struct {
	Command string          `json:"command"`
	Session string          `json:"session"`
	Action  Action          `json:"action"`
	Outcome Outcome         `json:"outcome"`
	Detail  string          `json:"detail,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
}

// Topic is the MQTT topic of the command, and its key in Kafka.
func (c Command) Topic() (string, error) { return SessionTopic(c.RAE, c.Session, KindCommands) }

// Topic is the MQTT topic of the reply, and its key in Kafka.
func (r Reply) Topic() (string, error) { return SessionTopic(r.RAE, r.Session, KindReplies) }

// Expired reports whether the command may no longer be done at now.
func (c Command) Expired(now time.Time) bool { return !now.Before(c.Expires) }

// Encode returns the command as structured JSON, or why it breaks the contract:
// the action must be in the table, and the arguments must be its.
func (c Command) Encode() ([]byte, error) {
	err := c.check()
	if err == nil {
		err = c.checkAction()
	}
	if err != nil {
		return nil, fmt.Errorf("command %s: %w", clip(c.ID), err)
	}
	return encodeMessage(c.ID, c.Source, typeCommandPrefix+string(c.Action)+typeSuffix, c.Session, c.Time,
		commandData{RAE: c.RAE, Session: c.Session, Arguments: c.Arguments, Expires: c.Expires, Reason: c.Reason})
}

// Encode returns the reply as structured JSON, or why it breaks the contract.
// Its CloudEvents id is that of the command with "/reply" behind it, so that an
// answer that is given again is a duplicate of the first.
func (r Reply) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("reply to command %s: %w", clip(r.Command), err)
	}
	return encodeMessage(r.Command+replySuffix, sourcePrefix+r.RAE, typeReply, r.Session, r.Time,
		replyData{Command: r.Command, Session: r.Session, Action: r.Action, Outcome: r.Outcome, Detail: r.Detail, Result: r.Result})
}

func encodeMessage(id, source, typ, session string, at time.Time, data any) ([]byte, error) {
	body, err := marshal(data)
	if err != nil {
		return nil, fmt.Errorf("message %s: %w", id, err)
	}
	b, err := marshal(envelope{
		SpecVersion: specVersion, ID: id, Source: source, Type: typ, Subject: session, Time: at,
		PartitionKey: session, ContentType: "application/json", Data: body,
	})
	if err != nil {
		return nil, fmt.Errorf("message %s: %w", id, err)
	}
	if len(b) > MaxCommandBytes {
		return nil, fmt.Errorf("message %s: %w", id, invalid(TooLarge, "%d bytes, more than %d", len(b), MaxCommandBytes))
	}
	return b, nil
}

// DecodeCommand reads a command that came on topic: the MQTT topic, or the key
// of a Kafka record. Unknown fields are ignored. The action may be one that the
// table lacks and its arguments may be wrong: what passes a command on need not
// know it, and the edge answers it. Every error is an *Invalid.
func DecodeCommand(topic string, b []byte) (Command, error) {
	var d commandData
	t, env, err := decodeMessage(topic, KindCommands, b, &d)
	if err != nil {
		return Command{}, err
	}
	action, ok := strings.CutPrefix(env.Type, typeCommandPrefix)
	action, ok2 := strings.CutSuffix(action, typeSuffix)
	if !ok || !ok2 || !Action(action).wellFormed() {
		return Command{}, invalid(UnknownType, "type %q is not %s{action}%s", clip(env.Type), typeCommandPrefix, typeSuffix)
	}
	c := Command{
		ID: env.ID, Source: env.Source, RAE: d.RAE, Session: d.Session, Action: Action(action), Arguments: present(d.Arguments),
		Time: millis(env.Time), Expires: millis(d.Expires), Reason: d.Reason,
	}
	if err := c.check(); err != nil {
		return Command{}, err
	}
	if env.Subject != c.Session {
		return Command{}, invalid(BadSubject, "subject %q is not the session", clip(env.Subject))
	}
	if c.RAE != t.RAE || c.Session != t.Session {
		return Command{}, invalid(TopicMismatch, "command for RAE %q session %s came on topic %q", clip(c.RAE), c.Session, topic)
	}
	return c, nil
}

// DecodeReply reads a reply that came on topic: the MQTT topic, or the key of a
// Kafka record. Unknown fields are ignored. Every error is an *Invalid.
func DecodeReply(topic string, b []byte) (Reply, error) {
	var d replyData
	t, env, err := decodeMessage(topic, KindReplies, b, &d)
	if err != nil {
		return Reply{}, err
	}
	if env.Type != typeReply {
		return Reply{}, invalid(UnknownType, "type %q is not %q", clip(env.Type), typeReply)
	}
	rae, ok := strings.CutPrefix(env.Source, sourcePrefix)
	if !ok {
		return Reply{}, invalid(BadSubject, "source %q is not /rae/{serial}", clip(env.Source))
	}
	r := Reply{
		Command: d.Command, RAE: rae, Session: d.Session, Action: d.Action, Outcome: d.Outcome, Detail: d.Detail,
		Result: present(d.Result), Time: millis(env.Time),
	}
	if err := r.check(); err != nil {
		return Reply{}, err
	}
	if env.ID != r.Command+replySuffix || env.Subject != r.Session {
		return Reply{}, invalid(BadSubject, "id %q or subject %q is not that of a reply to command %s", clip(env.ID), clip(env.Subject), r.Command)
	}
	if r.RAE != t.RAE || r.Session != t.Session {
		return Reply{}, invalid(TopicMismatch, "reply of RAE %q session %s came on topic %q", clip(r.RAE), r.Session, topic)
	}
	return r, nil
}

// present is raw, or nil where it is null.
func present(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" {
		return nil
	}
	return raw
}

func millis(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func decodeMessage(topic, kind string, b []byte, data any) (Topic, envelope, error) {
	var env envelope
	t, err := ParseTopic(topic)
	switch {
	case err != nil:
		return t, env, invalid(TopicMismatch, "%v", err)
	case t.Kind != kind:
		return t, env, invalid(TopicMismatch, "topic %q does not end in /%s", clip(topic), kind)
	case len(b) > MaxCommandBytes:
		return t, env, invalid(TooLarge, "%d bytes, more than %d", len(b), MaxCommandBytes)
	case !utf8.Valid(b):
		return t, env, invalid(NotUTF8, "the message is not UTF-8")
	case !json.Valid(b):
		return t, env, invalid(NotJSON, "the message is not JSON")
	}
	if err := json.Unmarshal(b, &env); err != nil {
		return t, env, invalid(NotCloudEvent, "%v", err)
	}
	if env.SpecVersion != specVersion {
		return t, env, invalid(NotCloudEvent, "specversion %q is not %q", clip(env.SpecVersion), specVersion)
	}
	if err := json.Unmarshal(env.Data, data); err != nil {
		return t, env, invalid(NotCloudEvent, "data: %v", err)
	}
	return t, env, nil
}

func (c Command) check() error {
	if err := checkCorrelation(c.ID, c.RAE, c.Session); err != nil {
		return err
	}
	if !c.Action.wellFormed() {
		return invalid(UnknownType, "action %q", clip(string(c.Action)))
	}
	if err := checkFields("argument", nil, c.Arguments, true); err != nil {
		return invalid(BadCommand, "%v", err)
	}
	if service, ok := strings.CutPrefix(c.Source, commandSource); !ok || service == "" || len(c.Source) > maxCommandText ||
		!utf8.ValidString(service) || strings.ContainsFunc(service, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return invalid(BadCommand, "source %q is not %s{service}", clip(c.Source), commandSource)
	}
	if y := c.Time.Year(); y < 1970 || y > 9999 {
		return invalid(BadTime, "time %s is not between the years 1970 and 9999", c.Time)
	}
	if life := c.Expires.Sub(c.Time); life <= 0 || life > MaxCommandLife {
		return invalid(BadTime, "expires %s is not within %s after time %s", c.Expires, MaxCommandLife, c.Time)
	}
	return checkText("reason", c.Reason)
}

func (r Reply) check() error {
	if err := checkCorrelation(r.Command, r.RAE, r.Session); err != nil {
		return err
	}
	switch r.Outcome {
	case Done, Refused, Expired, UnknownSession, Unsupported:
	default:
		return invalid(BadCommand, "outcome %q", clip(string(r.Outcome)))
	}
	if err := r.checkResult(); err != nil {
		return invalid(BadCommand, "%v", err)
	}
	if y := r.Time.Year(); y < 1970 || y > 9999 {
		return invalid(BadTime, "time %s is not between the years 1970 and 9999", r.Time)
	}
	return checkText("detail", r.Detail)
}

// checkAction holds the command against the table.
func (c Command) checkAction() error {
	spec, ok := SpecOfAction(c.Action)
	if !ok {
		return invalid(UnknownType, "action %q is not in the table of actions", clip(string(c.Action)))
	}
	if err := spec.CheckArguments(c.Arguments); err != nil {
		return invalid(BadCommand, "%s: %v", c.Action, err)
	}
	return nil
}

// checkResult holds the result against the action: of one that this side does
// not know it may be any object.
func (r Reply) checkResult() error {
	if !r.Action.wellFormed() {
		return fmt.Errorf("action %q", clip(string(r.Action)))
	}
	if r.Outcome != Done {
		if r.Result != nil {
			return fmt.Errorf("a reply with the outcome %s has no result", r.Outcome)
		}
		return nil
	}
	spec, _ := SpecOfAction(r.Action)
	return spec.CheckResult(r.Result)
}

func checkCorrelation(id, rae, session string) error {
	if CheckSession(id) != nil {
		return invalid(BadCommand, "command id %q is not a lower-case UUID", clip(id))
	}
	if err := CheckRAE(rae); err != nil {
		return invalid(BadSubject, "%v", err)
	}
	if err := CheckSession(session); err != nil {
		return invalid(BadSubject, "%v", err)
	}
	return nil
}

func checkText(name, s string) error {
	switch {
	case strings.ContainsRune(s, 0):
		return invalid(HasNUL, "%s holds a NUL", name)
	case len(s) > maxCommandText || !utf8.ValidString(s):
		return invalid(BadCommand, "%s has more than %d bytes, or is not UTF-8", name, maxCommandText)
	}
	return nil
}
