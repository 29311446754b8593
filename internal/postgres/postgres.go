// Package postgres runs a PostgreSQL server as a child process, for development
// and for tests.
//
// It finds an installed PostgreSQL or fetches one, makes a data directory,
// starts the server on the loopback interface, and stops it. It is built to be
// killed: the server dies with its parent, an earlier server that did not is
// found and stopped before the next one starts, and a database that was being
// made is made again. Committed rows survive all of it, because fsync is on.
//
// PostgreSQL refuses to run as root. A root parent starts it as another user
// and hands it the data directory as an open descriptor, so that the directory
// may be anywhere, also below one that only root can enter (/root).
//
// Linux only: it relies on /proc and on the parent-death signal (prctl(2)).
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Names of the only role and of the database that Start makes.
const (
	Role     = "rollcall"
	Database = "rollcall"
)

const (
	readyTimeout = 2 * time.Minute  // of a start: crash recovery reads what was written since the last checkpoint
	fastTimeout  = 20 * time.Second // of a fast shutdown, which writes a checkpoint
	hardTimeout  = 10 * time.Second // of an immediate shutdown, then of SIGKILL
)

// ErrInUse is returned by Start when a living process runs a server on the
// same data directory.
var ErrInUse = errors.New("data directory is in use by another process")

// ErrPortTaken is returned by Start when Options.Port is not free.
var ErrPortTaken = errors.New("port is taken")

// Options of Start.
type Options struct {
	// DataDir holds everything: the cluster (data), the lock of its owner
	// (lock), the password (password) and the log (postgres.log). It is made
	// where it does not exist. Required.
	DataDir string
	// Port on 127.0.0.1. 0, the default, takes a free one, another at each start.
	Port int
	// Logger is told what Start does that may take long. Default: discards.
	Logger *slog.Logger
	// BinDir holds postgres and initdb. Default: found (see Find), else
	// fetched into CacheDir.
	BinDir string
	// CacheDir is where a PostgreSQL that has to be fetched is kept (60 MB).
	// Default: rollcall/postgres below the user's cache directory; for root
	// below /var/cache, because the server's own user must be able to enter it.
	CacheDir string
	// NoFetch forbids the download: without an installed PostgreSQL, Start
	// returns ErrNotInstalled.
	NoFetch bool
	// Settings are added to the server's configuration, as name and value.
	// Tests turn fsync off with them.
	Settings map[string]string
}

// Server is a running PostgreSQL.
type Server struct {
	opts     Options
	log      *slog.Logger
	bin      string
	as       *account // nil: as this process's user
	lock     *os.File
	port     int
	password string
	child    *child
}

// Start starts a server and returns when it takes connections. ctx bounds the
// start only; the server runs until Stop, or until this process ends, however
// it ends.
func Start(ctx context.Context, opts Options) (_ *Server, err error) {
	if opts.DataDir == "" {
		return nil, errors.New("postgres: DataDir is required")
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.DataDir, err = filepath.Abs(opts.DataDir); err != nil {
		return nil, fmt.Errorf("postgres: data directory: %w", err)
	}
	s := &Server{opts: opts, log: opts.Logger}
	defer func() {
		if err != nil {
			s.Stop()
			err = fmt.Errorf("postgres: %w", err)
		}
	}()
	if err := s.own(); err != nil {
		return nil, err
	}
	if s.as, err = serverAccount(); err != nil {
		return nil, err
	}
	if s.bin, err = s.install(ctx); err != nil {
		return nil, err
	}
	if err := s.stopStale(ctx); err != nil {
		return nil, err
	}
	if _, err := s.choosePort(); err != nil { // before minutes are spent; a stale server held it until now
		return nil, err
	}
	if err := s.initialise(ctx); err != nil {
		return nil, err
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	if err := s.createDatabase(ctx); err != nil {
		return nil, err
	}
	s.log.Info("PostgreSQL is ready", "port", s.port, "pid", s.child.pid, "data_dir", opts.DataDir)
	return s, nil
}

// URL is the connection string of the database that Start made.
func (s *Server) URL() string { return s.url(Database) }

// Port is the port the server listens on, at 127.0.0.1.
func (s *Server) Port() int { return s.port }

// PID is the server's process.
func (s *Server) PID() int { return s.child.pid }

// Done is closed when the server has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.child.done }

// Stop ends the server: a fast shutdown, and a harder one where that does not
// end it in 20 seconds. It may be called more than once.
func (s *Server) Stop() {
	if s.child != nil {
		s.child.stop(s.log)
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

func (s *Server) url(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(Role, s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (s *Server) path(name string) string { return filepath.Join(s.opts.DataDir, name) }

// own makes the data directory and locks it for the life of this process. The
// kernel drops the lock when the process dies, so it never goes stale.
func (s *Server) own() error {
	if err := os.MkdirAll(s.opts.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	f, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("%w: %s: stop the other one, or name another data directory", ErrInUse, s.opts.DataDir)
		}
		return fmt.Errorf("lock %s: %w", s.path("lock"), err)
	}
	s.lock = f
	return nil
}

// createDatabase makes the database where it does not exist yet.
func (s *Server) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, Database).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", Database, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{Database}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", Database, err)
	}
	return nil
}

// logTail is the end of the server's log, for an error message.
func (s *Server) logTail(from int64) string {
	b, err := os.ReadFile(s.path("postgres.log"))
	if err != nil || int64(len(b)) <= from {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b[from:])), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
