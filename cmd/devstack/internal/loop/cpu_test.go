package loop_test

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

// cpu is processor time, of this process and of those below it: PostgreSQL.
type cpu struct{ self, children time.Duration }

func cpuTime(b *testing.B) cpu {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return cpu{time.Duration(u.Utime.Nano() + u.Stime.Nano()), children()}
}

func children() time.Duration {
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
