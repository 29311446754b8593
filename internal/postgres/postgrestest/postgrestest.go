// Package postgrestest gives tests a PostgreSQL database of their own.
//
// A test binary that asks starts one server, so that packages whose tests run
// at the same time do not meet. It ends with the binary, and its files with it,
// also when the binary is killed.
package postgrestest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rollcall-platform/rollcall/internal/postgres"
)

// EnvURL names the environment variable that holds the URL of a server to use
// instead of starting one. Its role must be allowed to create databases.
const EnvURL = "ROLLCALL_TEST_DATABASE_URL"

const timeout = time.Minute

// New returns the URL of an empty database that is dropped when the test ends.
// It skips the test where no server can be had.
func New(tb testing.TB) string {
	tb.Helper()
	admin := os.Getenv(EnvURL)
	if admin == "" {
		var err error
		if admin, err = shared(); errors.Is(err, postgres.ErrNotInstalled) {
			tb.Skipf("needs PostgreSQL: %v; or set %s", err, EnvURL)
		} else if err != nil {
			tb.Fatalf("start PostgreSQL for the tests: %v", err)
		}
	}
	u, err := url.Parse(admin)
	if err != nil {
		tb.Fatalf("%s: %v", EnvURL, err)
	}
	name := "test_" + randomName()
	cockroach := false
	do(tb, admin, func(ctx context.Context, conn *pgx.Conn) error {
		var version string
		if err := conn.QueryRow(ctx, `SELECT version()`).Scan(&version); err != nil {
			return err
		}
		cockroach = strings.Contains(version, "CockroachDB")
		_, err := conn.Exec(ctx, `CREATE DATABASE `+name)
		return err
	})
	tb.Cleanup(func() {
		do(tb, admin, func(ctx context.Context, conn *pgx.Conn) error {
			how := ` WITH (FORCE)` // ends the connections a test has left open
			if cockroach {
				how = ` CASCADE`
			}
			_, err := conn.Exec(ctx, `DROP DATABASE `+name+how)
			return err
		})
	})
	u.Path = "/" + name
	return u.String()
}

func do(tb testing.TB, admin string, f func(context.Context, *pgx.Conn) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		tb.Fatalf("connect to the tests' PostgreSQL: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := f(ctx, conn); err != nil {
		tb.Fatalf("make or drop a test database: %v", err)
	}
}

func randomName() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// shared is the server of this test binary.
var shared = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rollcall-postgrestest-")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*timeout)
	defer cancel()
	s, err := postgres.Start(ctx, postgres.Options{
		DataDir: dir,
		// A test's database need not survive the machine.
		Settings: map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"},
	})
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", err
	}
	if err := sweepAfter(dir, s.PID()); err != nil {
		s.Stop()
		_ = os.RemoveAll(dir)
		return "", err
	}
	return s.URL(), nil
})

// sweepAfter removes dir when this process and the server have ended, however
// they ended. A shell waits for the end of a pipe that only this process holds.
// The server needs no stopping: it dies with its parent.
func sweepAfter(dir string, pid int) error {
	const script = `read -r _; while kill -0 "$1"; do sleep 0.05; done; rm -rf -- "$2"`
	cmd := exec.Command("/bin/sh", "-c", script, "sweep", strconv.Itoa(pid), dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	held = append(held, pipe)
	return cmd.Start()
}

// held keeps pipes from finalizers, which would close them before the process ends.
var held []io.Closer
