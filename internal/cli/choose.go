package cli

import (
	"fmt"
	"slices"
	"strings"
)

// CheckOneOf refuses a value of the named flag or argument that is none of known:
// what it selects would be nothing, and look like an empty answer. It names the
// nearest, and all there are.
func CheckOneOf(name, value string, known []string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return &Error{Code: ExitUsage, Err: fmt.Errorf("%s: %q is none of %s%s", name, Clip(value, 80), strings.Join(known, ", "), Nearest(value, known))}
}

// Nearest is a hint at the one of known that differs least from value, in upper or
// lower case, or nothing where none is near.
func Nearest(value string, known []string) string {
	if len(value) > 200 {
		return ""
	}
	lower := make([]string, len(known))
	for i, k := range known {
		lower[i] = strings.ToLower(k)
	}
	hint := nearest(strings.ToLower(value), lower)
	for i, k := range known {
		if hint == nearest(lower[i], lower[i:i+1]) {
			return fmt.Sprintf("; did you mean %q?", k)
		}
	}
	return ""
}
