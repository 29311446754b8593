package porttest_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/porttest"
)

func TestAPortIsGivenOnce(t *testing.T) {
	seen := map[string]bool{}
	for range 300 {
		addr := porttest.Addr(t)
		require.False(t, seen[addr], addr)
		seen[addr] = true
		l, err := net.Listen("tcp", addr)
		require.NoError(t, err, "nobody listens there")
		require.NoError(t, l.Close())
	}
}
