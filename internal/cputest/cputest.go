// Package cputest measures processor time for benchmarks. On a machine that does
// other work too it tells settings apart where the clock does not.
package cputest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Self is the user and system time of this process so far.
func Self(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Children is the user and system time of the processes below this one, such as
// PostgreSQL's. Those that have ended do not count. 0 where there is no /proc.
func Children() time.Duration {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	parent, ticks := map[int]int{}, map[int]int{}
	for _, file := range files {
		text, _ := os.ReadFile(file)
		// The name, in parentheses, may hold anything; after it come the
		// state, the parent, and as the 12th and 13th user and system time.
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(f) < 13 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		parent[pid], _ = strconv.Atoi(f[1])
		ticks[pid] = user + system
	}
	var sum int
	for pid, n := range ticks {
		for p := parent[pid]; p > 1; p = parent[p] {
			if p == os.Getpid() {
				sum += n
				break
			}
		}
	}
	return time.Duration(sum) * time.Second / 100 // USER_HZ
}
