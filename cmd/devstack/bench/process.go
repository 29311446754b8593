package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child that ends when this process does, however it ends.
type process struct {
	name string
	log  string // file of its stderr
	pid  int
	done chan struct{} // closed when it has ended
}

// spawn starts a child whose environment is env alone: a variable of whoever
// runs the benchmark is no setting of what is measured. With first, the first
// line that the child prints is returned: it says that it is ready.
//
// The kernel sends the parent-death signal when the thread that forked ends
// (prctl(2)), so that thread is kept.
func spawn(ctx context.Context, name, log string, env []string, first bool, args ...string) (*process, string, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, "", err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(log)}, env...)
	cmd.Stderr, cmd.Stdout = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var stdout io.ReadCloser
	if first {
		cmd.Stdout = nil
		if stdout, err = cmd.StdoutPipe(); err != nil {
			return nil, "", err
		}
	}
	p := &process{name: name, log: log, done: make(chan struct{})}
	started := make(chan error, 1)
	line := make(chan string, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = out.Close()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		if first {
			s, _ := bufio.NewReader(stdout).ReadString('\n')
			line <- strings.TrimSpace(s)
		}
		_ = cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	if !first {
		return p, "", nil
	}
	select {
	case s := <-line:
		if s == "" {
			return nil, "", fmt.Errorf("%s ended while it started: %s", name, p.tail())
		}
		return p, s, nil
	case <-time.After(2 * time.Minute):
		p.kill()
		return nil, "", fmt.Errorf("%s is not ready after two minutes: %s", name, p.tail())
	case <-ctx.Done():
		p.kill()
		return nil, "", ctx.Err()
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill is SIGKILL: no handler runs, nothing is flushed.
func (p *process) kill() {
	if p == nil || p.ended() {
		return
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.done
}

// stop is SIGTERM, and SIGKILL after a minute.
func (p *process) stop() {
	if p == nil || p.ended() {
		return
	}
	_ = syscall.Kill(p.pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.kill()
	}
}

// tail is the end of its log.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// memory is what the child has resident now, and the most it ever had, in bytes
// (VmRSS and VmHWM of proc(5)).
func (p *process) memory() (now, peak float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			now = kib * 1024
		case name == "VmHWM":
			peak = kib * 1024
		}
	}
	if peak == 0 {
		return 0, 0, errors.New(p.name + " has no memory: it has ended")
	}
	return now, peak, nil
}

// cpu is the processor time that the child has used (utime and stime of
// proc(5), in ticks of 1/100 s on every Linux that Go runs on).
func (p *process) cpu() time.Duration { return cpuOf(strconv.Itoa(p.pid)) }

func cpuOf(pid string) time.Duration {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}
