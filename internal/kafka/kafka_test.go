package kafka_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
)

func TestOptionsAreRefusedBeforeAnythingStarts(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	b := []string{"127.0.0.1:9092"}
	for name, tc := range map[string]struct {
		o    kafka.Options
		want string
	}{
		"no brokers":      {kafka.Options{}, "no brokers"},
		"no port":         {kafka.Options{Brokers: []string{"localhost"}}, "not host:port"},
		"no CA file":      {kafka.Options{Brokers: b, CAFile: empty + "x"}, "CA file"},
		"empty CA file":   {kafka.Options{Brokers: b, CAFile: empty}, "no PEM certificate"},
		"key alone":       {kafka.Options{Brokers: b, KeyFile: empty}, "both"},
		"bad certificate": {kafka.Options{Brokers: b, KeyFile: empty, CertFile: empty}, "client certificate"},
		"mechanism":       {kafka.Options{Brokers: b, SASLMechanism: "GSSAPI"}, "GSSAPI"},
		"no user":         {kafka.Options{Brokers: b, SASLMechanism: kafka.ScramSHA256}, "needs a user"},
		"user alone":      {kafka.Options{Brokers: b, User: "u"}, "no SASL mechanism"},
		"empty token":     {kafka.Options{Brokers: b, SASLMechanism: kafka.OAuthBearer, TokenFile: empty}, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tc.o.Opts()
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestAuthenticates(t *testing.T) {
	for _, mechanism := range []string{kafka.Plain, kafka.ScramSHA256, kafka.ScramSHA512} {
		t.Run(mechanism, func(t *testing.T) {
			c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(mechanism, "u", "secret"), kfake.SeedTopics(1, "t"))
			require.NoError(t, err)
			defer c.Close()
			opts, err := kafka.Options{Brokers: c.ListenAddrs(), SASLMechanism: mechanism, User: "u", Password: "secret"}.Opts()
			require.NoError(t, err)
			cl, err := kgo.NewClient(opts...)
			require.NoError(t, err)
			defer cl.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.NoError(t, kafka.Wait(ctx, cl, slog.New(slog.DiscardHandler), "t"))
		})
	}
}

func TestWaitSaysWhichTopicIsMissing(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "here"))
	require.NoError(t, err)
	defer c.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	require.NoError(t, err)
	defer cl.Close()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.ErrorIs(t, kafka.Wait(ctx, cl, slog.New(slog.NewTextHandler(&stopAfterOne{&out, cancel}, nil)), "here", "gone"), context.Canceled)
	require.Contains(t, out.String(), "gone")
}

func TestDeadLetterKeepsAndTruncateTells(t *testing.T) {
	value := bytes.Repeat([]byte("v"), 1<<20)
	r := &kgo.Record{
		Topic: "events", Partition: 3, Offset: 42, Key: bytes.Repeat([]byte("k"), 1<<20), Value: value,
		Timestamp: time.UnixMilli(1700000000000),
		Headers:   []kgo.RecordHeader{{Key: "own", Value: []byte("x")}, {Key: "big", Value: bytes.Repeat([]byte("h"), 1<<20)}},
	}
	letter := kafka.DeadLetter("dlq", r, "not-json", strings.Repeat("é", 2000))
	require.Equal(t, value, letter.Value)
	require.Equal(t, r.Key, letter.Key)
	require.Equal(t, r.Timestamp, letter.Timestamp)
	require.Equal(t, []string{"events", "3", "42", "not-json", "x"}, []string{
		kafka.Header(letter, kafka.HeaderTopic), kafka.Header(letter, kafka.HeaderPartition),
		kafka.Header(letter, kafka.HeaderOffset), kafka.Header(letter, kafka.HeaderReason), kafka.Header(letter, "own"),
	})

	cut := kafka.Truncate(letter)
	size := len(cut.Key) + len(cut.Value)
	for _, h := range cut.Headers {
		size += len(h.Key) + len(h.Value)
	}
	require.Less(t, size, 64<<10)
	sum := sha256.Sum256(value)
	require.Equal(t, hex.EncodeToString(sum[:]), kafka.Header(cut, kafka.HeaderSHA256))
	require.Equal(t, "1048576", kafka.Header(cut, kafka.HeaderSize))
	require.Equal(t, "2", kafka.Header(cut, kafka.HeaderDropped))
	require.Equal(t, "42", kafka.Header(cut, kafka.HeaderOffset))
}

func TestOriginalIsWhatWasDeadLettered(t *testing.T) {
	r := &kgo.Record{
		Topic: "events", Partition: 3, Offset: 42, Key: []byte("k"), Value: []byte("v"), Timestamp: time.UnixMilli(1700000000000),
		Headers: []kgo.RecordHeader{{Key: kafka.HeaderReason, Value: []byte("its own")}, {Key: "a"}, {Key: "a", Value: []byte("again")}},
	}
	letter := kafka.DeadLetter("dlq", r, "not-json", "why")
	got, err := kafka.Original(letter)
	require.NoError(t, err)
	require.Equal(t, r, got)

	for name, letter := range map[string]*kgo.Record{
		"shortened":    kafka.Truncate(letter),
		"not a letter": r,
		"a batch":      kafka.DeadLetter("dlq", &kgo.Record{Topic: "events"}, kafka.ReasonDecompress, ""),
	} {
		_, err := kafka.Original(letter)
		require.ErrorIs(t, err, kafka.ErrIncomplete, name)
	}
}
