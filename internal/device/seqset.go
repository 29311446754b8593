package device

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Range is an inclusive range of sequence numbers, both at least 1. Its JSON
// form is [from,to].
type Range struct{ From, To int64 }

// MarshalJSON implements json.Marshaler.
func (r Range) MarshalJSON() ([]byte, error) {
	b := strconv.AppendInt([]byte{'['}, r.From, 10)
	b = strconv.AppendInt(append(b, ','), r.To, 10)
	return append(b, ']'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Range) UnmarshalJSON(b []byte) error {
	var p [2]int64
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("seq range %s: %w", clip(string(b)), err)
	}
	if p[0] < 1 || p[1] < p[0] {
		return fmt.Errorf("seq range [%d,%d] is empty or below 1", p[0], p[1])
	}
	r.From, r.To = p[0], p[1]
	return nil
}

// String writes "7" or "7–9".
func (r Range) String() string {
	if r.From == r.To {
		return strconv.FormatInt(r.From, 10)
	}
	return fmt.Sprintf("%d–%d", r.From, r.To)
}

// SeqSet is a set of sequence numbers as sorted ranges that neither touch nor
// overlap. The zero value is the empty set. Methods do not change the receiver.
type SeqSet []Range

// maxRanges bounds a SeqSet. A lawful session has one range, and one more for
// each gap that waits for its snapshot. Past the bound the oldest ranges are
// forgotten: their events then count as missing, which the next snapshot heals.
const maxRanges = 64

// Last is the highest member, or 0.
func (s SeqSet) Last() int64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].To
}

// First is the lowest member, or 0.
func (s SeqSet) First() int64 {
	if len(s) == 0 {
		return 0
	}
	return s[0].From
}

// Len counts the members.
func (s SeqSet) Len() int64 {
	var n int64
	for _, r := range s {
		n += r.To - r.From + 1
	}
	return n
}

// Has reports whether seq is a member.
func (s SeqSet) Has(seq int64) bool {
	i, _ := slices.BinarySearchFunc(s, seq, func(r Range, seq int64) int {
		if r.To < seq {
			return -1
		}
		return 1
	})
	return i < len(s) && s[i].From <= seq
}

// Covers reports whether every member of o is a member of s.
func (s SeqSet) Covers(o SeqSet) bool {
	for _, r := range o {
		i := slices.IndexFunc(s, func(h Range) bool { return h.From <= r.From && r.To <= h.To })
		if i < 0 {
			return false
		}
	}
	return true
}

// Union returns the members of both.
func (s SeqSet) Union(o SeqSet) SeqSet {
	if len(o) == 0 {
		return s
	}
	if len(s) == 0 {
		return o
	}
	all := slices.Concat(s, o)
	slices.SortFunc(all, func(a, b Range) int {
		switch {
		case a.From < b.From:
			return -1
		case a.From > b.From:
			return 1
		}
		return 0
	})
	out := all[:1]
	for _, r := range all[1:] {
		if last := &out[len(out)-1]; r.From <= last.To || r.From == last.To+1 {
			last.To = max(last.To, r.To)
		} else {
			out = append(out, r)
		}
	}
	if len(out) > maxRanges {
		out = out[len(out)-maxRanges:]
	}
	return slices.Clip(out)
}

// Minus returns the members of s that are not members of o.
func (s SeqSet) Minus(o SeqSet) SeqSet {
	var out SeqSet
	for _, r := range s {
		from := r.From
		for _, gone := range o {
			if gone.To < from || gone.From > r.To {
				continue
			}
			if gone.From > from {
				out = append(out, Range{from, gone.From - 1})
			}
			from = gone.To + 1
		}
		if from <= r.To {
			out = append(out, Range{from, r.To})
		}
	}
	return out
}

// After returns the members that are greater than seq.
func (s SeqSet) After(seq int64) SeqSet {
	var out SeqSet
	for _, r := range s {
		if r.To > seq {
			out = append(out, Range{max(r.From, seq+1), r.To})
		}
	}
	return out
}

// Holes returns what lacks between from and the highest member.
func (s SeqSet) Holes(from int64) SeqSet {
	var out SeqSet
	next := from
	for _, r := range s {
		if r.From > next {
			out = append(out, Range{next, r.From - 1})
		}
		next = max(next, r.To+1)
	}
	return out
}

// String writes "1–3, 7".
func (s SeqSet) String() string {
	parts := make([]string, len(s))
	for i, r := range s {
		parts[i] = r.String()
	}
	return strings.Join(parts, ", ")
}
