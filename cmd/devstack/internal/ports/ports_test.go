package ports_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/childtest"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/ports"
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

func TestMain(m *testing.M) {
	childtest.Main(m, func(dir string) error {
		_, err := ports.LockDir(dir)
		return err
	})
}

func TestTakenPortNamesItsFlag(t *testing.T) {
	addr := porttest.Addr(t)
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)

	err = ports.Check(ports.Port{Flag: "--kafka-port", Addr: "127.0.0.1:0"}, ports.Port{Flag: "--temporal-port", Addr: addr}, ports.Port{Flag: "--ui-port"})
	require.EqualError(t, err, "--temporal-port "+port+" is in use (listen tcp "+addr+": bind: address already in use); choose another with --temporal-port or stop what holds it")

	require.NoError(t, l.Close())
	require.NoError(t, ports.Check(ports.Port{Flag: "--temporal-port", Addr: addr}), "a check leaves nothing behind")
	require.NoError(t, ports.Check(ports.Port{Flag: "--temporal-port", Addr: addr}))
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	addr := porttest.Addr(t)
	err := ports.Check(
		ports.Port{Flag: "--a", Addr: addr},
		ports.Port{Flag: "--b", Addr: addr},
		ports.Port{Flag: "--c", Addr: "nonsense"},
		ports.Port{Flag: "--d", Addr: "127.0.0.1:99999"},
	)
	require.Len(t, strings.Split(err.Error(), "\n"), 3)
	require.ErrorContains(t, err, "--a and --b are both "+addr)
	require.ErrorContains(t, err, "--c nonsense is not host:port")
	require.ErrorContains(t, err, "--d 99999 cannot be used")
}

func TestOneStackToADirectory(t *testing.T) {
	dir := t.TempDir() + "/new"
	lock, err := ports.LockDir(dir)
	require.NoError(t, err)
	_, err = ports.LockDir(dir)
	require.ErrorIs(t, err, ports.ErrLocked)
	require.ErrorContains(t, err, fmt.Sprintf("%s is locked by process %d", dir, os.Getpid()))
	require.ErrorContains(t, err, "--data-dir")
	require.NoError(t, lock.Release())
	lock, err = ports.LockDir(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Release())
}

func TestLockEndsWithItsProcess(t *testing.T) {
	dir := t.TempDir()
	pid, kill := childtest.Start(t, dir)

	_, err := ports.LockDir(dir)
	require.ErrorIs(t, err, ports.ErrLocked)
	require.ErrorContains(t, err, fmt.Sprintf("by process %d", pid))

	kill()
	lock, err := ports.LockDir(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Release())
}
