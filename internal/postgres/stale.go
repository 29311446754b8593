package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopStale ends what an earlier owner of the data directory left running, and
// removes its pid file. We hold the directory's lock, so that owner is dead.
//
// A process is ours when it works in the cluster's own directory, which every
// process of a PostgreSQL server does. The number in postmaster.pid proves
// nothing: after a reboot it may be anyone's. Back ends that outlived their
// postmaster are found this way too; to start beside them would corrupt the
// cluster.
func (s *Server) stopStale(ctx context.Context) error {
	data, err := os.Stat(s.path("data"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at cluster: %w", err)
	}
	for _, step := range shutdownSteps {
		left := workingIn(data)
		if len(left) > 0 {
			s.log.Info("stopping the PostgreSQL of an earlier run", "pids", left, "signal", step.signal.String())
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, step.signal)
		}
		if left, err = awaitGone(ctx, data, step.wait); err != nil {
			return err
		}
		if len(left) == 0 {
			if err := os.Remove(s.path("data/postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove stale pid file: %w", err)
			}
			return nil
		}
	}
	return fmt.Errorf("processes %v still run on %s and cannot be stopped", workingIn(data), s.opts.DataDir)
}

func awaitGone(ctx context.Context, data os.FileInfo, wait time.Duration) (left []int, err error) {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if left = workingIn(data); len(left) == 0 {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return left, fmt.Errorf("stop the PostgreSQL of an earlier run (pids %v): %w", left, ctx.Err())
		case <-deadline.C:
			return left, nil
		case <-tick.C:
		}
	}
}

// workingIn lists the processes named postgres whose working directory is dir.
// Those whose directory we may not read belong to users who could not have run
// a server on it.
func workingIn(dir os.FileInfo) []int {
	var pids []int
	names, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, cwd := range names {
		info, err := os.Stat(cwd)
		if err != nil || !os.SameFile(info, dir) {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(filepath.Dir(cwd), "comm"))
		if err != nil || !strings.HasPrefix(string(comm), "postgres") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(cwd))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
