package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/postgres/postgrestest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

var epoch = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// ctx is for where no test is at hand.
var ctx = context.Background()

const topic = device.KafkaEvents

// open returns a store on an empty database, and its URL.
func open(t testing.TB) (*store.Store, string) {
	t.Helper()
	url := postgrestest.New(t)
	_, err := store.Migrate(t.Context(), url, nil)
	require.NoError(t, err)
	return reopen(t, url), url
}

func reopen(t testing.TB, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{URL: url, Tracer: &used})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// query runs a statement of the test's own and returns the first column of its first row.
func query[T any](t testing.TB, url, sql string, args ...any) (out T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&out), sql)
	return out
}

// session is the n-th session of the tests.
func session(n int) string { return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)).String() }

func at(seq int64) time.Time { return epoch.Add(time.Duration(seq) * time.Second) }

func value(seq int64, json string) device.Attribute {
	return device.Attribute{Value: []byte(json), Seq: seq, At: at(seq)}
}

// feed is one session's workflow, as far as the store sees it.
type feed struct {
	state  device.State
	rae    string
	id     string
	offset int64
}

func newFeed(n int) *feed { return &feed{rae: "rae-1", id: session(n)} }

// update folds events into the session and returns what the workflow would write.
func (f *feed) update(events ...device.Event) store.Update {
	var fold device.Fold
	for _, e := range events {
		fold = device.Merge(fold, device.FoldOf(clone(e)))
	}
	c := f.state.Apply(fold)
	f.offset += int64(len(events))
	return updateOf(&f.state, c, fold, f.rae, f.id, f.offset, len(events))
}

func updateOf(s *device.State, c device.Change, fold device.Fold, rae, id string, offset int64, records int) store.Update {
	var reopened int64
	if c.Reopened {
		reopened = 1
	}
	return store.Update{
		Reopened: reopened,
		RAE:      rae, Session: id, AsOf: s.AsOf, Snapshot: s.Snapshot, SnapshotAt: s.SnapshotAt, Hash: s.Hash,
		Seen: s.Seen, Missing: s.Missing(), Closed: s.Closed, Reason: s.Reason, Provisional: s.Provisional, First: s.First, Last: s.Last,
		Received: fold.Last.Add(time.Second), Write: c.Write, Positions: []device.Position{{Topic: topic, Partition: 3, Next: offset}},
		Repaired: c.Repaired, Corrected: c.Corrected, OverLimit: c.OverLimit, Events: fold.Events() - c.Duplicates - c.AfterClose,
		Records: int64(records), Duplicates: c.Duplicates, AfterClose: c.AfterClose,
	}
}

// clone keeps Merge, which may use its arguments' maps, away from the original.
func clone(e device.Event) device.Event {
	attributes := make(map[string]device.Attribute, len(e.Attributes))
	for name, a := range e.Attributes {
		attributes[name] = a
	}
	e.Attributes = attributes
	return e
}

func (f *feed) event(typ device.Type, seq int64, attributes map[string]string) device.Event {
	e := device.Event{RAE: f.rae, Session: f.id, Type: typ, Seq: seq, Time: at(seq), Attributes: map[string]device.Attribute{}}
	for name, v := range attributes {
		e.Attributes[name] = value(seq, v)
	}
	return e
}

func (f *feed) opened(attributes map[string]string) device.Event {
	return f.event(device.Opened, 1, attributes)
}

func (f *feed) delta(seq int64, attributes map[string]string) device.Event {
	return f.event(device.Delta, seq, attributes)
}

func (f *feed) snapshot(seq int64, attributes map[string]device.Attribute) device.Event {
	e := f.event(device.Snapshot, seq, nil)
	e.Attributes, e.Hash = attributes, device.Hash(attributes)
	return e
}

func apply(t testing.TB, s *store.Store, updates ...store.Update) {
	t.Helper()
	require.NoError(t, s.Apply(t.Context(), updates))
}

func load(t testing.TB, s *store.Store, id string) (device.State, []device.Position) {
	t.Helper()
	stored, err := s.Load(t.Context(), id)
	require.NoError(t, err)
	require.True(t, stored.Found)
	return stored.State, stored.Positions
}

// sameState compares by what JSON tells: an empty set and none are the same.
func sameState(t require.TestingT, want, got device.State) {
	w, err := json.MarshalIndent(want, "", " ")
	require.NoError(t, err)
	g, err := json.MarshalIndent(got, "", " ")
	require.NoError(t, err)
	require.Equal(t, string(w), string(g))
}
