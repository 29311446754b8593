// Package printabletest has text that no terminal may get, for tests that send it
// through whatever prints.
package printabletest

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Hostile are texts as a device, a file or a person may give them, by kind.
var Hostile = map[string]string{
	"csi":       "a\x1b[2J\x1b[31mb",
	"osc":       "a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\link",
	"return":    "good\rbad",
	"lines":     "a\nrollcall: forged\r\nb\tc",
	"bell":      "a\a\b\v\fb\x7f",
	"c1":        "a\u009b2J\u0085\u009d0;t\u009cb",
	"bidi":      "a\u202a\u202b\u202c\u202d\u202eb\u2066\u2067\u2068\u2069c\u200e\u200f\u061c",
	"zerowidth": "a\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u034fb",
	"tags":      "a\U000e0041\U000e007fb",
	"separator": "a\u2028\u2029b",
	"blank":     "\u3164\u2800\u00a0",
	"private":   "a\ue000\U000f0000b",
	"marks":     "z" + strings.Repeat("\u0301\u0489", 400),
	"long":      strings.Repeat("ab€ ", 1024),
	"emoji":     "📺👩‍👩‍👧🇨🇭",
}

// All is every kind at once, but for the long one.
func All() string {
	var b strings.Builder
	for _, kind := range []string{"csi", "osc", "return", "lines", "bell", "c1", "bidi", "zerowidth", "tags", "separator", "blank", "private", "marks", "emoji"} {
		b.WriteString(Hostile[kind])
	}
	return b.String()
}

// RequireClean fails the test if a terminal would obey or hide anything in out.
func RequireClean(t testing.TB, out string) {
	t.Helper()
	marks := 0
	for i, r := range out {
		if unicode.In(r, unicode.M) {
			marks++
		} else {
			marks = 0
		}
		if r != '\n' && printable.Text(string(r)) != string(r) && r != unicode.ReplacementChar || marks > printable.MaxMarks {
			require.Fail(t, "a terminal would obey or hide this", "%U at byte %d of %q", r, i, out[max(0, i-40):min(len(out), i+40)])
		}
	}
	for line := range strings.SplitSeq(out, "\n") {
		require.NotRegexp(t, `^rollcall: forged`, line, "text from outside began a line")
	}
}
