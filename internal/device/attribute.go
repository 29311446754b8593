package device

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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

// Limits of the contract. A session's whole state fits one event, so that a
// snapshot is always possible and a query can always show the device.
const (
	MaxAttributes     = 256       // attributes of a session that have a value
	MaxEventBytes     = 64 << 10  // one encoded event
	MaxValueBytes     = 8 << 10   // one attribute's canonical JSON value
	MaxNameBytes      = 128       // one attribute's name
	MaxValueDepth     = 32        // nesting of one value
	MaxStateBytes     = 48 << 10  // names and values of a whole state: leaves room for the envelope, seqs and times of a snapshot
	MaxSignalBytes    = 256 << 10 // one encoded Batch
	attributeOverhead = 64        // bytes that a snapshot spends on an attribute beside its name and value
)

// Attribute is the value of one attribute and the event that last changed it.
type Attribute struct {
	// Value is canonical JSON (see Canonical). Null is a tombstone: the
	// attribute was removed at Seq.
	Value json.RawMessage `json:"value"`
	// Seq is the sequence number of the event that set the value.
	Seq int64 `json:"seq"`
	// At is when the edge observed the change, to the millisecond.
	At time.Time `json:"at"`
}

var null = json.RawMessage("null")

// Removed reports whether a is a tombstone.
func (a Attribute) Removed() bool { return len(a.Value) == 0 || bytes.Equal(a.Value, null) }

// Texts are the strings of a value that is a string or a list of strings. A
// member of a list that is no string is empty; any other value has no strings.
func (a Attribute) Texts() []string {
	var one string
	if json.Unmarshal(a.Value, &one) == nil {
		return []string{one}
	}
	var many []string
	_ = json.Unmarshal(a.Value, &many) // what it took until an error is what counts
	return many
}

// Equal reports whether a and b are the same value, set by the same event.
func (a Attribute) Equal(b Attribute) bool {
	return a.Seq == b.Seq && a.At.Equal(b.At) && bytes.Equal(a.Value, b.Value)
}

// newer reports whether a wins over b: by seq. In a lawful history an equal seq
// means an equal value; where an edge breaks that law, the bytes decide, so
// that the order of arrival still does not.
func (a Attribute) newer(b Attribute) bool {
	if a.Seq != b.Seq {
		return a.Seq > b.Seq
	}
	if c := bytes.Compare(a.Value, b.Value); c != 0 {
		return c > 0
	}
	return a.At.After(b.At)
}

// CheckName reports why name is not an attribute name, or nil. A name is flat,
// dotted and lower-case: parts of a-z, 0-9, _ and - joined by single dots.
func CheckName(name string) error {
	if name == "" || len(name) > MaxNameBytes {
		return fmt.Errorf("attribute name %q has %d bytes, not 1 to %d", clip(name), len(name), MaxNameBytes)
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" {
			return fmt.Errorf("attribute name %q has an empty part", name)
		}
		for _, c := range []byte(part) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
				return fmt.Errorf("attribute name %q: only a-z, 0-9, '_', '-' and single dots are allowed", clip(name))
			}
		}
	}
	return nil
}

var errNUL = errors.New("value holds a NUL character, which the database refuses")

// Canonical returns the one form in which a JSON value is stored, compared and
// hashed: no white space, object keys sorted, strings in UTF-8 with the least
// escaping, numbers as the shortest IEEE 754 double (so 1.0 and 1 are the same
// value; an integer past 2^53 belongs in a string, RFC 8259 section 6). It
// refuses what PostgreSQL or CockroachDB would refuse, and nesting deeper than
// MaxValueDepth. What is canonical already may come back as it is, not copied.
func Canonical(value []byte) (json.RawMessage, error) {
	if isCanonical(value) {
		return value, nil
	}
	if !utf8.Valid(value) {
		return nil, errors.New("value is not UTF-8")
	}
	if d := depth(value); d > MaxValueDepth {
		return nil, fmt.Errorf("value is nested %d deep, more than %d", d, MaxValueDepth)
	}
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return nil, fmt.Errorf("value is not JSON: %w", err)
	}
	v, err := plain(v)
	if err != nil {
		return nil, err
	}
	return encodeCanonical(v)
}

// isCanonical recognizes what is canonical at a glance, as most values are: the
// literals, strings of printable ASCII without an escape, and integers of up to
// 15 digits.
func isCanonical(v []byte) bool {
	n := len(v)
	if n >= 2 && v[0] == '"' && v[n-1] == '"' {
		for _, c := range v[1 : n-1] {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				return false
			}
		}
		return true
	}
	switch string(v) {
	case "null", "true", "false", "0":
		return true
	}
	digits := bytes.TrimPrefix(v, []byte{'-'})
	if len(digits) == 0 || len(digits) > 15 || digits[0] == '0' {
		return false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// CanonicalOf is Canonical for a Go value, as the edge has it.
func CanonicalOf(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode value: %w", err)
	}
	return Canonical(b)
}

func encodeCanonical(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode value: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// depth is the deepest nesting of brackets outside strings.
func depth(b []byte) int {
	deepest, now, inString := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// plain refuses NUL and turns -0, which SQL's numbers do not have, into 0.
func plain(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return nil, errNUL
		}
	case float64:
		return v + 0, nil
	case []any:
		for i := range v {
			if v[i], err = plain(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if strings.ContainsRune(k, 0) {
				return nil, errNUL
			}
			if v[k], err = plain(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// Hash is the hash of a canonical state: SHA-256 over "name NUL seq NUL value
// LF" of every attribute that has a value, sorted by name; lower-case hex.
// Edge, workflow and database compute it from their own copies.
func Hash(attributes map[string]Attribute) string {
	h := sha256.New()
	var line []byte
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		a := attributes[name]
		if a.Removed() {
			continue
		}
		line = append(append(line[:0], name...), 0)
		line = append(strconv.AppendInt(line, a.Seq, 10), 0)
		line = append(append(line, a.Value...), '\n')
		h.Write(line)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// StateBytes is what attributes count against MaxStateBytes: names and values
// of those that have a value, plus a fixed share for what a snapshot says of each.
func StateBytes(attributes map[string]Attribute) int {
	n := 0
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if a := attributes[name]; !a.Removed() {
			n += attributeBytes(name, a.Value)
		}
	}
	return n
}

func attributeBytes(name string, value []byte) int { return len(name) + len(value) + attributeOverhead }
