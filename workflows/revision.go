package workflows

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// The database may be another than the one that was written: a replica that took
// over without the last commits, or a restored backup. So each apply names the row
// that it builds on, and the database checks it in the same transaction. Where the
// row is another, the session takes what the database has, notes what it had
// applied and the database lacks as missing, and plans the apply anew.

// Revision says which apply a session's row is of.
//
// The ID of an apply is a hash of all that it writes and of the revision that it
// builds on. So equal revisions have the same history. A retried workflow task that
// plans the same apply finds it done; one that plans another, because more signals
// came, finds a row that it does not build on.
type Revision struct {
	Number  int64  `json:"n"` // how many applies there were
	ApplyID string `json:"apply"`
}

// Mismatch is when the database was last not what the session believed.
type Mismatch struct {
	At       time.Time     `json:"at"`
	Believed int64         `json:"believed"`       // the revision's number
	Found    int64         `json:"found"`          // in the database
	Lost     device.SeqSet `json:"lost,omitempty"` // seqs that had been applied and that the database lacks
}

// errReloaded is returned by an apply that the database did not take because it has
// another row than the apply builds on. The session now is what the database has:
// the caller plans anew.
var errReloaded = errors.New("the database has another row than the apply builds on")

// identify gives the request the revision that it builds on, and its ID.
func (r *ApplyRequest) identify(base Revision) {
	r.Base, r.ID = base, ""
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("session %s: an apply cannot be encoded: %v", r.Session, err)) // as executeActivity would
	}
	sum := sha256.Sum256(b)
	r.ID = hex.EncodeToString(sum[:16])
}

// revision is that of the row once the database has the request.
func (r *ApplyRequest) revision() Revision { return Revision{r.Base.Number + 1, r.ID} }

// executeApply has the database take the request. It returns errReloaded, or an
// error for a refusal.
//
// Invariant: Revision is that of the row that State and Positions are of. It
// changes here, where a row is loaded, and nowhere else.
func (s *session) executeApply(ctx workflow.Context, summary string, request *ApplyRequest) (LoadedSession, error) {
	request.identify(s.Revision)
	var answer LoadedSession // stays empty unless the request asks for an answer
	if err := s.executeActivity(ActivityApplyBatch, summary, *request, &answer); err != nil {
		return LoadedSession{}, err
	}
	if answer.Mismatch {
		s.adoptStored(ctx, answer)
		return LoadedSession{}, errReloaded
	}
	s.Revision, s.mismatches = request.revision(), 0
	return answer, nil
}

// reload reads what the database has of the session. Where that is another row than
// the session's, it takes it and reports true.
func (s *session) reload(ctx workflow.Context, why string) bool {
	loaded := s.readStored(clip("reload: " + why))
	if loaded.Revision == s.Revision {
		s.mismatches = 0
		return false
	}
	s.adoptStored(ctx, loaded)
	return true
}

// reloadForPerson takes what the database has, be it the row that the session
// believed or another: a row that was written by hand has the same revision. It
// asks for a snapshot, which heals both.
func (s *session) reloadForPerson(ctx workflow.Context, reason string) ReloadResult {
	believed, before := s.Revision, s.Counters.Mismatches
	s.adoptStored(ctx, s.readStored(clip("reload: "+reason)))
	out := ReloadResult{Lost: s.Lost, AsOf: s.State.AsOf}
	if s.Revision != believed && s.Counters.Mismatches > before {
		out.Mismatch = s.Mismatch
	}
	if s.State.AsOf > 0 {
		out.Snapshot = s.requestSnapshot(ctx, reason)
	} else {
		out.Snapshot = SnapshotRequestResult{Outcome: RequestDeferred, Detail: "the database has no event of the session: its next one begins it"}
	}
	return out
}

func (s *session) readStored(summary string) LoadedSession {
	var loaded LoadedSession
	if err := s.executeActivity(ActivityLoadSession, summary, s.id, &loaded); err != nil {
		panic(fmt.Sprintf("session %s: a load was refused: %v", s.id, err)) // a load writes nothing that could be refused
	}
	return loaded
}

// adoptStored makes what the database has the session's own, in a run that had
// something else. What the session had applied and the database lacks is missing
// from now on: events that bring it again, or a snapshot, heal it.
func (s *session) adoptStored(ctx workflow.Context, loaded LoadedSession) {
	had, believed, events := s.State, s.Revision, s.Counters.Events
	s.takeStored(loaded)
	lost := seenSeqs(&had).Minus(seenSeqs(&s.State))
	s.Lost = s.Lost.Union(lost).Minus(seenSeqs(&s.State))
	if had.Closed > 0 && s.State.Closed == 0 {
		s.scheduleClose(CloseRequest{Reason: had.Reason}) // what was decided stays so
	}
	ahead := s.Revision.Number > believed.Number && len(lost) == 0
	switch {
	case s.Revision == believed:
	case ahead: // its own apply, whose answer was lost with a workflow task
		s.countForBuild(workflow.GetInfo(ctx).GetCurrentBuildID(), max(0, s.Counters.Events-events))
		s.log.Info("the database has more than the session knew of: it goes on from there", "revision", s.Revision.Number, "believed", believed.Number)
	default:
		s.Counters.Mismatches++
		s.Mismatch = &Mismatch{At: workflow.Now(ctx), Believed: believed.Number, Found: s.Revision.Number, Lost: lost}
		s.add(ctx, metricMismatches, 1)
		s.log.Error("the database is not the one that was written: it lacks what was applied; the session goes on from what it has",
			"revision", s.Revision.Number, "believed", believed.Number, "lost", lost.String())
	}
	s.resolveRivals(ctx, loaded.OlderSessions, loaded.NewerSession)
	s.updateSyncState(ctx)
	s.pauseBetweenMismatches()
}

// takeStored makes what the database has of the session the session's own.
func (s *session) takeStored(loaded LoadedSession) {
	s.setTestState(loaded.TestState)
	s.Revision = loaded.Revision
	s.Positions = slices.DeleteFunc(loaded.Positions, device.Position.IsForeign)
	s.Counters.setStored(loaded.Counters)
	s.State = device.State{}
	if loaded.Found && loaded.State.AsOf > 0 {
		// A row without an event holds positions only: it was written to quarantine a
		// refused batch.
		s.State = loaded.State
		if s.State.RAE != s.rae {
			s.log.Warn("the session is of another RAE than it was started with", "session_rae", s.State.RAE)
			s.rae = s.State.RAE
		}
	}
}

// pauseBetweenMismatches keeps a session whose row somebody else writes, which no
// lawful process does, from turning without end. A fail-over costs no pause.
func (s *session) pauseBetweenMismatches() {
	if s.mismatches++; s.mismatches > 2 {
		_ = workflow.Sleep(s.uncancelled, min(time.Second<<min(s.mismatches-3, 6), time.Minute))
	}
}

// anewText is what the summary of an apply says behind a mismatch; else empty.
func (s *session) anewText() string {
	switch {
	case s.mismatches == 0:
		return ""
	case s.Mismatch != nil && len(s.Mismatch.Lost) > 0:
		return ", anew: the database lacked seq " + s.Mismatch.Lost.String()
	}
	return ", anew on what the database has"
}

// missing are the seqs that the session lacks: those that never came, and those
// that the database has lost.
func (c *CarriedState) missing() device.SeqSet { return c.State.Missing().Union(c.Lost) }

// text says it for people, in one line.
func (m *Mismatch) text() string {
	lost := "no event was lost"
	if len(m.Lost) > 0 {
		lost = "lost seq " + m.Lost.String()
	}
	return fmt.Sprintf("at %s the database had revision %d of the session, not %d (a fail-over or a restored backup?): %s",
		m.At.UTC().Format(time.RFC3339), m.Found, m.Believed, lost)
}
