package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxLogBytes is where a start begins the server's log anew.
const maxLogBytes = 16 << 20

// account is the user that the server runs as.
type account struct {
	name string
	uid  uint32
	gid  uint32
}

// serverAccount is nil where this process need not change user, which is
// everywhere but as root.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &account{name, uint32(uid), uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody: run as another user, or set DATABASE_URL to a server of your own")
}

// give makes path the account's own.
func (a *account) give(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// command prepares a PostgreSQL program. It gets an environment of its own: a
// PGOPTIONS or PGDATA of the caller is not meant for it. Files reach it as
// descriptors; the paths are what it shall call them.
func (s *Server) command(name string, files ...string) (cmd *exec.Cmd, paths []string, err error) {
	cmd = exec.Command(filepath.Join(s.bin, name))
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/"}
	// A process group of its own: Ctrl-C in a terminal is for the parent,
	// which stops the server last.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.as == nil {
		return cmd, files, nil
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.as.uid, Gid: s.as.gid}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			closeAll(cmd.ExtraFiles)
			return nil, nil, err
		}
		// The link in /proc/self/fd leads to the file itself, past
		// directories that the account could not enter (proc(5)).
		paths = append(paths, "/proc/self/fd/"+strconv.Itoa(3+len(cmd.ExtraFiles)))
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return cmd, paths, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// child is the postmaster.
type child struct {
	pid  int
	done chan struct{} // closed when it has ended
}

// spawn starts cmd so that it ends with this process. The kernel sends the
// parent-death signal when the *thread* that forked ends (prctl(2)), so that
// thread is kept for as long as the child runs.
func spawn(cmd *exec.Cmd) (*child, error) {
	c := &child{done: make(chan struct{})}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGINT // a fast shutdown
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		closeAll(cmd.ExtraFiles)
		if err == nil {
			c.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// stop ends the child, by harder means each time one has not worked. The pid
// is its own until Wait has returned, so no other process can be hit.
func (c *child) stop(log *slog.Logger) {
	for _, step := range shutdownSteps {
		if c.ended() {
			return
		}
		_ = syscall.Kill(c.pid, step.signal)
		select {
		case <-c.done:
			return
		case <-time.After(step.wait):
			log.Warn("PostgreSQL has not ended", "pid", c.pid, "signal", step.signal.String(), "after", step.wait)
		}
	}
}

// shutdownSteps are PostgreSQL's fast shutdown, its immediate one, and the end.
var shutdownSteps = []struct {
	signal syscall.Signal
	wait   time.Duration
}{{syscall.SIGINT, fastTimeout}, {syscall.SIGQUIT, hardTimeout}, {syscall.SIGKILL, hardTimeout}}

// launch starts the postmaster and waits until it takes connections. A free
// port may be taken by another process before the server binds it: then
// another is tried.
func (s *Server) launch(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		port, err := s.choosePort()
		if err != nil {
			return err
		}
		s.port = port
		from, err := s.run(ctx)
		if err == nil {
			return nil
		}
		if s.child != nil {
			s.child.stop(s.log)
		}
		taken := strings.Contains(s.logTail(from), "could not bind")
		if taken && s.opts.Port != 0 {
			return fmt.Errorf("%w: 127.0.0.1:%d", ErrPortTaken, s.opts.Port)
		}
		if !taken || attempt == 5 {
			return err
		}
	}
}

func (s *Server) choosePort() (int, error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.opts.Port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return 0, fmt.Errorf("%w: 127.0.0.1:%d", ErrPortTaken, s.opts.Port)
	}
	if err != nil {
		return 0, fmt.Errorf("choose a port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// run starts the postmaster once. from is where its own log begins.
func (s *Server) run(ctx context.Context) (from int64, err error) {
	out, from, err := s.openLog()
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	cmd, paths, err := s.command("postgres", s.path("data"))
	if err != nil {
		return from, fmt.Errorf("open cluster: %w", err)
	}
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		"logging_collector":       "off",
		"log_destination":         "stderr",
		// A new database fills within seconds, and plans that were made while
		// its tables were empty last until they are analyzed.
		"autovacuum_naptime": "5s",
	}
	maps.Copy(settings, s.opts.Settings)
	cmd.Args = append(cmd.Args, "-D", paths[0])
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		cmd.Args = append(cmd.Args, "-c", name+"="+settings[name])
	}
	cmd.Stdout, cmd.Stderr = out, out
	if s.child, err = spawn(cmd); err != nil {
		return from, fmt.Errorf("start %s%s: %w", cmd.Path, s.as.suffix(), err)
	}
	return from, s.awaitReady(ctx, from)
}

func (a *account) suffix() string {
	if a == nil {
		return ""
	}
	return " as user " + a.name
}

func (s *Server) openLog() (*os.File, int64, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	info, err := os.Stat(s.path("postgres.log"))
	if err == nil && info.Size() > maxLogBytes {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.path("postgres.log"), flags, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open log: %w", err)
	}
	if info, err = f.Stat(); err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("open log: %w", err)
	}
	return f, info.Size(), nil
}

func (s *Server) awaitReady(ctx context.Context, from int64) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.child.done:
			return fmt.Errorf("the server ended while it started: %s", s.logTail(from))
		case <-ctx.Done():
			return fmt.Errorf("the server does not take connections (%w; last: %w): %s", ctx.Err(), err, s.logTail(from))
		case <-tick.C:
		}
	}
}

// output runs a program to its end and returns what it said.
func output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	c, err := spawn(cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		_ = syscall.Kill(-c.pid, syscall.SIGKILL) // and what it started
		<-c.done
		return b.String(), ctx.Err()
	}
	if !cmd.ProcessState.Success() {
		return b.String(), fmt.Errorf("%s: %s", filepath.Base(cmd.Path), cmd.ProcessState)
	}
	return b.String(), nil
}
