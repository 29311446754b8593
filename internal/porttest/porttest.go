// Package porttest gives tests TCP ports for the servers that they start.
package porttest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports that a kernel chooses, for ":0" and for connections, begin above: at
// 32768 on Linux. One of those that is let go, to be taken again by a server, can
// be another's by then, and a client that tries it meanwhile can even connect to
// itself.
const first, last = 22_000, 32_767

// Port returns a port of 127.0.0.1 that nobody listens at, and that nobody else
// who asks here is given before the test ends. It says so to other processes by
// holding the UDP port of the same number.
func Port(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := first + rand.IntN(last-first+1)
		addr := loopback(port)
		held, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			_ = held.Close()
			continue
		}
		_ = l.Close()
		t.Cleanup(func() { _ = held.Close() })
		return port
	}
	t.Fatalf("no free port from %d to %d", first, last)
	return 0
}

// Addr is Port with its host.
func Addr(t testing.TB) string {
	t.Helper()
	return loopback(Port(t))
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
