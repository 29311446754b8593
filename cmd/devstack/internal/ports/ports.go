// Package ports checks, before anything is started, that the development
// stack can have its ports and its data directory to itself, and says which flag
// to change when it cannot.
package ports

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Port is an address the stack will listen on and the flag that sets it.
type Port struct {
	Flag string // with its dashes, as people type it: --temporal-port
	Addr string // host:port; empty means the listener is turned off
}

// Check listens on every address for a moment. It returns nil if all are free,
// and otherwise an error with one line for each address that is taken, is not
// permitted, or is given to two flags. Another process can still take a port
// between the check and the start; this is for people, not for safety.
func Check(all ...Port) error {
	var errs []error
	flags := make(map[string]string)
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for _, p := range all {
		if p.Addr == "" {
			continue
		}
		if other, ok := flags[p.Addr]; ok {
			errs = append(errs, fmt.Errorf("%s and %s are both %s; give each a port of its own", other, p.Flag, p.Addr))
			continue
		}
		l, err := net.Listen("tcp", p.Addr)
		if err != nil {
			errs = append(errs, explain(p, err))
			continue
		}
		if !strings.HasSuffix(p.Addr, ":0") { // the kernel will choose another one each time
			flags[p.Addr] = p.Flag
		}
		held = append(held, l)
	}
	return errors.Join(errs...)
}

func explain(p Port, err error) error {
	_, port, splitErr := net.SplitHostPort(p.Addr)
	switch {
	case splitErr != nil:
		return fmt.Errorf("%s %s is not host:port: %w", p.Flag, p.Addr, splitErr)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s %s is in use (%w); choose another with %s or stop what holds it", p.Flag, port, err, p.Flag)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s %s is not permitted for this user (%w); choose one above 1023 with %s", p.Flag, port, err, p.Flag)
	default:
		return fmt.Errorf("%s %s cannot be used: %w", p.Flag, port, err)
	}
}

// ErrLocked is wrapped by the error of LockDir when another process has the
// directory.
var ErrLocked = errors.New("the data directory is in use")

const lockFile = "devstack.lock"

// Lock is the exclusive use of a data directory.
type Lock struct{ file *os.File }

// LockDir creates dir if need be and takes it for this process, without waiting.
// The kernel gives the lock up when the process ends, however it ends (flock(2)),
// so a stale file is never in the way and nothing needs to delete it.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%w: %s is locked%s; stop that stack or choose another directory with --data-dir", ErrLocked, dir, holder(f))
	}
	if err := writeHolder(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{file: f}, nil
}

// Release gives the directory up.
func (l *Lock) Release() error { return l.file.Close() }

func writeHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder says who has the lock, as far as the file tells.
func holder(f *os.File) string {
	text := make([]byte, 20)
	n, _ := f.ReadAt(text, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" by process %d", pid)
}
