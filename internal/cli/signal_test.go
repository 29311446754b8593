package cli_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/cli"
)

// The test binary run as a command that ignores its context.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_STUBBORN") != "" {
		ctx, _ := cli.SignalContext(context.Background())
		fmt.Println("up")
		<-ctx.Done()
		fmt.Println("draining")
		select {}
	}
	// The settings of whoever runs the tests are not the tests'.
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "ROLLCALL_") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func TestSecondSignalEndsTheProcess(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CLI_TEST_STUBBORN=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Equal(t, "up", lines.Text())
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.True(t, lines.Scan())
	require.Equal(t, "draining", lines.Text())

	// The default effect returns just after the context is cancelled: ask
	// until it has.
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	require.Eventually(t, func() bool {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-done:
			return true
		default:
			return false
		}
	}, time.Minute, 20*time.Millisecond)
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	require.Equal(t, syscall.SIGINT, status.Signal())
}
