package device

import "fmt"

// Cause is why bytes can never become an event, a command or a reply. It is a dead letter's reason
// header and the value of a metric's label: keep the set small and its words
// stable.
type Cause string

// Causes.
const (
	TooLarge      Cause = "too-large"      // more than MaxEventBytes
	NotUTF8       Cause = "not-utf8"       // invalid UTF-8
	NotJSON       Cause = "not-json"       // does not parse
	NotCloudEvent Cause = "not-cloudevent" // JSON, but not CloudEvents 1.0 with our data
	UnknownType   Cause = "unknown-type"   // a CloudEvent that is not ours
	BadSubject    Cause = "bad-subject"    // id, source, subject or partitionkey that make no session
	TopicMismatch Cause = "topic-mismatch" // the topic names another RAE or session, or none
	BadSeq        Cause = "bad-seq"        // seq below 1, too high, or not what the type allows
	BadTime       Cause = "bad-time"       // a time no calendar in use has
	BadAttribute  Cause = "bad-attribute"  // a name, value or count outside the limits
	BadSnapshot   Cause = "bad-snapshot"   // count, hash or seqs that contradict themselves
	HasNUL        Cause = "nul"            // a NUL character in a string
	BadCommand    Cause = "bad-command"    // of a command or reply: an id, source, outcome or text outside the contract
)

// Causes are all of them.
var Causes = []Cause{TooLarge, NotUTF8, NotJSON, NotCloudEvent, UnknownType, BadSubject, TopicMismatch, BadSeq, BadTime, BadAttribute, BadSnapshot, HasNUL, BadCommand}

// Invalid is the error of the Decode and Encode functions for an event, a
// command or a reply that breaks the contract. Trying again cannot help.
type Invalid struct {
	Cause  Cause
	Detail string
}

// Error implements error.
func (e *Invalid) Error() string { return string(e.Cause) + ": " + e.Detail }

func invalid(c Cause, format string, args ...any) *Invalid {
	return &Invalid{Cause: c, Detail: fmt.Sprintf(format, args...)}
}
