package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A server that did outlive its owner is stopped by the next start; a pid file
// that names another process is not believed.
func TestStaleServer(t *testing.T) {
	opts := Options{DataDir: filepath.Join(t.TempDir(), "pg"), NoFetch: true, Settings: map[string]string{"fsync": "off"}}
	if len(Find(t.Context())) == 0 {
		t.Skip(ErrNotInstalled)
	}
	first, err := Start(t.Context(), opts)
	require.NoError(t, err)
	first.Stop()

	cmd, paths, err := first.command("postgres", first.path("data"))
	require.NoError(t, err)
	cmd.Args = append(cmd.Args, "-D", paths[0], "-c", "listen_addresses=127.0.0.1", "-c", fmt.Sprintf("port=%d", first.port), "-c", "unix_socket_directories=")
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	data, err := os.Stat(first.path("data"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := os.Stat(first.path("data/postmaster.pid"))
		return err == nil && len(workingIn(data)) > 3
	}, time.Minute, 10*time.Millisecond)

	second, err := Start(t.Context(), opts)
	require.NoError(t, err)
	<-ended
	second.Stop()

	bystander := []byte("1\n/somewhere/else\n0\n5432\n\n127.0.0.1\n")
	require.NoError(t, os.WriteFile(second.path("data/postmaster.pid"), bystander, 0o600))
	third, err := Start(t.Context(), opts)
	require.NoError(t, err)
	third.Stop()
}
