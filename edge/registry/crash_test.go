package registry_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// crashDir tells the test binary that it is the child which will be killed.
const crashDir = "ROLLCALL_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := churn(dir); err != nil {
			slog.Error("churn", "err", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func crashOptions(dir string) registry.Options {
	return registry.Options{
		Path: filepath.Join(dir, "registry.db"), RAE: rae, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		SnapshotInterval: 20 * time.Millisecond, OfflineAfter: 10 * time.Millisecond, MaxOutboxBytes: 8_000,
	}
}

// churn observes, does commands and forgets as fast as it can, while a consumer writes
// each event it gets to a file before it acknowledges it. It runs until it is
// killed.
func churn(dir string) error {
	r, err := registry.Open(crashOptions(dir))
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "handed-out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	go func() { _ = consume(r, log) }()
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	ctx := context.Background()
	asked, err := os.OpenFile(filepath.Join(dir, "asked"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := askAgain(ctx, r, asked); err != nil {
		return err
	}
	for n := r.Position().Frame + 1; ; n++ {
		steps := make([]registry.Step, 1+random.IntN(4))
		for i := range steps {
			for range 1 + random.IntN(3) {
				steps[i].Observations = append(steps[i].Observations, step(random, time.Now()))
			}
			steps[i].Position = registry.Position{Source: "churn", Frame: n}
		}
		if err := r.Observe(ctx, steps...); err != nil {
			return err
		}
		if random.IntN(10) == 0 {
			_ = r.Forget(ctx, steps[0].Observations[0].MAC, "churn")
		}
		if devices := r.Devices(); len(devices) > 0 && random.IntN(2) == 0 {
			c := device.Command{ID: uuid.NewString(), RAE: rae, Session: devices[0].Session, Action: device.ActionSnapshot, Expires: time.Now().Add(time.Hour)}
			if err := json.NewEncoder(asked).Encode(c); err != nil {
				return err
			}
			if err := ask(ctx, r, c); err != nil {
				return err
			}
		}
		if err := r.RunDueWork(ctx); err != nil {
			return err
		}
	}
}

// ask does or answers a command as package command does.
func ask(ctx context.Context, r *registry.Registry, c device.Command) error {
	reply, ok := r.RememberedReply(c.ID)
	if ok {
		return unlessFull(r.Reply(ctx, reply, c.Expires))
	}
	_, err := r.Do(ctx, c, func(txn *registry.CommandTxn) (any, error) {
		seq, err := txn.Snapshot()
		return device.SnapshotResult{Seq: seq}, err
	})
	if errors.Is(err, registry.ErrUnknownSession) {
		return nil
	}
	return unlessFull(err)
}

func unlessFull(err error) error {
	if errors.Is(err, registry.ErrOutboxFull) {
		return nil
	}
	return err
}

// askAgain repeats the newest commands of the process before.
func askAgain(ctx context.Context, r *registry.Registry, asked *os.File) error {
	var commands []device.Command
	for lines := json.NewDecoder(asked); ; {
		var c device.Command
		if lines.Decode(&c) != nil {
			break // the end, or a line that was cut off
		}
		commands = append(commands, c)
	}
	for _, c := range commands[max(0, len(commands)-3):] {
		if err := ask(ctx, r, c); err != nil {
			return err
		}
	}
	return nil
}

func consume(r *registry.Registry, log *os.File) error {
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for {
		entries, err := r.Read(0, 1+random.IntN(20))
		if err != nil {
			return err
		}
		for _, e := range entries {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if _, err := log.Write(append(b, '\n')); err != nil {
				return err
			}
		}
		if len(entries) > 0 {
			if err := r.Ack(context.Background(), entries[random.IntN(len(entries))].Key); err != nil {
				return err
			}
		}
	}
}

// TestKill9 kills a churning process again and again, at any point, and checks
// after each time what was ever handed out against the record.
func TestKill9(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	frame, events := int64(0), 0
	replies := map[string]string{} // by command
	for range rounds {
		child := exec.Command(os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), crashDir+"="+dir)
		child.Stderr = os.Stderr
		require.NoError(t, child.Start())
		// The file grows as soon as the child works; then it is hit anywhere.
		before := size(filepath.Join(dir, "handed-out"))
		require.Eventually(t, func() bool { return size(filepath.Join(dir, "handed-out")) > before }, time.Minute, time.Millisecond)
		time.Sleep(time.Duration(random.IntN(120_000)) * time.Microsecond) // the moment is what is random here
		require.NoError(t, child.Process.Kill())
		require.EqualError(t, child.Wait(), "signal: killed")

		handed, answers := handedOut(t, filepath.Join(dir, "handed-out"))
		for _, e := range answers {
			reply, err := device.DecodeReply(e.Topic, e.Payload)
			require.NoError(t, err)
			if before, ok := replies[reply.Command]; ok {
				require.Equal(t, before, string(e.Payload), "the command was done twice")
			}
			replies[reply.Command] = string(e.Payload)
		}
		r, err := registry.Open(crashOptions(dir))
		require.NoError(t, err)
		waiting, _ := decode(t, r)
		requireInvariants(t, append(handed, waiting...), r.Devices())
		require.GreaterOrEqual(t, r.Position().Frame, frame)
		frame, events = r.Position().Frame, len(handed)
		require.NoError(t, r.Close())
	}
	if !testing.Short() {
		require.NotEmpty(t, replies)
	}
	t.Logf("%d kills: %d frames taken in, %d events handed out, %d commands answered", rounds, frame, events, len(replies))
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// handedOut reads the consumer's file. Its last line may be cut off by the
// kill: that event was not acknowledged. It is taken off, for the next child
// goes on behind it.
func handedOut(t *testing.T, path string) (events []device.Event, replies []registry.Entry) {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	whole, lines := int64(0), bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			require.NoError(t, os.Truncate(path, whole))
			return events, replies
		}
		require.NoError(t, err)
		whole += int64(len(line))
		var e registry.Entry
		require.NoError(t, json.Unmarshal(line, &e), "%q", line)
		if isReply(t, e) {
			replies = append(replies, e)
			continue
		}
		event, err := device.DecodeRecord(e.Topic, e.Payload)
		require.NoError(t, err)
		events = append(events, event)
	}
}
