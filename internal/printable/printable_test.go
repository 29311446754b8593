package printable_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/printable"
	"github.com/rollcall-platform/rollcall/internal/printable/printabletest"
)

func TestText(t *testing.T) {
	for kind, hostile := range printabletest.Hostile {
		printabletest.RequireClean(t, printable.Text(hostile))
		require.Equal(t, printable.Text(hostile), printable.Text(printable.Text(hostile)), kind)
	}
	for _, plain := range []string{"", "living-room-tv", "Küche", "テレビ", "📺 TV", "e\u0301", "नमस्ते", "❤\ufe0f", "“…” ≠ �"} {
		require.Equal(t, plain, printable.Text(plain))
	}
	require.Equal(t, "a�b�", printable.Text("a\xffb\n"))
	require.Equal(t, "z\u0301\u0301\u0301\u0301�y", printable.Text("z"+strings.Repeat("\u0301", 99)+"y"))
}

// JSON keeps the values.
func TestJSON(t *testing.T) {
	for kind, hostile := range printabletest.Hostile {
		b, err := json.Marshal(map[string]string{"v": hostile, hostile: "\u009b"})
		require.NoError(t, err)
		out := printable.JSON(b)
		printabletest.RequireClean(t, string(out))
		require.JSONEq(t, string(b), string(out), kind)
	}
	require.Equal(t, "{\n\t\"a\": \"\\u009b\\udb40\\udc41\"\n}\n", string(printable.JSON([]byte("{\n\t\"a\": \"\u009b\U000e0041\"\n}\n"))))
}

func FuzzWriter(f *testing.F) {
	for _, hostile := range printabletest.Hostile {
		f.Add([]byte(hostile), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		var whole, parts bytes.Buffer
		_, err := printable.NewWriter(&whole).Write(text)
		require.NoError(t, err)
		w := printable.NewWriter(&parts)
		cut = max(0, min(cut, len(text)))
		for _, p := range [][]byte{text[:cut], text[cut:]} {
			n, err := w.Write(p)
			require.NoError(t, err)
			require.Equal(t, len(p), n)
		}
		require.Equal(t, whole.String(), parts.String(), "a rune may come in two parts")
		require.True(t, utf8.Valid(whole.Bytes()))
		for line := range strings.SplitSeq(strings.ReplaceAll(whole.String(), "\t", "\n"), "\n") {
			require.Equal(t, printable.Text(line), line)
		}
	})
}
