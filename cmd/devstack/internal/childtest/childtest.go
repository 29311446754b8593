// Package childtest runs a test binary once more, as a server that the test can
// kill with SIGKILL.
package childtest

import (
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// argEnv tells a child that it is one, and what to serve.
const argEnv = "DEVSTACK_TEST_CHILD"

const ready = "ready\n"

// Main is a package's TestMain. In a child it calls serve, which returns when
// the server is ready, and stays until it is killed. Else it runs the tests.
func Main(m *testing.M, serve func(arg string) error) {
	arg := os.Getenv(argEnv)
	if arg == "" {
		os.Exit(m.Run())
	}
	if err := serve(arg); err != nil {
		slog.Error("child", "err", err)
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString(ready)
	select {}
}

// Start starts a child that serves arg and returns its process ID and what kills
// it, when it is ready. It is killed at the end of the test at the latest.
func Start(t *testing.T, arg string) (pid int, kill func()) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), argEnv+"="+arg)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	kill = sync.OnceFunc(func() { _, _ = child.Process.Kill(), child.Wait() })
	t.Cleanup(kill)
	_, err = io.ReadFull(out, make([]byte, len(ready)))
	require.NoError(t, err, "the child ended before it was ready")
	return child.Process.Pid, kill
}
