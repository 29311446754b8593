package device

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Kafka topics of the platform.
const (
	KafkaEvents      = "rollcall.device-events"
	KafkaDeadLetters = "rollcall.device-events.dlq"
	KafkaCommands    = "rollcall.device-commands"
	KafkaReplies     = "rollcall.device-replies"
)

// MQTT topic filters that a bridge subscribes to.
const (
	FilterEvents   = topicRoot + "/+/sessions/+/" + KindEvents
	FilterReplies  = topicRoot + "/+/sessions/+/" + KindReplies
	FilterPresence = topicRoot + "/+/" + kindPresence
)

// Last level of a session's topics.
const (
	KindEvents   = "events"   // edge to cloud: every event type of a session, because one topic is one Kafka key is one order
	KindCommands = "commands" // cloud to edge
	KindReplies  = "replies"  // edge to cloud
)

const (
	topicRoot    = "rollcall/v1"
	kindPresence = "presence"

	// maxTopicPart bounds a RAE serial, in bytes. An MQTT topic may have
	// 65,535 bytes; nobody prints such a serial on a box.
	maxTopicPart = 128
)

// Topic is an MQTT topic of one session, taken apart.
type Topic struct {
	RAE     string // serial of the RAE
	Session string // device session UUID
	Kind    string // KindEvents, KindCommands or KindReplies
}

// SessionTopic returns rollcall/v1/{rae}/sessions/{session}/{kind}. It refuses
// a part that MQTT would read as something else.
func SessionTopic(rae, session, kind string) (string, error) {
	if err := CheckRAE(rae); err != nil {
		return "", err
	}
	if err := CheckSession(session); err != nil {
		return "", err
	}
	switch kind {
	case KindEvents, KindCommands, KindReplies:
	default:
		return "", fmt.Errorf("topic kind %q is not one of events, commands, replies", kind)
	}
	return topicRoot + "/" + rae + "/sessions/" + session + "/" + kind, nil
}

// PresenceTopic returns rollcall/v1/{rae}/presence, which holds the RAE's
// retained birth message and its will.
func PresenceTopic(rae string) (string, error) {
	if err := CheckRAE(rae); err != nil {
		return "", err
	}
	return topicRoot + "/" + rae + "/" + kindPresence, nil
}

// ParseTopic takes a session topic apart. It is the inverse of SessionTopic.
func ParseTopic(topic string) (Topic, error) {
	p := strings.Split(topic, "/")
	if len(p) != 6 || p[0]+"/"+p[1] != topicRoot || p[3] != "sessions" {
		return Topic{}, fmt.Errorf("topic %q is not %s/{rae}/sessions/{session}/{events|commands|replies}", clip(topic), topicRoot)
	}
	t := Topic{RAE: p[2], Session: p[4], Kind: p[5]}
	if _, err := SessionTopic(t.RAE, t.Session, t.Kind); err != nil {
		return Topic{}, fmt.Errorf("topic %q: %w", clip(topic), err)
	}
	return t, nil
}

// CheckRAE reports why serial cannot be a level of an MQTT topic, or nil.
func CheckRAE(serial string) error {
	switch {
	case serial == "":
		return fmt.Errorf("RAE serial is empty")
	case len(serial) > maxTopicPart:
		return fmt.Errorf("RAE serial has %d bytes, more than %d", len(serial), maxTopicPart)
	case !utf8.ValidString(serial):
		return fmt.Errorf("RAE serial %q is not UTF-8", serial)
	case strings.ContainsAny(serial, "/+#"):
		return fmt.Errorf("RAE serial %q holds one of / + #", serial)
	case strings.ContainsFunc(serial, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		return fmt.Errorf("RAE serial %q holds white space or a control character", serial)
	}
	return nil
}

// CheckSession reports why id is not a device session identifier, or nil. A
// session identifier is a UUID in its canonical lower-case form (RFC 9562).
func CheckSession(id string) error {
	u, err := uuid.Parse(id)
	if err != nil || u.String() != id || u == uuid.Nil {
		return fmt.Errorf("session %q is not a lower-case UUID", clip(id))
	}
	return nil
}

// WorkflowID is the identifier of the session's workflow.
func WorkflowID(session string) string { return "device-session-" + session }

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
