package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// quarantineFixture is a database with quarantined batches, and the Kafka they came from.
type quarantineFixture struct {
	*dlqFixture
	url string
}

// newQuarantineFixture has records of two sessions in partition 2, offsets 0 to 5, by turns.
func newQuarantineFixture(t *testing.T) *quarantineFixture {
	w := &quarantineFixture{newDLQFixture(t), postgrestest.New(t)}
	_, err := store.Migrate(t.Context(), w.url, nil)
	require.NoError(t, err)
	for n := range 6 {
		k := []string{tv, server}[n%2]
		w.produce(&kgo.Record{Topic: device.KafkaEvents, Partition: 2, Key: []byte("rollcall/v1/RAE-1/sessions/" + k + "/events"),
			Value: []byte{'v', byte('0' + n)}, Headers: []kgo.RecordHeader{{Key: "own", Value: []byte("h")}}, Timestamp: w.made})
	}
	db, err := store.Open(t.Context(), store.Options{URL: w.url})
	require.NoError(t, err)
	defer db.Close()
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	require.NoError(t, db.Apply(t.Context(), []store.Update{{RAE: "RAE-1", Session: tv, Quarantined: []store.Quarantined{
		{Topic: device.KafkaEvents, Partition: 2, First: 0, Last: 4, Cause: "database", Detail: "SQLSTATE 22P05 \x1b[2J", At: at},
		{Topic: device.KafkaEvents, Partition: 2, First: 3, Last: 3, Cause: "foreign", At: at.Add(time.Second)},
		{Cause: "payload", Detail: "not JSON", At: at.Add(2 * time.Second)},
		{Topic: "elsewhere", Partition: 0, First: 0, Last: 0, Cause: "invalid", At: at.Add(3 * time.Second)},
		{Topic: device.KafkaEvents, Partition: 2, First: 5, Last: 9, Cause: "database", At: at.Add(4 * time.Second)},
	}}}))
	return w
}

func (w *quarantineFixture) run(args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	var out, errs bytes.Buffer
	a := app()
	a.Stdout, a.Stderr = &out, &errs
	a.Options = append(a.Options, kong.Bind(&cli.Terminal{In: strings.NewReader(w.in), Person: w.person}))
	args = append([]string{"quarantine", args[0], "--database-url=" + w.url, "--timeout=1m"}, args[1:]...)
	if args[1] == "replay" || args[1] == "show" {
		args = append(args, "--kafka-brokers="+strings.Join(w.addrs, ","))
	}
	code = a.Run(w.t.Context(), args)
	return code, out.String(), errs.String()
}

func (w *quarantineFixture) list(args ...string) []store.QuarantinedBatch {
	w.t.Helper()
	code, out, stderr := w.run(append([]string{"list", "-o", "json"}, args...)...)
	require.Equal(w.t, cli.ExitOK, code, stderr)
	var page struct{ Batches []store.QuarantinedBatch }
	require.NoError(w.t, json.Unmarshal([]byte(out), &page))
	return page.Batches
}

func TestQuarantineList(t *testing.T) {
	w := newQuarantineFixture(t)
	code, out, stderr := w.run("list")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `(?m)^BATCH +SINCE +RAE +SESSION +WAS AT +CAUSE +DETAIL +STATE$`, out)
	require.Regexp(t, `(?m)^[0-9a-f-]{36}  2026-11-21 09:00:00Z  RAE-1  `+tv+`  rollcall.device-events/2/0-4 +database  SQLSTATE 22P05 �\[2J +open$`, out)
	require.Regexp(t, `(?m)^.* `+tv+`  - +payload +not JSON +open$`, out)
	require.NotContains(t, out, "\x1b")
	require.Len(t, w.list("--cause=database,foreign"), 3)
	require.Len(t, w.list("--rae=RAE-1", "--session="+tv), 5)
	require.Empty(t, w.list("--rae=RAE-2"))
	_, _, stderr = w.run("list", "--limit=2")
	require.Regexp(t, `^There are more: --after [0-9a-f-]{36}\n$`, stderr)
	require.Len(t, w.list("--after="+strings.TrimSpace(strings.TrimPrefix(stderr, "There are more: --after "))), 3)
}

func TestQuarantineShow(t *testing.T) {
	w := newQuarantineFixture(t)
	all := w.list()
	code, out, stderr := w.run("show", all[0].ID)
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `(?m)^Records were at +rollcall.device-events/2/0-4$`, out)
	require.NotContains(t, out, "RECORD")
	_, out, stderr = w.run("show", all[0].ID, "--records")
	require.Equal(t, 3, strings.Count(out, "RECORD 2/"), stderr)
	require.Contains(t, out, "RECORD 2/4 of ")
	require.Contains(t, out, "VALUE\n  v4\n")
	require.NotContains(t, out, "v1", "of another session")

	code, out, stderr = w.run("show", all[1].ID, "--records")
	require.Equal(t, cli.ExitNotFound, code)
	require.Contains(t, out, "foreign", "what is known is shown all the same")
	require.Contains(t, stderr, "rollcall.device-events/2/3-3 has none with the key rollcall/v1/RAE-1/sessions/"+tv+"/events")
	code, _, stderr = w.run("show", server)
	require.Equal(t, cli.ExitNotFound, code)
	require.Contains(t, stderr, "no quarantined batch has the ID "+server)
}

func TestQuarantineReplay(t *testing.T) {
	w := newQuarantineFixture(t)
	all := w.list()
	before := w.count(device.KafkaEvents)
	code, out, stderr := w.run("replay", all[0].ID, "--dry-run")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `^would be replayed +1\nrecords +3\n$`, out)
	code, _, stderr = w.run("replay", all[0].ID)
	require.Equal(t, cli.ExitUsage, code, "nobody is there to confirm")
	require.Contains(t, stderr, "give --yes")
	require.Equal(t, before, w.count(device.KafkaEvents))
	require.Len(t, w.list(), 5)

	code, out, stderr = w.run("replay", all[0].ID, "--yes", "--by=somebody")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `^replayed +1\nrecords +3\n$`, out)
	again := w.events(before + 3)
	var values []string
	for _, r := range again {
		if string(r.Key) == "rollcall/v1/RAE-1/sessions/"+tv+"/events" {
			values = append(values, string(r.Value))
			require.Equal(t, w.made.UnixMilli(), r.Timestamp.UnixMilli())
			require.Equal(t, "h", string(r.Headers[0].Value))
		}
	}
	require.ElementsMatch(t, []string{"v0", "v2", "v4", "v0", "v2", "v4"}, values)
	settled := w.list("--all")[0]
	require.Equal(t, "somebody replayed", settled.ResolvedBy+" "+settled.Outcome)

	code, _, stderr = w.run("replay", all[0].ID, "--yes")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, `was replayed by "somebody" at `)
	code, out, stderr = w.run("replay", "--all", "--yes")
	require.Equal(t, cli.ExitFailed, code)
	require.Regexp(t, `(?m)^replayed +0$`, out)
	require.Regexp(t, `(?m)^left as they are +4$`, out)
	for _, why := range []string{
		"has none with the key", "no coordinates that could be read", `they are of topic \"elsewhere\"`, "the partition ends at offset 5",
	} {
		require.Contains(t, stderr, why)
	}
	require.Equal(t, before+3, w.count(device.KafkaEvents))
}

// What Kafka's retention has taken, also in part, is not replayed.
func TestQuarantineReplayOfWhatIsGone(t *testing.T) {
	w := newQuarantineFixture(t)
	all := w.list()
	_, err := kadm.NewClient(w.client).DeleteRecords(t.Context(), kadm.Offsets{device.KafkaEvents: {2: kadm.Offset{Topic: device.KafkaEvents, Partition: 2, At: 2}}})
	require.NoError(t, err)
	for _, how := range []string{"--dry-run", "--yes"} {
		code, _, stderr := w.run("replay", all[0].ID, how)
		require.Equal(t, cli.ExitFailed, code)
		require.Contains(t, stderr, "Kafka's retention has deleted offsets 0 to 1 of rollcall.device-events/2/0-4")
	}
	require.Len(t, w.list(), 5)
	code, out, stderr := w.run("drop", all[0].ID, "--yes")
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Regexp(t, `^dropped +1\n$`, out)
	require.Len(t, w.list(), 4)
}

// The offsets of a topic that was deleted and made again are of other records.
func TestQuarantineReplayOfAnotherIncarnation(t *testing.T) {
	w := newQuarantineFixture(t)
	db, err := store.Open(t.Context(), store.Options{URL: w.url})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Apply(t.Context(), []store.Update{{RAE: "RAE-1", Session: tv, Quarantined: []store.Quarantined{
		{Topic: device.KafkaEvents, TopicID: "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a01", Partition: 2, First: 0, Last: 2, Cause: "version", At: w.made},
	}}}))
	before := w.count(device.KafkaEvents)
	batches := w.list("--cause=version")
	require.Len(t, batches, 1)
	for _, how := range []string{"--dry-run", "--yes"} {
		code, _, stderr := w.run("replay", batches[0].ID, how)
		require.Equal(t, cli.ExitFailed, code)
		require.Contains(t, stderr, "was deleted and made again")
		require.Contains(t, stderr, "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a01")
	}
	require.Equal(t, before, w.count(device.KafkaEvents), "nothing was replayed")
}

// An outage is not taken for what is gone, and settles nothing.
func TestQuarantineReplayInAnOutage(t *testing.T) {
	t.Parallel()
	w := newQuarantineFixture(t)
	w.addrs = []string{"127.0.0.1:1"}
	code, _, stderr := w.run("replay", w.list()[0].ID, "--yes", "--timeout=5s")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "offsets of topic rollcall.device-events")
	require.Len(t, w.list(), 5)
}
