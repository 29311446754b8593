package temporal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/server/common/log/tag"
)

func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "temporal.log")
	const limit = 4 << 10
	for range 2 { // a restart goes on where the last run ended
		f, err := openLog(path, limit)
		require.NoError(t, err)
		logger := newLogger(f)
		for range 200 {
			logger.Info("not written")
			logger.Error("written", tag.NewStringTag("key", "value"))
		}
		require.NoError(t, f.Close())
		logger.Error("dropped") // the server's last words come after its end
	}
	for _, name := range []string{path, path + ".old"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.LessOrEqual(t, len(text), limit)
		require.Contains(t, string(text), `"msg":"written"`)
		require.NotContains(t, string(text), "not written")
		require.NotContains(t, string(text), "dropped")
		require.True(t, strings.HasSuffix(string(text), "}\n"), "entries are whole")
	}
}
