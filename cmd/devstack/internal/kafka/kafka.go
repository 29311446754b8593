// Package kafka runs a Kafka-protocol broker inside this process, with its log
// on disk: franz-go's kfake, which speaks to real clients (consumer groups,
// idempotent producers, kcat) over TCP.
//
// What it promises is what a single Kafka broker promises with its defaults
// (log.flush.interval.messages unset): an acknowledged record or offset commit
// survives kill -9 of the process, because it was written to its file before the
// answer, and may be lost when the machine loses power. Options.SyncWrites
// closes that gap with an fsync for each batch.
//
// It is one node without replication or quotas, and it keeps everything: no
// retention is set on its topics, because kfake forgets the high watermark of a
// partition whose last segment was removed and would then hand out old offsets
// for new records, which the ingest positions downstream would take for
// duplicates. Start with an empty data directory to get rid of old records.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// DefaultPartitions is the number of partitions of a topic that names none.
const DefaultPartitions = 8

// Topic is a topic that Start creates. The partition count of a topic that
// exists is never changed: it would send the keys of live sessions to other
// partitions.
type Topic struct {
	Name       string
	Partitions int32 // default: DefaultPartitions
}

// Topics returns the topics of the platform.
func Topics() []Topic {
	return []Topic{
		{Name: device.KafkaEvents},
		{Name: device.KafkaDeadLetters, Partitions: 1},
		{Name: device.KafkaCommands},
		{Name: device.KafkaReplies},
	}
}

// Options says where the broker keeps its log and where it listens.
type Options struct {
	// DataDir holds segments, committed offsets and topics. Required; created if
	// absent. It belongs to one process at a time; the caller holds the lock.
	DataDir string

	// Addr is 127.0.0.1:port: kfake listens nowhere else. Required. Port 0 lets
	// the kernel choose.
	Addr string

	// Topics are created if absent. Nil: Topics().
	Topics []Topic

	// SyncWrites syncs the disk for each batch. Default false.
	SyncWrites bool

	// Logger gets the broker's warnings and errors. Default: slog.Default().
	Logger *slog.Logger
}

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	dir     string
	addr    string
}

// running marks a data directory whose broker was not closed.
const running = "running"

// Start opens or creates the log in Options.DataDir and returns when the broker
// accepts connections and has its topics. After an unclean end it reads the
// whole log to find what is valid; otherwise only its batches' headers.
func Start(ctx context.Context, o Options) (*Broker, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Topics == nil {
		o.Topics = Topics()
	}
	if o.DataDir == "" {
		return nil, errors.New("kafka: Options.DataDir is empty")
	}
	port, err := loopbackPort(o.Addr)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	if err := recoverLogs(o); err != nil {
		return nil, fmt.Errorf("kafka: recover %s: %w", o.DataDir, err)
	}
	cluster, err := open(o, port)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	b := &Broker{cluster: cluster, dir: o.DataDir, addr: cluster.ListenAddrs()[0]}
	if err := createTopics(ctx, b.addr, o.Topics); err != nil {
		b.cluster.Close()
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return b, nil
}

// Addr is the host:port of the broker, a bootstrap server for clients.
func (b *Broker) Addr() string { return b.addr }

// Close writes what a quick start needs, syncs, and stops, or returns when ctx
// is done, whichever is first. Close clients before it, so that consumers leave
// their group rather than time out of it. It is called once.
func (b *Broker) Close(ctx context.Context) error {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		b.cluster.Close()
	}()
	select {
	case <-closed:
		if err := os.Remove(filepath.Join(b.dir, running)); err != nil {
			return fmt.Errorf("kafka: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kafka: still stopping: %w", context.Cause(ctx))
	}
}

func open(o Options, port int) (*kfake.Cluster, error) {
	opts := []kfake.Opt{
		kfake.NumBrokers(1), kfake.Ports(port), kfake.ClusterID("rollcall-devstack"), kfake.DataDir(o.DataDir), kfake.WithLogger(logger{o.Logger}),
		// A stack that was off for a week must find its committed offsets.
		kfake.BrokerConfigs(map[string]string{"offsets.retention.minutes": strconv.Itoa(10 * 365 * 24 * 60)}),
	}
	if o.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	return kfake.NewCluster(opts...)
}

// recoverLogs brings a data directory into a state from which a broker can go on
// appending, and marks it as running.
//
// Members of consumer groups, which kfake writes down when it is closed, are
// dropped: they were clients of a process that is gone, and a group that still
// counts them keeps their partitions until their session times out.
//
// After an unclean end there are two things more. The producers' sequence
// windows are those of the last clean end, so that a producer that outlived the
// broker would be refused. And the offset log may end in half an entry: kfake
// skips it when it reads but appends after it, so that the next reading stops
// there and loses every commit that came later. Opening and closing the
// directory once rewrites that log from what was valid.
func recoverLogs(o Options) error {
	if err := removeIfThere(filepath.Join(o.DataDir, "session_state.json")); err != nil {
		return err
	}
	marker := filepath.Join(o.DataDir, running)
	if _, err := os.Stat(marker); err == nil {
		if err := removeIfThere(filepath.Join(o.DataDir, "seq_windows.json")); err != nil {
			return err
		}
		cluster, err := open(o, 0)
		if err != nil {
			return err
		}
		cluster.Close()
		if err := removeIfThere(filepath.Join(o.DataDir, "session_state.json")); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(marker, nil, 0o644)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// createTopics creates what is missing. It is not left to kfake's seeding, which
// happens only in an empty directory and can be interrupted.
func createTopics(ctx context.Context, addr string, topics []Topic) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for _, topic := range topics {
		partitions := topic.Partitions
		if partitions == 0 {
			partitions = DefaultPartitions
		}
		if _, err := admin.CreateTopic(ctx, partitions, 1, nil, topic.Name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", topic.Name, err)
		}
	}
	return nil
}

func loopbackPort(addr string) (int, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, fmt.Errorf("kafka: Options.Addr: %w", err)
	}
	if host != "127.0.0.1" {
		return 0, fmt.Errorf("kafka: Options.Addr %q: the development broker listens on 127.0.0.1 only", addr)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535 {
		return 0, fmt.Errorf("kafka: Options.Addr %q: the port must be between 0 and 65535", addr)
	}
	return port, nil
}

// logger passes on what needs somebody's attention.
type logger struct{ to *slog.Logger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.to.Error("kafka broker", "err", fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.to.Warn("kafka broker", "err", fmt.Sprintf(format, args...))
	}
}
