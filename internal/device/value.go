package device

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// ValueType is what a JSON value of an attribute, an argument or a result must be.
type ValueType string

// Types of values.
const (
	TextValue    ValueType = "text"    // a string
	TextsValue   ValueType = "texts"   // an array of strings
	BoolValue    ValueType = "bool"    // true or false
	IntegerValue ValueType = "integer" // from -MaxSeq to MaxSeq
	IPv4Value    ValueType = "ipv4"    // "192.168.77.31"
	IPv6sValue   ValueType = "ipv6s"   // an array of IPv6 addresses without zone
	MACValue     ValueType = "mac"     // "4c:b1:17:20:11:01", lower case
)

// Check reports why value is not of the type, or nil.
func (t ValueType) Check(value json.RawMessage) error {
	ok := false
	switch t {
	case TextValue:
		_, ok = decodeAs[string](value)
	case TextsValue:
		_, ok = decodeAs[[]string](value)
	case BoolValue:
		_, ok = decodeAs[bool](value)
	case IntegerValue:
		var n int64
		n, ok = decodeAs[int64](value)
		ok = ok && n >= -MaxSeq && n <= MaxSeq
	case IPv4Value:
		s, isText := decodeAs[string](value)
		a, err := netip.ParseAddr(s)
		ok = isText && err == nil && a.Is4()
	case IPv6sValue:
		var list []string
		list, ok = decodeAs[[]string](value)
		ok = ok && !slices.ContainsFunc(list, func(s string) bool {
			a, err := netip.ParseAddr(s)
			return err != nil || !a.Is6() || a.Zone() != ""
		})
	case MACValue:
		s, isText := decodeAs[string](value)
		ok = isText && isMAC(s)
	}
	if !ok {
		return fmt.Errorf("%s is not of type %s", clip(string(value)), t)
	}
	return nil
}

// decodeAs decodes a value that is not null.
func decodeAs[T any](value json.RawMessage) (out T, ok bool) {
	if string(value) == "null" {
		return out, false
	}
	return out, json.Unmarshal(value, &out) == nil
}

func isMAC(s string) bool {
	if len(s) != len("00:00:00:00:00:00") {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i%3 == 2 {
			if c != ':' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// CheckValue reports why value may not stand under the attribute's name, or
// nil. A name that the vocabulary lacks takes any value.
func CheckValue(name string, value json.RawMessage) error {
	spec, known := specs[name]
	if !known {
		return nil
	}
	if err := spec.Type.Check(value); err != nil {
		return fmt.Errorf("attribute %s: %w", name, err)
	}
	if len(spec.Values) == 0 {
		return nil
	}
	if s, _ := decodeAs[string](value); !slices.Contains(spec.Values, s) {
		return fmt.Errorf("attribute %s: %s is none of %q", name, clip(string(value)), spec.Values)
	}
	return nil
}
