package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// summaryAttributes are the attributes that a Summary is made of.
var summaryAttributes = slices.Concat([]string{device.AttrIPv4}, device.NameAttributes, device.ModelAttributes)

// Bounds of what one query returns.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
	maxDetails   = 200 // sessions, identities and gaps of one device
)

// StatusClosed is the Status of a device whose sessions are all closed.
const StatusClosed = "closed"

// Filter selects devices. Its zero value selects the first DefaultLimit of all.
// It looks at a device's current session: its open one, or the one seen last.
type Filter struct {
	RAE    string // serial
	Status string // connection.status (online, offline), or StatusClosed
	Text   string // in the name or model evidence, in any case
	// Attributes that must have the value, written as text ("true", "42",
	// "tv.local"), or have it among their members.
	Attributes map[string]string
	Available  bool   // online, and its test state is available
	Limit      int    // default DefaultLimit, at most MaxLimit
	After      string // Page.Next of the page before
}

// Page is some of the devices.
type Page struct {
	Devices []Summary `json:"devices"`
	Next    string    `json:"next,omitempty"` // Filter.After of the next page; empty: that was the last
}

// Summary is one device session, for a list.
type Summary struct {
	Device  string `json:"device_id"`
	Session string `json:"session_id"`
	RAE     string `json:"rae"`
	Status  string `json:"status"` // connection.status, or StatusClosed
	Name    string `json:"name,omitempty"`
	Model   string `json:"model,omitempty"`
	MAC     string `json:"mac,omitempty"`
	IPv4    string `json:"ipv4,omitempty"`

	Test TestState `json:"test"` // of the device

	AsOf     int64         `json:"as_of_seq"`
	Snapshot int64         `json:"snapshot_seq,omitempty"`
	Missing  device.SeqSet `json:"missing,omitempty"` // [from,to] of seq
	Closed   int64         `json:"closed_seq,omitempty"`
	Reason   string        `json:"close_reason,omitempty"`

	// By the edge's clock: when it first and last observed the device, when an
	// attribute last changed, and when it took the newest snapshot, which
	// confirms the record whether the device is there or not.
	FirstObserved time.Time `json:"first_observed,omitzero"`
	LastObserved  time.Time `json:"last_observed,omitzero"`
	ChangedAt     time.Time `json:"changed_at,omitzero"`
	ConfirmedAt   time.Time `json:"confirmed_at,omitzero"`

	ReceivedAt time.Time `json:"received_at,omitzero"` // Kafka's timestamp of the newest record
	AppliedAt  time.Time `json:"applied_at"`           // by the database's clock
}

// ListDevices returns a page of the devices that f selects, ordered by device
// identifier.
func (s *Store) ListDevices(ctx context.Context, f Filter) (Page, error) {
	after := uuid.Nil
	if f.After != "" {
		var err error
		if after, err = uuid.Parse(f.After); err != nil {
			return Page{}, fmt.Errorf("list devices: %q is not where a page ends", f.After)
		}
	}
	limit := min(cmp.Or(max(f.Limit, 0), DefaultLimit), MaxLimit)
	names, values, members := attributeFilter(f.Attributes)
	rows, err := s.pool.Query(ctx, sqlListDevices, after, f.RAE, f.Status, f.Text,
		slices.Concat(device.NameAttributes, device.ModelAttributes), names, values, members, limit+1, f.Available)
	if err != nil {
		return Page{}, fmt.Errorf("list devices: %w", err)
	}
	devices, err := pgx.CollectRows(rows, scanSummary)
	if err != nil {
		return Page{}, fmt.Errorf("list devices: %w", err)
	}
	page := Page{Devices: devices}
	if len(devices) > limit {
		page.Devices = devices[:limit]
		page.Next = page.Devices[limit-1].Device
	}
	if err := s.describe(ctx, page.Devices); err != nil {
		return Page{}, fmt.Errorf("list devices: %w", err)
	}
	return page, nil
}

// AttributeNames are the names of all attributes that any session has or has had
// lately, sorted.
func (s *Store) AttributeNames(ctx context.Context) ([]string, error) {
	return s.texts(ctx, "attribute names", sqlAttributeNames)
}

// RAEs are the serials of all RAEs that anything has come from, sorted.
func (s *Store) RAEs(ctx context.Context) ([]string, error) { return s.texts(ctx, "RAEs", sqlRAEs) }

func (s *Store) texts(ctx context.Context, what, sql string) ([]string, error) {
	rows, err := s.pool.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return texts, nil
}

// attributeFilter gives each value as text, and as the JSON list that a list
// holding it contains.
func attributeFilter(attributes map[string]string) (names, values, members []string) {
	names, values, members = []string{}, []string{}, []string{}
	for name, value := range attributes {
		member, _ := json.Marshal([]string{value})
		names, values, members = append(names, name), append(values, value), append(members, string(member))
	}
	return names, values, members
}

func scanSummary(r pgx.CollectableRow) (Summary, error) {
	var s Summary
	var deviceID, session uuid.UUID
	var missing []byte
	var first, last, received, confirmed, changed *time.Time
	err := r.Scan(&deviceID, &session, &s.RAE, &s.Status, &s.MAC, &s.AsOf, &s.Snapshot,
		&missing, &s.Closed, &s.Reason, &first, &last, &received, &s.AppliedAt, &confirmed, &changed)
	if err != nil {
		return s, err
	}
	s.Device, s.Session = deviceID.String(), session.String()
	s.FirstObserved, s.LastObserved, s.ReceivedAt, s.AppliedAt = utc(first), utc(last), utc(received), s.AppliedAt.UTC()
	s.ConfirmedAt, s.ChangedAt = utc(confirmed), utc(changed)
	if s.Closed > 0 {
		s.Status = StatusClosed
	}
	return s, json.Unmarshal(missing, &s.Missing)
}

// describe fills in what the summaries take from attributes.
func (s *Store) describe(ctx context.Context, summaries []Summary) error {
	ids := make([]uuid.UUID, len(summaries))
	for i := range summaries {
		ids[i] = uuid.MustParse(summaries[i].Session)
	}
	attributes, err := s.attributes(ctx, ids, summaryAttributes)
	if err != nil {
		return err
	}
	for i := range summaries {
		summaries[i].describe(attributes[ids[i]])
	}
	return s.testStates(ctx, summaries)
}

func (s *Summary) describe(attributes map[string]device.Attribute) {
	s.Name, s.Model = firstText(attributes, device.NameAttributes), firstText(attributes, device.ModelAttributes)
	s.IPv4 = firstText(attributes, []string{device.AttrIPv4})
}

func firstText(attributes map[string]device.Attribute, names []string) string {
	for _, name := range names {
		a, ok := attributes[name]
		if !ok {
			continue
		}
		if t := a.Texts(); len(t) > 0 && t[0] != "" {
			return strings.Join(t, ", ")
		}
	}
	return ""
}

// attributes reads those of names, or all where names is nil, that have a value.
func (s *Store) attributes(ctx context.Context, sessions []uuid.UUID, names []string) (map[uuid.UUID]map[string]device.Attribute, error) {
	out := make(map[uuid.UUID]map[string]device.Attribute, len(sessions))
	if len(sessions) == 0 {
		return out, nil
	}
	rows, err := s.pool.Query(ctx, sqlAttributesOf, sessions, names)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		var name string
		var value []byte
		var seq int64
		var at time.Time
		if err := rows.Scan(&id, &name, &value, &seq, &at); err != nil {
			return nil, err
		}
		a, err := decodeAttribute(value, seq, at)
		if err != nil {
			return nil, fmt.Errorf("session %s: attribute %s: %w", id, name, err)
		}
		if out[id] == nil {
			out[id] = make(map[string]device.Attribute)
		}
		out[id][name] = a
	}
	return out, rows.Err()
}
