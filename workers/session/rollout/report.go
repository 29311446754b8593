package rollout

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rollcall-platform/rollcall/workflows"
)

// RollReport says what a roll did, and where the sessions are since.
type RollReport struct {
	Deployment  string    `json:"deployment"`
	From        string    `json:"from"` // build that was current; empty: none, or To already
	To          string    `json:"to"`
	Began       time.Time `json:"began"`
	TookSeconds float64   `json:"took_seconds"`

	Ramped   float64  `json:"ramped_percent"`     // the last step of the ramp
	Aborted  bool     `json:"aborted,omitempty"`  // the ramp was taken back
	Nudges   int      `json:"nudges"`             // signals that had to be sent to idle sessions
	Drained  bool     `json:"drained"`            // the server counts no other version as draining
	Draining []string `json:"draining,omitempty"` // those that it does

	Sessions Sessions `json:"sessions"`
	// EventsApplied is, by build, how many events of the sessions that ran
	// during the roll it has applied, since each session's workflow began. It
	// is from the workflows' own state, which counts an event when the
	// database has taken it, once.
	EventsApplied map[string]int64 `json:"events_applied"`
	// Proof is absent when no proof was asked for.
	Proof *Proof `json:"proof,omitempty"`

	// Complete: all sessions moved, nothing lost, the old version drained.
	Complete bool   `json:"complete"`
	Error    string `json:"error,omitempty"`
}

// Sessions says where the sessions are.
type Sessions struct {
	Before      int `json:"before"`       // ran on another version when the roll began
	Moved       int `json:"moved"`        // of these: run on the new version
	Closed      int `json:"closed"`       // of these: run no more
	StillPinned int `json:"still_pinned"` // run on another version
	Now         int `json:"now"`          // run on the new version, those that began there among them
	// Unread could not be asked, and are not in EventsApplied: those that are
	// still pinned, and those that did not answer.
	Unread int `json:"unread,omitempty"`
}

// count fills in where the sessions are, and who applied their events.
func (r *roll) count(ctx context.Context, before, pinned []string) error {
	now, err := r.list(ctx, r.on(r.To))
	if err != nil {
		return err
	}
	unseen, err := r.unseen(ctx, before, slices.Concat(now, pinned)) // which have just continued as new
	if err != nil {
		return err
	}
	on := map[string]bool{}
	for _, id := range slices.Concat(now, unseen) {
		on[id] = true
	}
	s := Sessions{Before: len(before), StillPinned: len(pinned), Now: len(on)}
	stays := map[string]bool{}
	for _, id := range pinned {
		stays[id] = true
	}
	for _, id := range before {
		switch {
		case on[id]:
			s.Moved++
		case !stays[id]:
			s.Closed++
			on[id] = true
		}
	}
	r.Say("asking %d sessions who applied their events", len(on))
	r.report.EventsApplied, s.Unread, err = r.builds(ctx, on)
	s.Unread += s.StillPinned
	r.report.Sessions = s
	return err
}

// patience is how long n sessions may take to answer. One that is in no cache is
// replayed first.
func patience(n int) time.Duration { return time.Minute + time.Duration(n)*20*time.Millisecond }

// builds asks sessions which builds applied how many of their events.
func (f fleet) builds(ctx context.Context, ids map[string]bool) (events map[string]int64, unread int, err error) {
	events = map[string]int64{}
	var mu sync.Mutex
	asking, cancel := context.WithTimeout(ctx, patience(len(ids)))
	defer cancel()
	var group errgroup.Group
	group.SetLimit(atOnce)
	for id := range ids {
		group.Go(func() error {
			view, err := f.view(asking, id)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				unread++
				return ctx.Err()
			}
			for _, b := range view.Builds {
				events[b.ID] += b.Events
			}
			return nil
		})
	}
	return events, unread, group.Wait()
}

// view asks a session for its state, and again while no answer comes.
func (f fleet) view(ctx context.Context, id string) (view workflows.StateView, err error) {
	for {
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
		answer, err := f.client.QueryWorkflow(one, id, "", workflows.QueryState)
		if err == nil {
			err = answer.Get(&view)
		}
		cancel()
		if err == nil || !unanswered(err) || ctx.Err() != nil {
			return view, err
		}
	}
}
