package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/postgres"
)

// ownerEnv makes this binary the owner of a server: TestMain starts one on the
// directory it names, writes a row, says so and waits to be killed.
const ownerEnv = "ROLLCALL_TEST_POSTGRES_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		own(dir)
	}
	os.Exit(m.Run())
}

func own(dir string) {
	ctx := context.Background()
	s, err := postgres.Start(ctx, postgres.Options{DataDir: dir, NoFetch: true})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	conn, err := pgx.Connect(ctx, s.URL())
	if err == nil {
		_, err = conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS kept (n INT8 PRIMARY KEY)`)
	}
	if err == nil {
		_, err = conn.Exec(ctx, `INSERT INTO kept SELECT count(*) FROM kept`)
	}
	fmt.Println("ready", s.PID(), err)
	select {}
}

func start(t *testing.T, opts postgres.Options) *postgres.Server {
	t.Helper()
	opts.NoFetch = true
	s, err := postgres.Start(t.Context(), opts)
	if errors.Is(err, postgres.ErrNotInstalled) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

func kept(t *testing.T, url string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM kept`).Scan(&n))
	return n
}

// dataDir is below a directory that only this user can enter, as /root is.
func dataDir(t *testing.T) string {
	parent := filepath.Join(t.TempDir(), "private")
	require.NoError(t, os.Mkdir(parent, 0o700))
	return filepath.Join(parent, "postgres")
}

// A row that was committed survives kill -9 of the parent and of the server.
func TestRowsSurviveKill(t *testing.T) {
	if len(postgres.Find(t.Context())) == 0 {
		t.Skip(postgres.ErrNotInstalled)
	}
	dir := dataDir(t)
	for round := range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), ownerEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		var pid int
		_, err = fmt.Sscanf(line, "ready %d <nil>", &pid)
		require.NoError(t, err, line)

		_, err = postgres.Start(t.Context(), postgres.Options{DataDir: dir, NoFetch: true})
		require.ErrorIs(t, err, postgres.ErrInUse, "round %d: its owner lives", round)

		if round == 1 { // the server first: crash recovery, not a shutdown
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if round == 0 {
			require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, time.Minute, 10*time.Millisecond,
				"the server outlived its parent")
		}
	}
	s := start(t, postgres.Options{DataDir: dir})
	require.Equal(t, 2, kept(t, s.URL()))
}

func TestStopAndStartAgain(t *testing.T) {
	opts := postgres.Options{DataDir: dataDir(t)}
	s := start(t, opts)
	conn, err := pgx.Connect(t.Context(), s.URL())
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `CREATE TABLE kept AS SELECT 1::INT8 AS n`)
	require.NoError(t, err)

	var fsync, addresses string
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT current_setting('fsync'), current_setting('listen_addresses')`).Scan(&fsync, &addresses))
	require.Equal(t, "on", fsync)
	require.Equal(t, "127.0.0.1", addresses)

	bad, err := pgx.ParseConfig(s.URL())
	require.NoError(t, err)
	bad.Password = "wrong"
	_, err = pgx.ConnectConfig(t.Context(), bad)
	require.ErrorContains(t, err, "password", "no trust over TCP")

	s.Stop()
	<-s.Done()
	s.Stop()
	require.Equal(t, 1, kept(t, start(t, opts).URL()))
}

// A half-made cluster, from an earlier start that was killed, is made again.
func TestHalfMadeCluster(t *testing.T) {
	dir := dataDir(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("old"), 0o600))
	start(t, postgres.Options{DataDir: dir, Settings: map[string]string{"fsync": "off"}})
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	if len(postgres.Find(t.Context())) == 0 {
		t.Skip(postgres.ErrNotInstalled)
	}
	_, err = postgres.Start(t.Context(), postgres.Options{
		DataDir: dataDir(t), Port: l.Addr().(*net.TCPAddr).Port, Settings: map[string]string{"fsync": "off"}, NoFetch: true,
	})
	require.ErrorIs(t, err, postgres.ErrPortTaken)
	require.ErrorContains(t, err, l.Addr().String())
}

func TestBadSettingSaysSo(t *testing.T) {
	if len(postgres.Find(t.Context())) == 0 {
		t.Skip(postgres.ErrNotInstalled)
	}
	_, err := postgres.Start(t.Context(), postgres.Options{
		DataDir: dataDir(t), NoFetch: true, Settings: map[string]string{"fsync": "off", "no_such_setting": "1"},
	})
	require.ErrorContains(t, err, "no_such_setting", "the end of the log is in the error")
}

func TestNotInstalled(t *testing.T) {
	_, err := postgres.Start(t.Context(), postgres.Options{DataDir: dataDir(t), BinDir: t.TempDir()})
	require.ErrorContains(t, err, "BinDir")
	require.ErrorContains(t, postgres.ErrNotInstalled, "apt-get install postgresql")
}
