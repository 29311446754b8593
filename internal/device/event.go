package device

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Type is what kind of change an event tells of.
type Type string

// Event types. On the wire they read rollcall.device.{type}.v1.
const (
	Opened   Type = "opened"   // the session begins; always seq 1; attributes as in a delta
	Delta    Type = "delta"    // the attributes that changed; null removes
	Snapshot Type = "snapshot" // every attribute, with the seq that last changed it
	Closed   Type = "closed"   // the session ends; nothing follows
)

const (
	specVersion = "1.0"
	typePrefix  = "rollcall.device."
	typeSuffix  = ".v1"

	// MaxSeq is the highest sequence number: the last integer up to which
	// every JSON implementation counts exactly (RFC 8259 section 6).
	MaxSeq = 1<<53 - 1
)

// Event is one change of one device session.
type Event struct {
	RAE     string
	Session string
	Type    Type
	Seq     int64     // 1 to MaxSeq, gap-free within the session
	Time    time.Time // when it happened, to the millisecond
	// Seen is when the edge last observed the device, by the clock of what it
	// read, to the millisecond. Zero: see Observed.
	Seen time.Time

	// Attributes: of a delta and an opened, what changed, each with this
	// event's Seq and Time; a null value removes. Of a snapshot, all that
	// have a value, each with the Seq and At of its last change.
	Attributes map[string]Attribute

	Hash   string // of a snapshot: Hash(Attributes)
	Reason string // of a closed: why, for people
}

// Observed is when the edge had last observed the device: Seen; else of an opened
// and a delta their Time, for an observation made them; else unknown, the zero
// time, because an edge takes snapshots, and closes, by itself.
func (e Event) Observed() time.Time {
	if e.Seen.IsZero() && (e.Type == Opened || e.Type == Delta) {
		return e.Time
	}
	return e.Seen
}

// envelope is the CloudEvents 1.0 structured JSON form.
type envelope struct {
	SpecVersion  string          `json:"specversion"`
	ID           string          `json:"id"`
	Source       string          `json:"source"`
	Type         string          `json:"type"`
	Subject      string          `json:"subject"`
	Time         time.Time       `json:"time"`
	PartitionKey string          `json:"partitionkey"`
	ContentType  string          `json:"datacontenttype,omitempty"`
	Data         json.RawMessage `json:"data"`
}

// arrived is an envelope as it is read: data in the same pass, because reading
// is what a backlog costs most. What only one type of event has is left as it
// came, so that it cannot spoil the others.
type arrived struct {
	envelope
	Data struct {
		Seq        int64                      `json:"seq"`
		Attributes map[string]json.RawMessage `json:"attributes"`
		Reason     json.RawMessage            `json:"reason"`
		Count      json.RawMessage            `json:"count"`
		Hash       json.RawMessage            `json:"hash"`
		Seen       json.RawMessage            `json:"seen"`
	} `json:"data"`
}

type deltaData struct {
	Seq        int64                      `json:"seq"`
	Attributes map[string]json.RawMessage `json:"attributes,omitempty"`
	Reason     string                     `json:"reason,omitempty"`
	Seen       time.Time                  `json:"seen,omitzero"`
}

type snapshotData struct {
	Seq        int64                `json:"seq"`
	Count      int                  `json:"count"`
	Hash       string               `json:"hash"`
	Attributes map[string]Attribute `json:"attributes"`
	Seen       time.Time            `json:"seen,omitzero"`
}

// ID is the CloudEvents id, "{session}/{seq}".
func (e Event) ID() string { return e.Session + "/" + strconv.FormatInt(e.Seq, 10) }

// Encode returns the event as structured JSON, or why it breaks the contract.
// It sets nothing but what it is given: a snapshot's Hash is computed here.
func (e Event) Encode() ([]byte, error) {
	if e.Type == Snapshot {
		e.Hash = Hash(e.Attributes)
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("event %s: %w", e.ID(), err)
	}
	var data any
	if e.Type == Snapshot {
		data = snapshotData{Seq: e.Seq, Count: len(e.Attributes), Hash: e.Hash, Attributes: e.Attributes, Seen: e.Seen}
	} else {
		d := deltaData{Seq: e.Seq, Reason: e.Reason, Seen: e.Seen, Attributes: make(map[string]json.RawMessage, len(e.Attributes))}
		for name, a := range e.Attributes {
			d.Attributes[name] = a.Value
		}
		data = d
	}
	body, err := marshal(data)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", e.ID(), err)
	}
	b, err := marshal(envelope{
		SpecVersion: specVersion, ID: e.ID(), Source: "/rae/" + e.RAE, Type: typePrefix + string(e.Type) + typeSuffix,
		Subject: e.Session, Time: e.Time, PartitionKey: e.Session, ContentType: "application/json", Data: body,
	})
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", e.ID(), err)
	}
	if len(b) > MaxEventBytes {
		return nil, fmt.Errorf("event %s: %w", e.ID(), invalid(TooLarge, "%d bytes, more than %d", len(b), MaxEventBytes))
	}
	return b, nil
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode reads an event from structured JSON. Unknown fields are ignored.
// Every error is an *Invalid: the bytes can never become an event.
func Decode(b []byte) (Event, error) {
	if len(b) > MaxEventBytes {
		return Event{}, invalid(TooLarge, "%d bytes, more than %d", len(b), MaxEventBytes)
	}
	if !utf8.Valid(b) {
		return Event{}, invalid(NotUTF8, "the record is not UTF-8")
	}
	var env arrived
	err := json.Unmarshal(b, &env)
	switch unlike := (*json.UnmarshalTypeError)(nil); {
	case err == nil || errors.As(err, &unlike): // the rest was read all the same, and may say why it is unlike
	case errors.As(err, new(*json.SyntaxError)):
		return Event{}, invalid(NotJSON, "the record is not JSON: %v", err)
	default:
		return Event{}, invalid(NotCloudEvent, "%v", err)
	}
	if env.SpecVersion != specVersion {
		return Event{}, invalid(NotCloudEvent, "specversion %q is not %q", clip(env.SpecVersion), specVersion)
	}
	typ, ok := strings.CutPrefix(env.Type, typePrefix)
	typ, ok2 := strings.CutSuffix(typ, typeSuffix)
	e := Event{Session: env.Subject, Type: Type(typ), Time: env.Time.UTC().Truncate(time.Millisecond)}
	switch e.Type {
	case Opened, Delta, Snapshot, Closed:
	default:
		ok = false
	}
	if !ok || !ok2 {
		return Event{}, invalid(UnknownType, "type %q", clip(env.Type))
	}
	if err != nil {
		return Event{}, invalid(NotCloudEvent, "%v", err)
	}
	if e.RAE, ok = strings.CutPrefix(env.Source, "/rae/"); !ok {
		return Event{}, invalid(BadSubject, "source %q is not /rae/{serial}", clip(env.Source))
	}
	if err := e.decodeData(&env); err != nil {
		return Event{}, err
	}
	if err := e.check(); err != nil {
		return Event{}, err
	}
	if env.ID != e.ID() {
		return Event{}, invalid(BadSubject, "id %q is not %q", clip(env.ID), e.ID())
	}
	if env.PartitionKey != "" && env.PartitionKey != e.Session {
		return Event{}, invalid(BadSubject, "partitionkey %q is not the subject", clip(env.PartitionKey))
	}
	return e, nil
}

// DecodeRecord is Decode for a Kafka record: its key, the MQTT topic, must name
// the same RAE and session as the event. What a RAE may write is decided by its
// topic (the broker's ACL), so the topic is what is believed.
func DecodeRecord(topic string, value []byte) (Event, error) {
	t, err := ParseTopic(topic)
	if err != nil {
		return Event{}, invalid(TopicMismatch, "%v", err)
	}
	if t.Kind != KindEvents {
		return Event{}, invalid(TopicMismatch, "topic %q does not end in /%s", clip(topic), KindEvents)
	}
	e, err := Decode(value)
	if err != nil {
		return Event{}, err
	}
	if e.RAE != t.RAE || e.Session != t.Session {
		return Event{}, invalid(TopicMismatch, "event of RAE %q session %s came on topic %q", clip(e.RAE), e.Session, topic)
	}
	return e, nil
}

// MaxAhead is how far past the moment at which the cloud received it an event's own
// time may be. An edge's clock orders nothing; beyond this it is not shown either.
const MaxAhead = 10 * time.Minute

// ClampTimes sets the times of e, and of its attributes, that are more than MaxAhead
// past received to received, and reports whether there were any. It writes
// into e's map.
func (e *Event) ClampTimes(received time.Time) (clamped bool) {
	latest := received.Add(MaxAhead)
	if clamped = e.Time.After(latest); clamped {
		e.Time = received
	}
	if e.Seen.After(latest) {
		e.Seen, clamped = received, true
	}
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		if a := e.Attributes[name]; a.At.After(latest) {
			a.At, clamped = received, true
			e.Attributes[name] = a
		}
	}
	return clamped
}

func (e *Event) decodeData(env *arrived) error {
	data := &env.Data
	e.Seq, e.Attributes = data.Seq, make(map[string]Attribute, len(data.Attributes))
	if err := decodeField("seen", data.Seen, &e.Seen); err != nil {
		return err
	}
	if !e.Seen.IsZero() {
		e.Seen = e.Seen.UTC().Truncate(time.Millisecond)
	}
	if e.Type == Snapshot {
		return e.decodeSnapshot(env)
	}
	if err := decodeField("reason", data.Reason, &e.Reason); err != nil {
		return err
	}
	for name, value := range data.Attributes {
		v, err := canonicalValue(name, value)
		if err != nil {
			return err
		}
		e.Attributes[name] = Attribute{Value: v, Seq: e.Seq, At: e.Time}
	}
	return nil
}

func (e *Event) decodeSnapshot(env *arrived) error {
	var count int
	err := decodeField("count", env.Data.Count, &count)
	if err == nil {
		err = decodeField("hash", env.Data.Hash, &e.Hash)
	}
	if err != nil {
		return err
	}
	for name, raw := range env.Data.Attributes {
		var a Attribute
		if err := decodeField("attribute", raw, &a); err != nil {
			return err
		}
		if a.Value, err = canonicalValue(name, a.Value); err != nil {
			return err
		}
		a.At = a.At.UTC().Truncate(time.Millisecond)
		e.Attributes[name] = a
	}
	if count != len(e.Attributes) {
		return invalid(BadSnapshot, "count is %d, but there are %d attributes", count, len(e.Attributes))
	}
	return nil
}

func decodeField(name string, raw json.RawMessage, out any) error {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return invalid(NotCloudEvent, "data: %s: %v", name, err)
	}
	return nil
}

func canonicalValue(name string, value json.RawMessage) (json.RawMessage, error) {
	if len(value) == 0 {
		return null, nil
	}
	v, err := Canonical(value)
	if errors.Is(err, errNUL) {
		return nil, invalid(HasNUL, "attribute %q: %v", clip(name), err)
	}
	if err != nil {
		return nil, invalid(BadAttribute, "attribute %q: %v", clip(name), err)
	}
	return v, nil
}

// check is the contract, for events that are made and for events that arrive.
func (e Event) check() error {
	if err := CheckRAE(e.RAE); err != nil {
		return invalid(BadSubject, "%v", err)
	}
	if err := CheckSession(e.Session); err != nil {
		return invalid(BadSubject, "%v", err)
	}
	if e.Seq < 1 || e.Seq > MaxSeq {
		return invalid(BadSeq, "seq %d is not from 1 to %d", e.Seq, int64(MaxSeq))
	}
	if (e.Type == Opened) != (e.Seq == 1) {
		return invalid(BadSeq, "%s with seq %d: a session begins with opened, seq 1, and has no other", e.Type, e.Seq)
	}
	if y := e.Time.Year(); y < 1970 || y > 9999 {
		return invalid(BadTime, "time %s is not between the years 1970 and 9999", e.Time)
	}
	if y := e.Seen.Year(); !e.Seen.IsZero() && (y < 1970 || y > 9999) {
		return invalid(BadTime, "seen %s is not between the years 1970 and 9999", e.Seen)
	}
	if strings.ContainsRune(e.Reason, 0) || len(e.Reason) > 1024 {
		return invalid(BadAttribute, "reason holds a NUL or more than 1024 bytes")
	}
	return e.checkAttributes()
}

func (e Event) checkAttributes() error {
	if len(e.Attributes) > MaxAttributes {
		return invalid(BadAttribute, "%d attributes, more than %d", len(e.Attributes), MaxAttributes)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		a := e.Attributes[name]
		if err := CheckName(name); err != nil {
			return invalid(BadAttribute, "%v", err)
		}
		if len(a.Value) > MaxValueBytes {
			return invalid(BadAttribute, "attribute %s has %d bytes, more than %d", name, len(a.Value), MaxValueBytes)
		}
		if e.Type != Snapshot {
			continue
		}
		if a.Removed() || a.Seq < 1 || a.Seq > e.Seq {
			return invalid(BadSnapshot, "attribute %s: a snapshot at seq %d lists values that were set by then, not %s at seq %d", name, e.Seq, a.Value, a.Seq)
		}
		if y := a.At.Year(); y < 1970 || y > 9999 {
			return invalid(BadTime, "attribute %s: time %s is not between the years 1970 and 9999", name, a.At)
		}
	}
	if e.Type == Closed && len(e.Attributes) > 0 {
		return invalid(BadAttribute, "a closed event has no attributes")
	}
	if e.Type == Snapshot && e.Hash != Hash(e.Attributes) {
		return invalid(BadSnapshot, "hash %q is not that of its attributes", clip(e.Hash))
	}
	return nil
}
