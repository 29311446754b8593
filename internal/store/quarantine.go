package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Quarantined is a batch of one session that can never be applied as it is, and
// the Kafka coordinates to replay it from.
type Quarantined struct {
	Topic       string // empty: the payload had no coordinates that could be read
	TopicID     string // of the topic's incarnation: see device.Position
	Partition   int32
	First, Last int64 // offsets; those between may be of other sessions
	Cause       string
	Detail      string
	At          time.Time
	Foreign     string // RAE that sent the batch, where the session is another's
}

// maxQuarantineText bounds what a row keeps of a text, in bytes.
const maxQuarantineText = 2000

// id names the batch by where it is, so that a replay is the same row. What has
// no coordinates is told apart by when it came.
func (q Quarantined) id(session uuid.UUID) uuid.UUID {
	name := fmt.Sprintf("%s\x00%s\x00%d\x00%d\x00%d", q.Topic, q.TopicID, q.Partition, q.First, q.Last)
	if q.Topic == "" {
		name += q.At.UTC().Format("\x00" + time.RFC3339Nano)
	}
	return uuid.NewSHA1(session, []byte(name))
}

type quarantineColumns struct {
	ids, sessions          uuidArray
	raes, topics, topicIDs []string
	causes, detail         []string
	partitions             []int32
	firsts, lasts          []int64
	ats                    []time.Time
}

// add takes what u quarantines, in key order.
func (c *quarantineColumns) add(session uuid.UUID, u Update) {
	all := slices.Clone(u.Quarantined)
	slices.SortFunc(all, func(a, b Quarantined) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.TopicID, b.TopicID), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.First, b.First))
	})
	for _, q := range all {
		c.ids, c.sessions = append(c.ids, uuidOf(q.id(session))), append(c.sessions, uuidOf(session))
		c.raes = append(c.raes, cmp.Or(q.Foreign, u.RAE))
		c.topics, c.topicIDs = append(c.topics, storable(q.Topic)), append(c.topicIDs, storable(q.TopicID))
		c.partitions, c.firsts, c.lasts = append(c.partitions, q.Partition), append(c.firsts, q.First), append(c.lasts, q.Last)
		c.causes, c.detail = append(c.causes, storable(q.Cause)), append(c.detail, storable(q.Detail))
		c.ats = append(c.ats, q.At.UTC())
	}
}

func (c *quarantineColumns) args() []any {
	return []any{c.ids, c.sessions, c.raes, c.topics, c.topicIDs, c.partitions, c.firsts, c.lasts, c.causes, c.detail, c.ats}
}

// storable makes any text one that the database takes: a row about a batch that
// was refused must not be refused.
func storable(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
	if len(s) <= maxQuarantineText {
		return s
	}
	end := maxQuarantineText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// QuarantinedBatch is a row about a batch that was stepped over.
type QuarantinedBatch struct {
	ID        string    `json:"id"`
	Session   string    `json:"session_id"`
	RAE       string    `json:"rae"`
	Topic     string    `json:"topic"`              // of Kafka; empty: the payload had no coordinates that could be read
	TopicID   string    `json:"topic_id,omitempty"` // of the topic's incarnation: see device.Position
	Partition int32     `json:"partition"`
	First     int64     `json:"first_offset"`
	Last      int64     `json:"last_offset"` // offsets between may be of other sessions
	Cause     string    `json:"cause"`
	Detail    string    `json:"detail"`
	At        time.Time `json:"quarantined_at"`

	ResolvedAt time.Time `json:"settled_at,omitzero"`
	ResolvedBy string    `json:"settled_by,omitempty"`
	Outcome    string    `json:"outcome,omitempty"` // empty: open
}

// How a quarantined batch is resolved.
const (
	OutcomeReplayed = "replayed"
	OutcomeDropped  = "dropped"
)

// QuarantineFilter selects quarantined batches. Its zero value selects the
// first DefaultLimit of all that are open.
type QuarantineFilter struct {
	RAE      string
	Session  string // UUID
	Causes   []string
	Resolved bool   // also those that were replayed or dropped
	Limit    int    // default DefaultLimit, at most MaxLimit
	After    string // ID of the last one of the page before
}

// ListQuarantine returns the batches that f selects, the oldest first, and
// whether there are more.
func (s *Store) ListQuarantine(ctx context.Context, f QuarantineFilter) (page []QuarantinedBatch, more bool, err error) {
	var session *uuid.UUID
	if f.Session != "" {
		id, err := uuid.Parse(f.Session)
		if err != nil {
			return nil, false, fmt.Errorf("list quarantined batches: session %q is not a UUID", clip(f.Session))
		}
		session = &id
	}
	var at time.Time
	after := uuid.Nil
	if f.After != "" {
		last, err := s.GetQuarantine(ctx, []string{f.After})
		if err != nil {
			return nil, false, err
		}
		at, after = last[0].At, uuid.MustParse(last[0].ID)
	}
	limit := min(cmp.Or(max(f.Limit, 0), DefaultLimit), MaxLimit)
	causes := append([]string{}, f.Causes...) // not null
	rows, err := s.pool.Query(ctx, sqlListQuarantine, f.RAE, session, causes, f.Resolved, at, after, limit+1)
	if err == nil {
		page, err = pgx.CollectRows(rows, scanQuarantined)
	}
	if err != nil {
		return nil, false, fmt.Errorf("list quarantined batches: %w", err)
	}
	if len(page) > limit {
		return page[:limit], true, nil
	}
	return page, false, nil
}

// GetQuarantine returns the batches with these IDs, the oldest first. One that
// does not exist is ErrNotFound.
func (s *Store) GetQuarantine(ctx context.Context, ids []string) ([]QuarantinedBatch, error) {
	parsed := make([]uuid.UUID, len(ids))
	for i, id := range ids {
		var err error
		if parsed[i], err = uuid.Parse(id); err != nil {
			return nil, fmt.Errorf("%w: %q is not the ID of a quarantined batch", ErrNotFound, clip(id))
		}
	}
	rows, err := s.pool.Query(ctx, sqlGetQuarantine, uuidsOf(parsed))
	if err != nil {
		return nil, fmt.Errorf("get quarantined batches: %w", err)
	}
	found, err := pgx.CollectRows(rows, scanQuarantined)
	if err != nil {
		return nil, fmt.Errorf("get quarantined batches: %w", err)
	}
	for _, id := range parsed {
		if !slices.ContainsFunc(found, func(q QuarantinedBatch) bool { return q.ID == id.String() }) {
			return nil, fmt.Errorf("%w: no quarantined batch has the ID %s", ErrNotFound, id)
		}
	}
	return found, nil
}

// ResolveQuarantine records how a person resolved the batches: outcome is
// OutcomeReplayed or OutcomeDropped.
func (s *Store) ResolveQuarantine(ctx context.Context, ids []string, by, outcome string) error {
	parsed := make([]uuid.UUID, len(ids))
	for i, id := range ids {
		var err error
		if parsed[i], err = uuid.Parse(id); err != nil {
			return fmt.Errorf("resolve quarantined batch %q: %w", clip(id), err)
		}
	}
	if _, err := s.pool.Exec(ctx, sqlResolveQuarantine, uuidsOf(parsed), storable(by), outcome); err != nil {
		return fmt.Errorf("resolve quarantined batches: %w", err)
	}
	return nil
}

func scanQuarantined(r pgx.CollectableRow) (QuarantinedBatch, error) {
	var q QuarantinedBatch
	var id, session uuid.UUID
	var resolved *time.Time
	err := r.Scan(&id, &session, &q.RAE, &q.Topic, &q.TopicID, &q.Partition, &q.First, &q.Last, &q.Cause, &q.Detail, &q.At,
		&resolved, &q.ResolvedBy, &q.Outcome)
	q.ID, q.Session, q.At, q.ResolvedAt = id.String(), session.String(), q.At.UTC(), utc(resolved)
	return q, err
}
