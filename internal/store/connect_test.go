package store_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
	"github.com/rollcall-platform/rollcall/internal/porttest"
	"github.com/rollcall-platform/rollcall/internal/postgres"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// patience only bounds a failure.
const patience = 2 * time.Minute

// A pool whose connections have come to lead to a standby discards them, and is
// well again without a restart.
func TestConnectionsToAStandbyAreDiscarded(t *testing.T) {
	if len(postgres.Find(t.Context())) == 0 {
		t.Skip("needs an installed PostgreSQL, with pg_basebackup")
	}
	primary, err := postgres.Start(t.Context(), postgres.Options{DataDir: t.TempDir(), NoFetch: true})
	require.NoError(t, err)
	t.Cleanup(primary.Stop)
	_, err = store.Migrate(t.Context(), primary.URL(), nil)
	require.NoError(t, err)
	standby, err := primary.Standby(t.Context(), postgres.Options{DataDir: filepath.Join(t.TempDir(), "standby")})
	require.NoError(t, err)
	t.Cleanup(standby.Stop)

	p := newProxy(t)
	p.to.Store(int64(standby.Port()))
	address := strings.Replace(primary.URL(), fmt.Sprint(":", primary.Port()), fmt.Sprint(":", p.port), 1)
	s, err := store.Open(t.Context(), store.Options{URL: address, MaxConns: 4, Tracer: &used})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.ErrorContains(t, s.Ping(t.Context()), "read only", "it is not taken for the primary")

	reader, err := store.Open(t.Context(), store.Options{URL: address + "&target_session_attrs=any", MaxConns: 4})
	require.NoError(t, err)
	t.Cleanup(reader.Close)
	require.NoError(t, reader.Ping(t.Context()), "the URL says that any server will do")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { _, _ = reader.Positions(t.Context(), []string{session(1)}) })
	}
	wg.Wait()
	require.Greater(t, p.conns.Load(), int64(2))

	f := newFeed(1)
	u := f.update(f.opened(map[string]string{"a": `1`}))
	err = reader.Apply(t.Context(), []store.Update{u})
	require.ErrorContains(t, err, "25006")
	require.NotErrorIs(t, err, store.ErrRefused, "an outage, and no batch's fault")

	p.to.Store(int64(primary.Port())) // the address leads to the primary now
	require.NoError(t, reader.Apply(t.Context(), []store.Update{u}), "over a new connection")
	require.NoError(t, s.Ping(t.Context()))
	require.NoError(t, s.Apply(t.Context(), []store.Update{u}))
}

// A server that was made read-only is not ready, and is ready again when it is not.
func TestReadOnlyDatabaseIsNotReady(t *testing.T) {
	s, address := open(t)
	require.NoError(t, s.Ping(t.Context()))
	name := strings.TrimPrefix(mustParse(t, address).Path, "/")
	other := strings.Replace(address, "/"+name, "/postgres", 1)
	f := newFeed(1)
	u := f.update(f.opened(nil))

	setDatabase(t, other, name, "on")
	require.Error(t, reopen(t, address).Ping(t.Context()))
	setDatabase(t, other, name, "off")
	require.NoError(t, reopen(t, address).Ping(t.Context()))
	require.NoError(t, s.Apply(t.Context(), []store.Update{u}))
}

// setDatabase says whether new connections to a database only read.
func setDatabase(t *testing.T, admin, name, readOnly string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), admin)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `ALTER DATABASE `+pgx.Identifier{name}.Sanitize()+` SET default_transaction_read_only = `+readOnly)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

// Through PgBouncer in transaction mode every commit succeeds the first time, and
// so does every other statement.
func TestPgBouncerInTransactionMode(t *testing.T) {
	address := pgBouncer(t, postgrestest.New(t))
	_, err := store.Migrate(t.Context(), address, nil)
	require.NoError(t, err)
	registry := prometheus.NewRegistry()
	s, err := store.Open(t.Context(), store.Options{URL: address, MaxConns: 20, Registerer: registry})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.NoError(t, s.Ping(t.Context()))

	const sessions, rounds = 40, 5
	feeds := make([]*feed, sessions)
	for n := range feeds {
		feeds[n] = newFeed(n)
	}
	for seq := int64(1); seq <= rounds; seq++ {
		var wg sync.WaitGroup
		errs := make([]error, sessions)
		for n, f := range feeds {
			e := f.delta(seq, map[string]string{"a": fmt.Sprint(seq), device.AttrMAC: fmt.Sprintf(`"4c:b1:17:00:00:%02x"`, n)})
			if seq == 1 {
				e.Type = device.Opened
			}
			u := f.update(e)
			wg.Go(func() { errs[n] = s.Apply(t.Context(), []store.Update{u}) })
		}
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
	}
	// New sessions race for the row of their RAE; nothing else is tried again.
	require.Zero(t, metrictest.ValueOrZero(t, registry, "rollcall_store_retries_total", "reason", "26000"))
	require.Zero(t, metrictest.ValueOrZero(t, registry, "rollcall_store_retries_total", "reason", "42P05"))
	require.Zero(t, metrictest.ValueOrZero(t, registry, "rollcall_store_retries_total"))
	for _, f := range feeds {
		got, positions := load(t, s, f.id)
		sameState(t, f.state, got)
		require.EqualValues(t, rounds, positions[0].Next)
	}
	page, _, err := s.ListQuarantine(t.Context(), store.QuarantineFilter{})
	require.NoError(t, err)
	require.Empty(t, page)
	open, err := s.OpenSessions(t.Context(), nil, "", 100)
	require.NoError(t, err)
	require.Len(t, open, sessions)
}

// pgBouncer is a URL that leads to the database through PgBouncer in transaction
// mode, with a few server connections for all clients.
func pgBouncer(t *testing.T, database string) string {
	t.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		if path = "/usr/sbin/pgbouncer"; !exists(path) {
			t.Skip("needs PgBouncer (Debian: apt-get install pgbouncer)")
		}
	}
	u := mustParse(t, database)
	password, _ := u.User.Password()
	dir := t.TempDir()
	ini := filepath.Join(dir, "pgbouncer.ini")
	port := porttest.Port(t)
	name := strings.TrimPrefix(u.Path, "/")
	require.NoError(t, os.WriteFile(ini, fmt.Appendf(nil, `[databases]
%[1]s = host=%[2]s port=%[3]s dbname=%[1]s user=%[4]s password=%[5]s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[6]d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
`, name, u.Hostname(), u.Port(), u.User.Username(), password, port), 0o644))
	cmd := exec.Command(path, ini)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 { // it refuses to run as root
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		require.NoError(t, err)
		content, err := os.Open(ini)
		require.NoError(t, err)
		defer func() { _ = content.Close() }()
		cmd.ExtraFiles = []*os.File{content}
		cmd.Args[1] = "/proc/self/fd/3"
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	address := fmt.Sprintf("127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond, "PgBouncer listens")
	u.Host = address
	return u.String()
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}

// proxy leads each new connection to a port of 127.0.0.1; those that are made stay
// where they are.
type proxy struct {
	port  int
	to    atomic.Int64
	conns atomic.Int64
}

func newProxy(t *testing.T) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	p := &proxy{port: l.Addr().(*net.TCPAddr).Port} //nolint:forcetypeassert // as documented
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Add(1)
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", p.to.Load()))
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() { _, _ = io.Copy(server, c); _ = server.Close() }()
	_, _ = io.Copy(c, server)
}
