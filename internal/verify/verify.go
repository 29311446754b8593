// Package verify asks whether a device session's record is the same at the
// edge, in its workflow and in the database, and names what differs.
//
// What is compared is exact, also while a device changes:
//
//   - The edge is asked for a snapshot, whose seq n its reply names. The
//     workflow notes, when it applies a snapshot, the edge's hash at n and the
//     hash of what it had itself at n, before the snapshot could correct
//     anything. These two are compared.
//   - The workflow and the database are compared at the first moment, not
//     before n, at which both have applied the same events. Both hashes are
//     computed here, from the attributes that the workflow answers with and
//     from the rows.
//
// A side that cannot be asked is unreachable, which is no equality.
package verify

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// ErrGone is what Workflows.State fails with where there is no workflow, nor
// the history of one.
var ErrGone = errors.New("there is no such workflow, or it ended longer ago than the namespace keeps it")

// Edge reaches the RAEs.
type Edge interface {
	// Snapshot asks once for a snapshot of the session and returns the
	// reply, or why there was none before ctx ended.
	Snapshot(ctx context.Context, s Session) (device.Reply, error)
}

// Workflows are the sessions' workflows.
type Workflows interface {
	// State is the session's record as its workflow has it.
	State(ctx context.Context, session string) (State, error)
}

// Database is what package store has of a session.
type Database interface {
	Load(ctx context.Context, session string) (store.Stored, error)
}

// Session is what is verified.
type Session struct {
	ID     string
	RAE    string
	Closed bool // the RAE has no record of it any more
}

// State is a session's record as its workflow has it.
type State struct {
	RAE        string
	AsOf       int64 // highest seq applied
	Snapshot   int64 // seq of the newest snapshot applied
	Closed     int64
	Missing    device.SeqSet
	Attributes map[string]device.Attribute // that have a value
	Check      *Check
}

// Check is the comparison that the workflow made when it applied the newest
// snapshot.
type Check struct {
	Seq   int64
	Edge  string   // hash
	Cloud string   // hash; empty where events were missing or newer ones were applied with it
	Drift []string // attributes that differed though no event was missing
}

// Options of New. Workflows and Database are required.
type Options struct {
	Edge      Edge // nil: only workflow and database are compared
	Workflows Workflows
	Database  Database
	// Parallel is how many sessions are verified at a time. Default 8.
	Parallel int
	// PerRAE is how many of one RAE's are. Default 4: with commands that live
	// for CommandLife a RAE then has a few hundred of them to remember, of
	// the thousand that it does.
	PerRAE int
	// Timeout bounds the wait for a RAE's reply, and then the wait for its
	// snapshot to be applied. Default a minute.
	Timeout time.Duration
	// Repairs has each session that differs repaired, and verified again. Default:
	// none, nothing is changed.
	Repairs Repairs
	// RepairRate is how many are repaired in a second at most. Default 5: each
	// costs a load from the database and a snapshot of its edge.
	RepairRate float64
}

// CommandLife is how long a command that a Verifier sends may wait for its RAE.
// One that was lost is sent again after it.
const CommandLife = 20 * time.Second

// Verifier verifies sessions.
type Verifier struct {
	o    Options
	pace pace // of repairs

	mu     sync.Mutex
	silent map[string]bool // RAEs that did not reply when they were asked last
}

// New returns a Verifier.
func New(o Options) (*Verifier, error) {
	if o.Workflows == nil || o.Database == nil {
		return nil, errors.New("verify: Workflows and Database are required")
	}
	if o.Parallel <= 0 {
		o.Parallel = 8
	}
	if o.PerRAE <= 0 {
		o.PerRAE = 4
	}
	if o.Edge == nil {
		o.PerRAE = o.Parallel
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.RepairRate <= 0 {
		o.RepairRate = 5
	}
	return &Verifier{o: o, pace: pace{every: time.Duration(float64(time.Second) / o.RepairRate)}, silent: map[string]bool{}}, nil
}

// Run verifies the sessions and calls each with every result, one at a time, in
// the order in which they come. It returns early, with ctx's cause, when ctx
// ends; sessions that were not verified by then have no result.
func (v *Verifier) Run(ctx context.Context, sessions []Session, each func(Result)) error {
	lanes := v.lanes(sessions)
	var workers sync.WaitGroup
	var reporting sync.Mutex
	for range v.o.Parallel {
		workers.Go(func() {
			for lane := range lanes {
				for s := range lane {
					r := v.repair(ctx, s, v.session(ctx, s))
					if ctx.Err() != nil {
						return
					}
					reporting.Lock()
					each(r)
					reporting.Unlock()
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// lanes are what workers take, one after the other: a RAE's sessions, as often
// as it may have workers. The RAEs come by turns.
func (v *Verifier) lanes(sessions []Session) <-chan (<-chan Session) {
	byRAE := map[string]chan Session{}
	var order []chan Session
	count := map[string]int{}
	for _, s := range sessions {
		count[s.RAE]++
	}
	for _, s := range sessions {
		if byRAE[s.RAE] == nil {
			byRAE[s.RAE] = make(chan Session, count[s.RAE])
			order = append(order, byRAE[s.RAE])
		}
		byRAE[s.RAE] <- s
	}
	lanes := make(chan (<-chan Session), len(order)*v.o.PerRAE)
	for range v.o.PerRAE {
		for _, lane := range order {
			lanes <- lane
		}
	}
	close(lanes)
	for _, lane := range order {
		close(lane)
	}
	return lanes
}

// isSilent reports whether the RAE gave no reply within Timeout when it was asked
// last. It is not asked for other sessions then: each would wait as long.
func (v *Verifier) isSilent(rae string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.silent[rae]
}

func (v *Verifier) replied(rae string, did bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.silent[rae] = !did
}

// Summary counts results.
type Summary struct {
	Sessions    int `json:"sessions"`
	Equal       int `json:"equal"`
	Drift       int `json:"drift"`
	Unreachable int `json:"unreachable"`
	Repaired    int `json:"repaired,omitempty"` // that differed, were repaired and are equal now
}

// Add counts r.
func (s *Summary) Add(r Result) {
	s.Sessions++
	if r.Repair != nil && r.Verdict == Equal {
		s.Repaired++
	}
	switch r.Verdict {
	case Equal:
		s.Equal++
	case Drift:
		s.Drift++
	case Unreachable:
		s.Unreachable++
	}
}

// OK reports whether all sessions that were verified are equal.
func (s *Summary) OK() bool { return s.Equal == s.Sessions }

// sortedNames are the names in either map, sorted.
func sortedNames(a, b map[string]device.Attribute) []string {
	var names []string
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
