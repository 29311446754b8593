package postgres

import (
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The fetched PostgreSQL runs, also as root. It takes the network and 60 MB, so
// it is asked for by name.
func TestFetched(t *testing.T) {
	if os.Getenv("ROLLCALL_TEST_FETCH") == "" {
		t.Skip("downloads PostgreSQL: set ROLLCALL_TEST_FETCH=1 to run it")
	}
	as, err := serverAccount()
	require.NoError(t, err)
	cache, err := os.MkdirTemp("", "rollcall-fetch-test-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(cache) })
	require.NoError(t, os.Chmod(cache, 0o755))
	s := &Server{opts: Options{CacheDir: cache, DataDir: t.TempDir()}, log: testLogger(t), as: as}
	bin, err := s.fetch(t.Context())
	require.NoError(t, err)
	server, err := Start(t.Context(), Options{DataDir: t.TempDir(), BinDir: bin})
	require.NoError(t, err)
	server.Stop()
}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
