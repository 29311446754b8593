package postgrestest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
)

const victimEnv = "ROLLCALL_TEST_POSTGRESTEST_VICTIM"

func query(t *testing.T, url, sql string) (out string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&out))
	return out
}

func TestEachCallIsADatabaseOfItsOwn(t *testing.T) {
	a, b := postgrestest.New(t), postgrestest.New(t)
	require.NotEqual(t, a, b)
	require.NotEqual(t, query(t, a, `SELECT current_database()`), query(t, b, `SELECT current_database()`))
}

// A test binary that is killed leaves neither a server nor its files.
func TestKilledBinaryLeavesNothing(t *testing.T) {
	if os.Getenv(victimEnv) != "" {
		fmt.Println("victim", query(t, postgrestest.New(t), `SELECT replace(replace(setting, '/data', ''), ' ', '') FROM pg_settings WHERE name = 'data_directory'`))
		select {}
	}
	if os.Getenv(postgrestest.EnvURL) != "" {
		t.Skip("a server that was given is not ours to stop")
	}
	postgrestest.New(t) // skips where there is no PostgreSQL
	tmp := t.TempDir()
	require.NoError(t, os.Chmod(tmp, 0o700))
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledBinaryLeavesNothing$")
	cmd.Env = append(os.Environ(), victimEnv+"=1", "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(line, "victim"), line)
	entries, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.NotEmpty(t, entries)

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool {
		entries, err := os.ReadDir(tmp)
		return err == nil && len(entries) == 0
	}, time.Minute, 20*time.Millisecond)
}
