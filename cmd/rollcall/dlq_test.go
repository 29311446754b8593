package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/dlq"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/kafkatest"
)

// dlqFixture is a Kafka with dead letters, and a rollcall dlq to use on it.
type dlqFixture struct {
	t      *testing.T
	fake   *kfake.Cluster
	addrs  []string
	client *kgo.Client
	made   time.Time
	// in and person are the terminal.
	in     string
	person bool
}

const sessionID = "0d0f3a2e-6f5c-4c0e-9a55-1b1d6f1f2a11"

func key(rae string) string { return "rollcall/v1/" + rae + "/sessions/" + sessionID + "/events" }

func newDLQFixture(t *testing.T) *dlqFixture {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, device.KafkaEvents), kfake.SeedTopics(2, device.KafkaDeadLetters))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return &dlqFixture{t: t, fake: fake, addrs: fake.ListenAddrs(), client: client, made: time.Now().Add(-time.Hour).Truncate(time.Millisecond)}
}

func (o *dlqFixture) produce(rs ...*kgo.Record) {
	o.t.Helper()
	require.NoError(o.t, o.client.ProduceSync(o.t.Context(), rs...).FirstErr())
}

// letter is the original record and its letter, in the given partition.
func (o *dlqFixture) letter(partition int32, r *kgo.Record, reason string) {
	o.t.Helper()
	if r.Topic == "" {
		r.Topic = device.KafkaEvents
	}
	if r.Timestamp.IsZero() {
		r.Timestamp = o.made
	}
	l := kafka.DeadLetter(device.KafkaDeadLetters, r, reason, "why \x1b[2J not")
	l.Partition = partition
	o.produce(l)
}

func (o *dlqFixture) run(args ...string) (code int, stdout, stderr string) {
	o.t.Helper()
	var out, errs bytes.Buffer
	a := app()
	a.Stdout, a.Stderr = &out, &errs
	a.Options = append(a.Options, kong.Bind(&cli.Terminal{In: strings.NewReader(o.in), Person: o.person}))
	code = a.Run(o.t.Context(), append([]string{"dlq", args[0], "--kafka-brokers=" + strings.Join(o.addrs, ","), "--timeout=1m"}, args[1:]...))
	return code, out.String(), errs.String()
}

// ok is run, where it must not fail.
func (o *dlqFixture) ok(args ...string) string {
	o.t.Helper()
	code, stdout, stderr := o.run(args...)
	require.Equal(o.t, cli.ExitOK, code, stderr)
	return stdout
}

// list is what rollcall dlq list says, as coordinates.
func (o *dlqFixture) list(args ...string) []string {
	o.t.Helper()
	var page struct{ Letters []dlq.Letter }
	require.NoError(o.t, json.Unmarshal([]byte(o.ok(append([]string{"list", "-o", "json"}, args...)...)), &page))
	at := []string{}
	for _, l := range page.Letters {
		at = append(at, l.At.String())
	}
	return at
}

// events are n records of the events' topic.
func (o *dlqFixture) events(n int) []*kgo.Record {
	o.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.fake.ListenAddrs()...), kgo.ConsumeTopics(device.KafkaEvents), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(o.t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(o.t.Context(), patience)
	defer cancel()
	var rs []*kgo.Record
	for len(rs) < n {
		rs = append(rs, cl.PollFetches(ctx).Records()...)
		require.NoError(o.t, ctx.Err(), "%d of %d records", len(rs), n)
	}
	require.Equal(o.t, n, o.count(device.KafkaEvents))
	return rs
}

func (o *dlqFixture) count(topic string) int {
	ends, err := kadm.NewClient(o.client).ListEndOffsets(o.t.Context(), topic)
	require.NoError(o.t, err)
	n := 0
	ends.Each(func(e kadm.ListedOffset) { n += int(e.Offset) })
	return n
}

// fourLetters are 0/0 to 0/2 and 1/0.
func fourLetters(t *testing.T) *dlqFixture {
	o := newDLQFixture(t)
	o.letter(0, &kgo.Record{Partition: 2, Offset: 7, Key: []byte(key("RAE-1")), Value: []byte(`{"a":"\u001b","b":[1]}`), Headers: []kgo.RecordHeader{{Key: "own", Value: []byte("x\x1b[31m")}}}, "bad-seq")
	o.letter(0, &kgo.Record{Partition: 2, Offset: 9, Key: []byte(key("RAE-2")), Value: nil}, "not-json")
	o.letter(0, &kgo.Record{Partition: -1, Offset: -1, Key: []byte("\xff\x00"), Value: []byte("\x00\xff\x1b[2J"), Timestamp: o.made.Add(-48 * time.Hour)}, "kafka-limit")
	o.letter(1, &kgo.Record{Partition: 0, Offset: 0, Key: []byte(key("RAE-1")), Value: []byte("text\n\x1b[2Jmore")}, "not-json")
	return o
}

func TestDLQList(t *testing.T) {
	o := fourLetters(t)
	out := o.ok("list")
	require.Regexp(t, `(?m)^LETTER +MADE +WAS AT +KEY +REASON +DETAIL +SIZE +STATE$`, out)
	require.Regexp(t, `(?m)^0/0 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ +rollcall.device-events/2/7 +rollcall/v1/RAE-1/sessions/.{30,}… +bad-seq +why �\[2J not +22 +open$`, out)
	require.Regexp(t, `(?m)^0/2 .* rollcall.device-events  +�� +kafka-limit `, out, "it never got into a partition")
	require.NotContains(t, out, "\x1b")

	require.Equal(t, []string{"0/0", "0/1", "0/2", "1/0"}, o.list())
	require.Equal(t, []string{"0/0"}, o.list("--reason=bad-seq"))
	require.Equal(t, []string{"0/0", "0/1", "1/0"}, o.list("--reason=bad-seq,not-json"))
	require.Equal(t, []string{"0/0", "1/0"}, o.list("--rae=RAE-1"))
	require.Equal(t, []string{"0/0", "0/1", "1/0"}, o.list("--session="+sessionID))
	require.Equal(t, []string{"0/0", "0/1", "1/0"}, o.list("--since=24h"))
	require.Equal(t, []string{"0/0", "0/1", "0/2", "1/0"}, o.list("--since="+o.made.Add(-72*time.Hour).Format(time.RFC3339)))
	require.Equal(t, []string{"0/1", "0/2", "1/0"}, o.list("--after=0/0"))
	require.Equal(t, []string{"1/0"}, o.list("--after=0/2"))
	require.Empty(t, o.list("--after=1/0"))

	code, out, stderr := o.run("list", "--limit=3")
	require.Equal(t, cli.ExitOK, code)
	require.Equal(t, "There are more: --after 0/2\n", stderr)
	require.NotContains(t, out, "1/0  ")
}

func TestDLQShow(t *testing.T) {
	o := fourLetters(t)
	out := o.ok("show", "0/0")
	require.Regexp(t, `(?m)^Record was at +rollcall.device-events/2/7$`, out)
	require.Regexp(t, `(?m)^own +x�\[31m$`, out)
	require.Regexp(t, `(?m)^rollcall-dlq-reason +bad-seq$`, out)
	require.Contains(t, out, "VALUE\n{\n  \"a\": \"\\u001b\",\n  \"b\": [\n    1\n  ]\n}\n")
	require.Contains(t, o.ok("show", "0/1"), "VALUE\n(none)\n")
	require.Contains(t, o.ok("show", "0/2"), "00000000  00 ff 1b 5b 32 4a")
	require.Contains(t, o.ok("show", "1/0"), "VALUE\n  text\n  �[2Jmore\n")
	for _, at := range []string{"0/0", "0/1", "0/2", "1/0"} {
		require.NotContains(t, o.ok("show", at), "\x1b")
	}
	require.Equal(t, "\x00\xff\x1b[2J", o.ok("show", "0/2", "--raw"))
	var l wholeLetter
	require.NoError(t, json.Unmarshal([]byte(o.ok("show", "0/0", "-o", "json")), &l))
	require.JSONEq(t, `{"a":"\u001b","b":[1]}`, string(l.Event))
	require.Equal(t, header{"own", []byte("x\x1b[31m")}, l.Headers[0])
	require.Equal(t, "RAE-1", l.RAE)

	for at, want := range map[string]string{
		"0/3": "no such letter: 0/3: the partition holds offsets 0 to 2\n",
		"7/0": "no such letter: 7/0: topic rollcall.device-events.dlq has no partition 7\n",
	} {
		code, _, stderr := o.run("show", at)
		require.Equal(t, cli.ExitNotFound, code)
		require.Equal(t, "rollcall: "+want, stderr)
	}
}

func TestDLQReplay(t *testing.T) {
	o := fourLetters(t)
	require.Equal(t, "Would be replayed: 3 letters (bad-seq 1, not-json 2) to rollcall.device-events 3\n", o.ok("replay", "--since=24h", "--dry-run"))
	require.Zero(t, o.count(device.KafkaEvents))
	require.Equal(t, 4, o.count(device.KafkaDeadLetters))

	require.Equal(t, "replayed  2\n", o.ok("replay", "--rae=RAE-1", "--yes"))
	for _, r := range o.events(2) {
		require.Equal(t, key("RAE-1"), string(r.Key))
		require.True(t, o.made.Equal(r.Timestamp), "%s is not %s", r.Timestamp, o.made)
		want := kgo.StickyKeyPartitioner(nil).ForTopic(device.KafkaEvents).Partition(r, 4)
		require.EqualValues(t, want, r.Partition, "the partition of its key")
	}
	first := o.events(2)[0]
	require.Equal(t, `{"a":"\u001b","b":[1]}`, string(first.Value))
	require.Equal(t, []kgo.RecordHeader{{Key: "own", Value: []byte("x\x1b[31m")}}, first.Headers)

	// Not twice, unknowingly.
	require.Equal(t, []string{"0/1", "0/2"}, o.list())
	require.Equal(t, []string{"0/0", "0/1", "0/2", "1/0"}, o.list("--all"))
	require.Regexp(t, `(?m)^0/0 .* replayed$`, o.ok("list", "--all"))
	require.Regexp(t, `(?m)^State +replayed$`, o.ok("show", "0/0"))
	require.Equal(t, "replayed  0\n", o.ok("replay", "--rae=RAE-1", "--yes"))
	code, _, stderr := o.run("replay", "0/0", "0/1", "--yes")
	require.Equal(t, cli.ExitFailed, code)
	require.Equal(t, "rollcall: 0/0 was replayed before; --again does it once more\n", stderr)
	require.Equal(t, 2, o.count(device.KafkaEvents))
	require.Equal(t, "replayed  1\n", o.ok("replay", "0/0", "--again", "--yes"))
	require.Equal(t, 3, o.count(device.KafkaEvents))

	// All that is left: a value that is null, and a key that is no topic.
	require.Equal(t, "replayed  2\n", o.ok("replay", "--all", "--yes"))
	require.Empty(t, o.list())
	var null int
	for _, r := range o.events(5) {
		if r.Value == nil {
			null++
		}
	}
	require.Equal(t, 1, null)

	// A mark is not a letter.
	code, _, stderr = o.run("show", "0/3")
	require.Equal(t, cli.ExitNotFound, code)
	require.Contains(t, stderr, "0/3 is not a letter, but a mark or a gap")
}

func TestDLQDrop(t *testing.T) {
	o := fourLetters(t)
	require.Equal(t, "dropped  1\n", o.ok("drop", "0/1", "--yes"))
	require.Equal(t, []string{"0/0", "0/2", "1/0"}, o.list())
	require.Equal(t, "dropped  1\n", o.ok("drop", "--reason=not-json", "--yes"))
	require.Regexp(t, `(?m)^1/0 .* dropped$`, o.ok("list", "--all"))
	require.Zero(t, o.count(device.KafkaEvents))
	require.Equal(t, "replayed  2\n", o.ok("replay", "--all", "--yes"), "dropped is not replayed")
	// It may be thought better of.
	require.Equal(t, "replayed  1\n", o.ok("replay", "0/1", "--again", "--yes"))
	require.Regexp(t, `(?m)^0/1 .* replayed$`, o.ok("list", "--all"))
}

func TestDLQAsks(t *testing.T) {
	o := fourLetters(t)
	code, _, stderr := o.run("drop", "0/0")
	require.Equal(t, cli.ExitUsage, code)
	require.Equal(t, "rollcall: Drop 1 letters (bad-seq 1)? nobody is there to confirm it: give --yes, or look first with --dry-run\n", stderr)

	o.person = true
	for _, o.in = range []string{"", "n\n", "\n", "yesterday\n"} {
		code, _, stderr = o.run("replay", "0/0")
		require.Equal(t, cli.ExitFailed, code)
		require.Equal(t, "Replay 1 letters (bad-seq 1) to rollcall.device-events 1? [y/N] rollcall: not confirmed: nothing was done\n", stderr)
	}
	require.Zero(t, o.count(device.KafkaEvents))
	require.Equal(t, 4, o.count(device.KafkaDeadLetters))
	o.in = "y\n"
	require.Equal(t, "replayed  1\n", o.ok("replay", "0/0"))
}

// What cannot be put back is named, left, and does not stop the rest.
func TestDLQReplayRefuses(t *testing.T) {
	o := newDLQFixture(t)
	whole := &kgo.Record{Topic: device.KafkaEvents, Key: []byte("k"), Value: bytes.Repeat([]byte("v"), 40<<10), Timestamp: o.made}
	cut := kafka.Truncate(kafka.DeadLetter(device.KafkaDeadLetters, whole, "too-large", ""))
	o.produce(cut)
	o.produce(&kgo.Record{Topic: device.KafkaDeadLetters, Value: []byte("stray")})
	o.letter(0, &kgo.Record{Value: nil}, kafka.ReasonDecompress)
	o.letter(0, &kgo.Record{Topic: device.KafkaDeadLetters, Value: []byte("loop")}, "x")
	o.letter(0, &kgo.Record{Value: []byte("good")}, "x")

	require.Regexp(t, `(?m)^0/0 .* 40960 +incomplete$`, o.ok("list"))
	code, stdout, stderr := o.run("replay", "--all", "--yes")
	require.Equal(t, cli.ExitFailed, code)
	require.Equal(t, "replayed          1\nincomplete, left  4\n", stdout)
	require.Contains(t, stderr, "letter=0/0")
	require.Contains(t, stderr, "32768 of its 40960 bytes were kept")
	require.Contains(t, stderr, "letter=0/1")
	require.Contains(t, stderr, "too large to decompress")
	require.Contains(t, stderr, "it was in the dead-letter topic itself")
	require.Contains(t, stderr, "rollcall: 4 letters were left as they are\n")
	require.Equal(t, []string{"0/0", "0/1", "0/2", "0/3"}, o.list())
	require.Equal(t, "dropped  4\n", o.ok("drop", "--all", "--yes"))

	o.letter(1, &kgo.Record{Topic: "gone", Value: []byte("v")}, "x")
	code, _, stderr = o.run("replay", "1/0", "--yes")
	require.Equal(t, cli.ExitFailed, code)
	require.Equal(t, "rollcall: 1 letters belong into topic \"gone\": topic gone does not exist\n", stderr)

	// The topic takes nothing: the letter stays open.
	o.letter(1, &kgo.Record{Value: []byte("v")}, "x")
	o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: device.KafkaEvents, Err: kerr.MessageTooLarge, Count: 1})
	code, stdout, stderr = o.run("replay", "1/1", "--yes")
	require.Equal(t, cli.ExitFailed, code)
	require.Equal(t, "replayed      0\nfailed, left  1\n", stdout)
	require.Contains(t, stderr, "letter=1/1")
	require.Equal(t, []string{"1/0", "1/1"}, o.list())

	// It takes the record, but the mark is not taken: that is said.
	o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: device.KafkaDeadLetters, Err: kerr.MessageTooLarge, Count: 1})
	code, stdout, stderr = o.run("replay", "1/1", "--yes")
	require.Equal(t, cli.ExitFailed, code)
	require.Equal(t, "replayed              0\nreplayed, not marked  1\n", stdout)
	require.Contains(t, stderr, "mark letters of partition 1 at offsets [[1 1]] as replayed: MESSAGE_TOO_LARGE")
	require.Equal(t, []string{"1/0", "1/1"}, o.list())
}

// The same on Apache Kafka, whose logs have control records and whose topics
// are not the fake's: after transactions, one of them aborted.
func TestDLQOnApacheKafka(t *testing.T) {
	brokers := kafkatest.Brokers(t)
	events, letters := "events-"+uuid.NewString(), "dlq-"+uuid.NewString()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID(letters))
	require.NoError(t, err)
	defer cl.Close()
	for _, topic := range []string{events, letters} {
		_, err = kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, topic)
		require.NoError(t, err)
	}
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		require.NoError(t, cl.BeginTransaction())
		r := &kgo.Record{Topic: events, Key: []byte(key("RAE-1")), Value: []byte{byte('a' + i)}, Timestamp: time.Now().Add(-time.Hour)}
		require.NoError(t, cl.ProduceSync(t.Context(), kafka.DeadLetter(letters, r, "bad-seq", "")).FirstErr())
		require.NoError(t, cl.EndTransaction(t.Context(), end))
	}
	o := &dlqFixture{t: t, addrs: brokers, client: cl}
	topic := "--dead-letter-topic=" + letters
	// Offsets 1, 3 and 5 are control records. 2 was aborted: nobody's letter.
	require.Equal(t, []string{"0/0", "0/4"}, o.list(topic))
	require.Equal(t, "replayed  1\n", o.ok("replay", topic, "0/4", "--yes"))
	require.Equal(t, "dropped  1\n", o.ok("drop", topic, "--all", "--yes"))
	require.Empty(t, o.list(topic))
	require.Equal(t, []string{"0/0", "0/4"}, o.list(topic, "--all", "--since=24h"))
	require.Equal(t, 1, o.count(events))
	code, _, stderr := o.run("show", topic, "0/3")
	require.Equal(t, cli.ExitNotFound, code)
	require.Contains(t, stderr, "0/3 is not a letter")
}

func TestDLQWarnsOfRetention(t *testing.T) {
	o := newDLQFixture(t)
	_, err := kadm.NewClient(o.client).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "retention.ms", Value: kadm.StringPtr("60000")}}, device.KafkaEvents)
	require.NoError(t, err)
	o.letter(0, &kgo.Record{Value: []byte("v")}, "x")
	code, _, stderr := o.run("replay", "0/0", "--dry-run")
	require.Equal(t, cli.ExitOK, code)
	require.Contains(t, stderr, "retention=1m0s")
}

func TestDLQRefusals(t *testing.T) {
	o := newDLQFixture(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"replay"}, "dlq replay: say which letters: PARTITION/OFFSET …, a filter, or --all"},
		{[]string{"drop", "0/0", "--all"}, "dlq drop: letters are named: a filter and --all choose among all, and are not for these"},
		{[]string{"replay", "--all", "--rae=x"}, "dlq replay: --all and a filter exclude each other"},
		{[]string{"replay", "17"}, `"17" is not of the form PARTITION/OFFSET`},
		{[]string{"show", "0/-1"}, `"0/-1" is not of the form PARTITION/OFFSET`},
		{[]string{"list", "--since=yesterday"}, `--since: "yesterday" is not a time: give how long ago`},
		{[]string{"list", "--limit=0"}, "dlq list: --limit must be from 1 to 10000"},
		{[]string{"show", "0/0", "--raw", "-o", "json"}, "--raw and --output=json exclude each other"},
	} {
		code, _, stderr := o.run(c.args...)
		require.Equal(t, cli.ExitUsage, code, c.args)
		require.Contains(t, stderr, c.want)
	}
	code, _, stderr := o.run("list", "--dead-letter-topic=absent")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, ": topic absent does not exist\n")
}

func TestDLQInAnOutage(t *testing.T) {
	t.Parallel()
	o := newDLQFixture(t)
	o.fake.Close()
	code, _, stderr := o.run("list", "--timeout=5s")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "rollcall: dead letters at 127.0.0.1:")
	require.Contains(t, stderr, "nobody listens there")
}

func TestIsTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer func() { _ = null.Close() }()
	require.False(t, cli.IsTerminal(null))
	require.False(t, cli.IsTerminal(&bytes.Buffer{}))
	file, err := os.Create(t.TempDir() + "/f")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	require.False(t, cli.IsTerminal(file))
	if tty, err := os.Open("/dev/ptmx"); err == nil {
		require.True(t, cli.IsTerminal(tty))
		_ = tty.Close()
	}
}
