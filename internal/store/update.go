package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Update is what one apply of one session writes: what changed, the session's
// row after the change, and how far ingestion has come.
type Update struct {
	RAE     string
	Session string

	// ID names the apply, and Base is the row that it builds on. The update is
	// written only where the stored row has Base; the same again, after its
	// commit, writes nothing and counts nothing. Any other row is answered with
	// Mismatch. An empty ID: the update is merged into whatever is stored.
	ID   string
	Base Revision

	// The device.State after applying.
	AsOf        int64
	Snapshot    int64
	SnapshotAt  time.Time
	Hash        string // of that snapshot
	Seen        device.SeqSet
	Missing     device.SeqSet // follows from Seen and Snapshot; the store computes it of what is stored and this
	Closed      int64
	Reason      string
	Provisional bool // of the close: no edge sent it
	First, Last time.Time
	Received    time.Time // Kafka timestamp of the newest record
	// BatchReceived is the Kafka timestamp of the newest record of what is
	// applied here: what Write holds was received by then. Zero: Received.
	BatchReceived time.Time

	Write     map[string]device.Attribute // upserts and tombstones
	Positions []device.Position
	// Corrected names those of Write that are written though the stored seq is
	// not older: the snapshot says otherwise.
	Corrected []string

	// Quarantined are batches that are stepped over for good. Each is one row,
	// however often it is written.
	Quarantined []Quarantined

	// Increments of the session's counters. Those of an update without ID count
	// only when one of Positions advances: every apply of new records advances
	// one, a replay advances none.
	Repaired   []string
	OverLimit  []string
	Events     int64
	Records    int64
	Duplicates int64
	AfterClose int64
	Stale      int64 // attribute writes that lost against a newer seq
	Reopened   int64 // 1: an event past a provisional close has reopened the session

	// New says that the update was worked out from nothing: one of a session
	// that is stored is not written. Opens asks for the session's rivals. Both
	// ask for its device's test state.
	New, Opens bool
	// again has the session judged though it writes no evidence: see ReviewClaims.
	again bool
	// Answer is filled by the time that Apply returns without an error. It is
	// needed where ID, New or Opens is set.
	Answer *Answer
}

// Revision says which apply a session's row is of. The zero Revision is that of a
// session that is not stored.
type Revision struct {
	Number  int64 // how many applies there were
	ApplyID string
}

// next is the revision of the row that u was applied to.
func (u Update) next() Revision { return Revision{u.Base.Number + 1, u.ID} }

// Answer is what an update asked for.
type Answer struct {
	Known    bool   // the session is stored, and the update was not written
	Mismatch bool   // another row is stored than the update builds on, and it was not written
	Rivals   Rivals // of the session, as they are after the update
	Test     TestState
	Claims   []Claim // of the session's device, contested
}

// wantsAnswer reports whether u, which is committed, asks for what is read after
// the commit.
func (u Update) wantsAnswer() bool {
	return (u.New || u.Opens) && !u.Answer.Known && !u.Answer.Mismatch
}

func (u Update) batchReceived() time.Time {
	if u.BatchReceived.IsZero() {
		return u.Received
	}
	return u.BatchReceived
}

// corrects reports whether u writes the attribute over one that is stored with
// this seq, be that the same or newer: what came after u's snapshot stays.
func (u Update) corrects(name string, stored int64) bool {
	return stored <= u.Snapshot && slices.Contains(u.Corrected, name)
}

// sortUpdates returns the updates in the order of their sessions, and the sessions' UUIDs, or why they
// cannot be applied together.
func sortUpdates(updates []Update) ([]Update, []uuid.UUID, error) {
	updates = slices.Clone(updates)
	slices.SortFunc(updates, func(a, b Update) int { return cmp.Compare(a.Session, b.Session) })
	ids := make([]uuid.UUID, len(updates))
	for i, u := range updates {
		if err := u.validate(); err != nil {
			return nil, nil, err
		}
		if u.Answer != nil {
			*u.Answer = Answer{}
		}
		if i > 0 && updates[i-1].Session == u.Session {
			return nil, nil, refused("session %s is twice in one group of updates", u.Session)
		}
		ids[i] = uuid.MustParse(u.Session) // checked: it sorts as its text does
	}
	return updates, ids, nil
}

// validate reports why u can never be applied, or nil.
func (u Update) validate() error {
	if err := device.CheckSession(u.Session); err != nil {
		return refused("%v", err)
	}
	if err := device.CheckRAE(u.RAE); err != nil {
		return refused("session %s: %v", u.Session, err)
	}
	if (u.ID != "" || u.New || u.Opens) && u.Answer == nil {
		return refused("session %s: the update sets ID, New or Opens, and Answer is nil", u.Session)
	}
	for _, p := range u.Positions {
		if p.Topic == "" || !device.IsTopicID(p.TopicID) || p.Partition < 0 || p.Next < 0 {
			return refused("session %s: position of topic %q (ID %q), partition %d, offset %d", u.Session, p.Topic, p.TopicID, p.Partition, p.Next)
		}
	}
	return nil
}
