package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/internal/verify"
)

const (
	session = "509aeecb-bb04-4bb3-a982-576089a2e8ed"
	rae     = "RAE-1"
)

// world is one session in three places. Its edge answers a question with a
// snapshot, which is applied at once, as State.Apply does it: what differs is
// corrected only where it is older.
type world struct {
	mu       sync.Mutex
	edge     map[string]device.Attribute
	seq      int64
	workflow verify.State
	gone     bool // no workflow
	database device.State
	absent   bool

	replies  []device.Outcome // that it gives before Done
	offline  bool
	stuck    bool   // snapshots are not applied
	noCheck  bool   // the workflow is of a version that makes none
	asked    int    // questions to the edge
	looked   int    // questions to the workflow
	onAsk    func() // before it answers
	onSnap   func() // after a snapshot was applied
	onLook   func() // before the workflow answers
	stateErr error
}

func value(v string, seq int64) device.Attribute {
	return device.Attribute{Value: []byte(fmt.Sprintf("%q", v)), Seq: seq, At: time.Unix(seq, 0)}
}

// settled is a world in which all is equal, as of seq 9.
func settled() *world {
	attributes := map[string]device.Attribute{"network.ipv4": value("10.0.0.5", 3), "mdns.name": value("Kitchen", 2), "device.model": value("T2", 9)}
	return &world{
		edge: attributes, seq: 9,
		workflow: verify.State{AsOf: 9, Snapshot: 7, Attributes: maps.Clone(attributes)},
		database: device.State{AsOf: 9, Snapshot: 7, Seen: device.SeqSet{{From: 8, To: 9}}, Attributes: maps.Clone(attributes)},
	}
}

func (w *world) Snapshot(ctx context.Context, s verify.Session) (device.Reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.onAsk != nil {
		w.onAsk()
	}
	if w.offline {
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		return device.Reply{}, ctx.Err()
	}
	if len(w.replies) > 0 {
		outcome := w.replies[0]
		w.replies = w.replies[1:]
		return device.Reply{Outcome: outcome, Session: s.ID, Detail: "says the edge"}, nil
	}
	w.seq++
	reply := device.Reply{Action: device.ActionSnapshot, Outcome: device.Done, Session: s.ID, Result: snapshotResult(w.seq)}
	if !w.stuck {
		w.apply()
	}
	return reply, nil
}

func (w *world) apply() {
	check := &verify.Check{Seq: w.seq, Edge: device.Hash(w.edge), Cloud: device.Hash(w.workflow.Attributes)}
	if len(w.workflow.Missing) > 0 {
		check.Cloud = ""
	}
	for name := range w.edge {
		if a := w.workflow.Attributes[name]; a.Seq != w.edge[name].Seq || string(a.Value) != string(w.edge[name].Value) {
			check.Drift = append(check.Drift, name)
		}
	}
	for name := range w.workflow.Attributes {
		if _, listed := w.edge[name]; !listed {
			check.Drift = append(check.Drift, name)
		}
	}
	slices.Sort(check.Drift)
	if check.Cloud == "" {
		check.Drift = nil
	}
	for _, have := range []map[string]device.Attribute{w.workflow.Attributes, w.database.Attributes} {
		for name, a := range w.edge {
			if w.workflow.Attributes[name].Seq < a.Seq || have[name].Seq < a.Seq {
				have[name] = a
			}
		}
		maps.DeleteFunc(have, func(name string, _ device.Attribute) bool { _, listed := w.edge[name]; return !listed })
	}
	w.workflow.AsOf, w.workflow.Snapshot, w.workflow.Missing, w.workflow.Check = w.seq, w.seq, nil, check
	w.database.AsOf, w.database.Snapshot, w.database.Seen, w.database.Hash = w.seq, w.seq, nil, check.Edge
	if w.noCheck {
		w.workflow.Check = nil
	}
	if w.onSnap != nil {
		w.onSnap()
	}
}

// change is one more event, applied everywhere.
func (w *world) change() {
	w.seq++
	a := value(fmt.Sprint("changed at ", w.seq), w.seq)
	for _, have := range []map[string]device.Attribute{w.edge, w.workflow.Attributes, w.database.Attributes} {
		have["mdns.name"] = a
	}
	w.workflow.AsOf, w.database.AsOf = w.seq, w.seq
	w.database.Seen = w.database.Seen.Union(device.SeqSet{{From: w.seq, To: w.seq}})
}

func (w *world) State(context.Context, string) (verify.State, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked++
	if w.onLook != nil {
		w.onLook()
	}
	switch {
	case w.gone:
		return verify.State{}, fmt.Errorf("query: %w", verify.ErrGone)
	case w.stateErr != nil:
		return verify.State{}, w.stateErr
	}
	out := w.workflow
	out.Attributes = maps.Clone(out.Attributes)
	return out, nil
}

func (w *world) Load(context.Context, string) (store.Stored, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.database
	out.Attributes = maps.Clone(out.Attributes)
	return store.Stored{Found: !w.absent, State: out}, nil
}

func verified(t *testing.T, w *world, o verify.Options, s verify.Session) verify.Result {
	t.Helper()
	o.Workflows, o.Database = w, w
	v, err := verify.New(o)
	require.NoError(t, err)
	var out []verify.Result
	require.NoError(t, v.Run(t.Context(), []verify.Session{s}, func(r verify.Result) { out = append(out, r) }))
	require.Len(t, out, 1)
	return out[0]
}

// The decision table: what each state of the three sides, and of the ways to
// them, comes to.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name    string
		world   func(*world)
		noEdge  bool
		closed  bool
		verdict verify.Verdict
		check   func(*testing.T, *world, verify.Result)
	}{
		{name: "equal", verdict: verify.Equal, check: func(t *testing.T, w *world, r verify.Result) {
			h := device.Hash(w.edge)
			require.Equal(t, []verify.Comparison{{Seq: 10, Hashes: map[verify.Side]string{verify.AtEdge: h, verify.InWorkflow: h, verify.InDatabase: h}}}, r.Compared)
			require.Equal(t, 1, w.asked)
			require.Equal(t, 2, w.looked, "before and after")
		}},
		{name: "equal, from a workflow that makes no checks", verdict: verify.Equal, world: func(w *world) { w.noCheck = true }},
		{name: "changed by hand in the database", verdict: verify.Drift, world: func(w *world) {
			w.database.Attributes["network.ipv4"] = value("10.6.6.6", 3)
		}, check: func(t *testing.T, _ *world, r verify.Result) {
			edge, hand := value("10.0.0.5", 3), value("10.6.6.6", 3)
			require.Equal(t, []verify.Difference{{Attribute: "network.ipv4", Values: map[verify.Side]*device.Attribute{
				verify.AtEdge: &edge, verify.InWorkflow: &edge, verify.InDatabase: &hand,
			}}}, r.Differences)
			require.Empty(t, r.Corrected)
			require.False(t, r.Compared[0].Equal())
		}},
		{name: "a row deleted by hand", verdict: verify.Drift, noEdge: true, world: func(w *world) { delete(w.database.Attributes, "mdns.name") },
			check: func(t *testing.T, _ *world, r verify.Result) {
				require.Len(t, r.Differences, 1)
				require.Nil(t, r.Differences[0].Values[verify.InDatabase])
				require.NotContains(t, r.Differences[0].Values, verify.AtEdge, "not asked, so not known")
			}},
		{name: "a row from nowhere", verdict: verify.Drift, noEdge: true, world: func(w *world) { w.database.Attributes["x"] = value("y", 2) }},
		{name: "another seq", verdict: verify.Drift, noEdge: true, world: func(w *world) { w.database.Attributes["mdns.name"] = value("Kitchen", 1) }},
		{name: "the workflow was wrong, and is corrected", verdict: verify.Drift, world: func(w *world) {
			for _, have := range []map[string]device.Attribute{w.workflow.Attributes, w.database.Attributes} {
				have["device.model"] = value("T1", 4)
				have["ghost"] = value("boo", 5)
			}
		}, check: func(t *testing.T, _ *world, r verify.Result) {
			was, is, ghost := value("T1", 4), value("T2", 9), value("boo", 5)
			require.Empty(t, r.Differences)
			require.Equal(t, []verify.Difference{
				{Attribute: "device.model", Values: map[verify.Side]*device.Attribute{verify.AtEdge: &is, verify.InWorkflow: &was}},
				{Attribute: "ghost", Values: map[verify.Side]*device.Attribute{verify.AtEdge: nil, verify.InWorkflow: &ghost}},
			}, r.Corrected)
			require.True(t, r.Compared[0].Before)
			require.False(t, r.Compared[0].Equal())
			require.True(t, r.Compared[1].Equal())
		}},
		{name: "the same, from a workflow that makes no checks", verdict: verify.Drift, world: func(w *world) {
			w.noCheck = true
			w.workflow.Attributes["device.model"], w.database.Attributes["device.model"] = value("T1", 4), value("T1", 4)
		}, check: func(t *testing.T, _ *world, r verify.Result) { require.Len(t, r.Corrected, 1) }},
		{name: "the workflow is wrong and stays so", verdict: verify.Drift, world: func(w *world) {
			w.workflow.Attributes["network.ipv4"] = value("10.7.7.7", 3)
		}, check: func(t *testing.T, _ *world, r verify.Result) {
			edge, wrong := value("10.0.0.5", 3), value("10.7.7.7", 3)
			require.Equal(t, []verify.Difference{{Attribute: "network.ipv4", Values: map[verify.Side]*device.Attribute{
				verify.AtEdge: &edge, verify.InWorkflow: &wrong, verify.InDatabase: &edge,
			}}}, r.Differences)
			require.Empty(t, r.Corrected)
		}},
		{name: "a new run began with a wrong row, and is corrected", verdict: verify.Drift, world: func(w *world) {
			w.onSnap = func() {
				w.workflow.Check.Cloud, w.workflow.Check.Drift = "of the wrong row", []string{"network.ipv4"}
			}
		}, check: func(t *testing.T, _ *world, r verify.Result) {
			edge := value("10.0.0.5", 3)
			require.Equal(t, []verify.Difference{{Attribute: "network.ipv4", Values: map[verify.Side]*device.Attribute{verify.AtEdge: &edge}}}, r.Corrected)
		}},
		{name: "workflow and database are wrong alike", verdict: verify.Drift, world: func(w *world) {
			w.workflow.Attributes["network.ipv4"], w.database.Attributes["network.ipv4"] = value("10.7.7.7", 3), value("10.7.7.7", 3)
		}, check: func(t *testing.T, _ *world, r verify.Result) {
			require.Len(t, r.Differences, 1)
			require.Equal(t, "network.ipv4", r.Differences[0].Attribute)
			require.NotContains(t, r.Differences[0].Values, verify.AtEdge, "it cannot be known from the cloud")
		}},
		{name: "both are wrong, each in its way", verdict: verify.Drift, world: func(w *world) {
			w.workflow.Attributes["network.ipv4"] = value("10.7.7.7", 3)
			w.database.Attributes["mdns.name"] = value("Bath", 2)
		}, check: func(t *testing.T, _ *world, r verify.Result) {
			require.Len(t, r.Differences, 2)
			require.Equal(t, "mdns.name", r.Differences[0].Attribute)
			require.Equal(t, "network.ipv4", r.Differences[1].Attribute)
		}},
		{name: "events were missing", verdict: verify.Drift, world: func(w *world) {
			w.workflow.Missing, w.database.Seen = device.SeqSet{{From: 8, To: 8}}, device.SeqSet{{From: 9, To: 9}}
			w.edge["device.model"] = value("T3", 8)
		}, check: func(t *testing.T, _ *world, r verify.Result) {
			require.Equal(t, []string{"seq 8 were missing in the workflow when this snapshot came"}, r.Findings)
		}},
		{name: "events are missing behind the snapshot", verdict: verify.Drift, world: func(w *world) {
			w.onSnap = func() {
				w.change()
				w.workflow.Check.Cloud, w.workflow.Missing, w.database.Seen = "", device.SeqSet{{From: 11, To: 11}}, device.SeqSet{{From: 12, To: 12}}
			}
		}, check: func(t *testing.T, _ *world, r verify.Result) {
			require.Equal(t, []string{"seq 11 are missing in the workflow"}, r.Findings)
		}},
		{name: "the device changes behind the snapshot", verdict: verify.Equal, world: func(w *world) { w.onSnap = w.change },
			check: func(t *testing.T, w *world, r verify.Result) {
				require.Equal(t, 1, w.asked)
				require.Len(t, r.Compared, 2)
				require.EqualValues(t, 10, r.Compared[0].Seq)
				require.True(t, r.Compared[0].Before)
				require.EqualValues(t, 11, r.Compared[1].Seq)
			}},
		{name: "it changes while one looks", verdict: verify.Equal, world: func(w *world) {
			w.onLook = func() {
				if w.looked < 20 {
					w.change()
				}
			}
		}},
		{name: "it changes in the signal of the snapshot, twice", verdict: verify.Equal, world: func(w *world) {
			w.onSnap = func() {
				if w.asked <= 2 {
					w.workflow.Check.Cloud = ""
					w.change()
				}
			}
		}, check: func(t *testing.T, w *world, _ verify.Result) { require.Equal(t, 3, w.asked) }},
		{name: "it always does", verdict: verify.Unreachable, world: func(w *world) {
			w.onSnap = func() { w.workflow.Check.Cloud = ""; w.change() }
		}, check: func(t *testing.T, w *world, r verify.Result) {
			require.Equal(t, 3, w.asked)
			require.Contains(t, r.Unreachable[0], "so fast that 3 snapshots")
		}},
		{name: "the edge refuses at first", verdict: verify.Equal, world: func(w *world) { w.replies = []device.Outcome{device.Refused, device.Refused, device.Expired} },
			check: func(t *testing.T, w *world, _ verify.Result) { require.Equal(t, 4, w.asked) }},
		{name: "the edge refuses for ever", verdict: verify.Unreachable, world: func(w *world) { w.replies = slices.Repeat([]device.Outcome{device.Refused}, 100) },
			check: func(t *testing.T, w *world, r verify.Result) {
				require.Equal(t, []string{"edge: no snapshot within 1m0s; refused: says the edge"}, r.Unreachable)
				require.Less(t, w.asked, 20, "ever more seldom")
			}},
		{name: "the edge is offline", verdict: verify.Unreachable, world: func(w *world) { w.offline = true },
			check: func(t *testing.T, w *world, r verify.Result) {
				require.Equal(t, []string{"edge: no snapshot within 1m0s; it is offline, or its commands do not reach it"}, r.Unreachable)
				require.LessOrEqual(t, w.asked, 4, "a command lives 20 s")
				require.True(t, r.Compared[0].Equal(), "workflow and database are compared all the same")
			}},
		{name: "the edge is offline, and the database differs", verdict: verify.Drift, world: func(w *world) {
			w.offline = true
			delete(w.database.Attributes, "mdns.name")
		}, check: func(t *testing.T, _ *world, r verify.Result) { require.NotEmpty(t, r.Unreachable) }},
		{name: "the edge was offline for a moment", verdict: verify.Equal, world: func(w *world) {
			w.offline = true
			w.onAsk = func() { w.offline = w.asked < 2 }
		}},
		{name: "the edge has no such session", verdict: verify.Drift, world: func(w *world) { w.replies = []device.Outcome{device.UnknownSession} },
			check: func(t *testing.T, _ *world, r verify.Result) {
				require.Equal(t, []string{"the RAE has no such session; here it is open"}, r.Findings)
			}},
		{name: "it was closed meanwhile", verdict: verify.Equal, world: func(w *world) {
			w.replies = []device.Outcome{device.UnknownSession}
			w.onLook = func() {
				if w.looked > 5 {
					w.workflow.Closed, w.database.Closed = 9, 9
				}
			}
		}},
		{name: "closed, and asked for by name", closed: true, verdict: verify.Equal, check: func(t *testing.T, w *world, r verify.Result) {
			require.Zero(t, w.asked)
			require.NotEmpty(t, r.Notes)
		}},
		{name: "the workflow is gone", verdict: verify.Equal, world: func(w *world) { w.gone = true },
			check: func(t *testing.T, _ *world, r verify.Result) {
				require.NotContains(t, r.Compared[0].Hashes, verify.InWorkflow)
				require.Contains(t, r.Notes[0], "without the workflow")
			}},
		{name: "the workflow is gone, and the database differs", verdict: verify.Drift, world: func(w *world) {
			w.gone = true
			w.database.Attributes["network.ipv4"] = value("10.6.6.6", 3)
		}},
		{name: "the workflow is gone, and nobody else asked", noEdge: true, verdict: verify.Unreachable, world: func(w *world) { w.gone = true }},
		{name: "the workflow does not answer", noEdge: true, verdict: verify.Unreachable, world: func(w *world) { w.stateErr = errors.New("no poller") },
			check: func(t *testing.T, _ *world, r verify.Result) {
				require.Equal(t, []string{"workflow: no poller"}, r.Unreachable)
			}},
		{name: "the snapshot is never applied", verdict: verify.Unreachable, world: func(w *world) { w.stuck = true },
			check: func(t *testing.T, _ *world, r verify.Result) {
				require.Contains(t, r.Unreachable[0], "the snapshot that the RAE sent at seq 10 was not applied within 1m0s")
			}},
		{name: "the database is behind", noEdge: true, verdict: verify.Drift, world: func(w *world) { w.database.AsOf, w.database.Seen = 8, device.SeqSet{{From: 8, To: 8}} },
			check: func(t *testing.T, _ *world, r verify.Result) {
				require.Equal(t, []string{"the workflow has applied up to seq 9, snapshot 7, the database has up to seq 8, snapshot 7"}, r.Findings)
			}},
		{name: "the database lost the session", verdict: verify.Drift, world: func(w *world) { w.absent = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := settled()
				if c.world != nil {
					c.world(w)
				}
				var o verify.Options
				if !c.noEdge {
					o.Edge = w
				}
				r := verified(t, w, o, verify.Session{ID: session, RAE: rae, Closed: c.closed})
				require.Equal(t, c.verdict, r.Verdict, "%+v", r)
				if c.check != nil {
					c.check(t, w, r)
				}
			})
		})
	}
}

// crowd is many sessions of several RAEs, of which one is away.
type crowd struct {
	*world
	mu        sync.Mutex
	now, most map[string]int
	asks      map[string]int
	away      string
}

func (c *crowd) Snapshot(ctx context.Context, s verify.Session) (device.Reply, error) {
	c.mu.Lock()
	c.asks[s.RAE]++
	c.now[s.RAE]++
	c.now[""]++
	c.most[s.RAE], c.most[""] = max(c.most[s.RAE], c.now[s.RAE]), max(c.most[""], c.now[""])
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now[s.RAE]--
		c.now[""]--
	}()
	if s.RAE == c.away {
		<-ctx.Done()
		return device.Reply{}, ctx.Err()
	}
	time.Sleep(100 * time.Millisecond) // of the bubble's time
	return device.Reply{Action: device.ActionSnapshot, Outcome: device.Done, Result: snapshotResult(c.workflow.Snapshot)}, nil
}

// No RAE has more than its share of questions at a time, and one that is silent
// holds nobody up for longer than it takes to know that.
func TestManySessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := settled()
		w.apply()
		c := &crowd{world: w, now: map[string]int{}, most: map[string]int{}, asks: map[string]int{}, away: "RAE-2"}
		v, err := verify.New(verify.Options{Edge: c, Workflows: w, Database: w, Parallel: 8, PerRAE: 3})
		require.NoError(t, err)
		var sessions []verify.Session
		for i := range 300 {
			sessions = append(sessions, verify.Session{ID: fmt.Sprint(i), RAE: fmt.Sprintf("RAE-%d", i%3+1)})
		}
		var sum verify.Summary
		told := map[string]bool{}
		begun := time.Now()
		require.NoError(t, v.Run(t.Context(), sessions, func(r verify.Result) {
			require.False(t, told[r.Session], "told twice")
			told[r.Session] = true
			sum.Add(r)
		}))
		require.Equal(t, verify.Summary{Sessions: 300, Equal: 200, Unreachable: 100}, sum)
		require.False(t, sum.OK())
		require.Equal(t, 8, c.most[""])
		require.LessOrEqual(t, c.most["RAE-1"], 3)
		require.LessOrEqual(t, c.asks["RAE-2"], 3*4, "three sessions, each asked again when its command had expired")
		require.Less(t, time.Since(begun), 80*time.Second)
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := settled()
		w.offline = true
		v, err := verify.New(verify.Options{Edge: w, Workflows: w, Database: w})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errors.New("enough"))
		defer cancel()
		err = v.Run(ctx, []verify.Session{{ID: session, RAE: rae}}, func(verify.Result) { t.Error("told") })
		require.EqualError(t, err, "enough")
	})
}

func snapshotResult(seq int64) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"seq":%d}`, seq))
}
