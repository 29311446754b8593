package workflows

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Metrics of the workflow, written by the SDK's replay-aware handler. A
// Prometheus bridge adds _total to a counter.
const (
	metricEvents     = "rollcall_session_events"          // applied, each once
	metricDuplicates = "rollcall_session_duplicates"      // events that had been applied before
	metricAfterClose = "rollcall_session_after_close"     // events refused after the close
	metricOverLimit  = "rollcall_session_over_limit"      // attributes refused at the state's limits
	metricRepaired   = "rollcall_session_repaired"        // attributes that a snapshot had to correct
	metricGaps       = "rollcall_session_gaps"            // times a session went from live to gap
	metricRefused    = "rollcall_session_refused_batches" // by cause
	metricEscalated  = "rollcall_session_escalations"     // local activities that became regular ones, by activity
	metricContinued  = "rollcall_session_continued"       // continue-as-new, by reason
	metricStale      = "rollcall_session_stale"           // attribute writes that lost against a newer seq
	metricDrift      = "rollcall_session_drift"           // attributes that differed from a snapshot though no event was missing
	metricRequests   = "rollcall_session_requests"        // tries to ask for a snapshot, by outcome
	metricSuperseded = "rollcall_session_superseded"      // sessions closed because their device opened a newer one
	metricEnded      = "rollcall_session_ended"           // workflows that completed, by reason
)

func (s *session) add(ctx workflow.Context, name string, n int64) {
	if n > 0 {
		workflow.GetMetricsHandler(ctx).Counter(name).Inc(n)
	}
}

func (s *session) count(ctx workflow.Context, name, label, value string) {
	workflow.GetMetricsHandler(ctx).WithTags(map[string]string{label: value}).Counter(name).Inc(1)
}

func (s *session) report(ctx workflow.Context, r ApplyRequest, c device.Change) {
	s.add(ctx, metricEvents, r.Events)
	s.add(ctx, metricDuplicates, r.Duplicates)
	s.add(ctx, metricAfterClose, r.AfterClose)
	s.add(ctx, metricStale, r.Stale)
	s.add(ctx, metricOverLimit, int64(len(c.OverLimit)))
	s.add(ctx, metricRepaired, int64(len(c.Repaired)))
	if len(c.OverLimit) > 0 {
		s.log.Error("attributes refused: the session's state would no longer fit one event", "attributes", c.OverLimit, "as_of", r.AsOf)
	}
	if c.AfterClose > 0 {
		s.log.Warn("events refused: the session was closed before them", "events", c.AfterClose, "closed", r.Closed)
	}
	if len(c.Repaired) > 0 || len(c.Healed) > 0 {
		s.log.Info("snapshot applied", "snapshot", r.Snapshot, "healed", c.Healed.String(), "repaired", c.Repaired)
	}
}

// summary is what the Web UI shows of an apply: "apply seq 120–184 (65 events,
// 4 attributes)".
func (p step) summary() string {
	seqs := device.Range{From: p.fold.Seqs.First(), To: p.fold.Seqs.Last()}
	return clip("apply seq " + seqs.String() + " (" + plural(p.fold.Events(), "event") + ", " + plural(int64(len(p.change.Write)), "attribute") + ")")
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "ch") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// view is the answer to the query.
func (s *session) view() StateView {
	live := s.State.Live()
	if live == nil {
		live = map[string]device.Attribute{}
	}
	var repair *Repair
	if s.lacking() && s.Level > 0 {
		r := s.Repair
		repair = &r
	}
	return StateView{
		Session: s.id, RAE: s.rae,
		Attributes: live, AsOf: s.State.AsOf, Hash: device.Hash(live),
		FirstObserved: s.State.First, LastObserved: s.State.Last, LastReceived: s.LastReceived,
		Sync: s.Sync, SyncSince: s.SyncSince, Missing: s.State.Missing(), Snapshot: s.State.Snapshot, Check: s.Check, Repair: repair,
		Closed: s.State.Closed, Reason: s.State.Reason, TestState: s.TestState,
		Counters: s.Counters, RecentRefusals: slices.Clone(s.RecentRefusals), Waiting: len(s.Waiting) + len(s.PendingRefusals),
		Runs: s.Runs, Builds: slices.Clone(s.Builds), Positions: slices.Clone(s.Positions),
	}
}

func (s *session) result() Result {
	live := s.State.Live()
	return Result{
		Session: s.id, RAE: s.rae, Idle: s.State.Closed == 0, Sync: s.Sync, AsOf: s.State.AsOf, Closed: s.State.Closed, Reason: s.State.Reason,
		Hash: device.Hash(live), Attributes: len(live), Counters: s.Counters, Runs: s.Runs,
	}
}

// Search attributes of a session, all of type Keyword, and the device
// attributes whose value each shows: the first that there is. SyncState and
// RaeSerial come from the session itself.
var searchAttributes = []struct {
	key        string
	attributes []string
}{
	{"ConnectionStatus", []string{"connection.status"}},
	{"DeviceModel", []string{"device.model", "mdns.model"}},
	{"Esn", []string{"netflix.esn"}},
	{keyTestState, []string{"state.test"}}, // until the session has read the device's
}

const keyTestState = "TestState"

// What the status card shows besides.
var cardAttributes = []struct{ label, attribute string }{
	{"host name", "network.hostname"},
	{"MAC", "network.mac"},
	{"IPv4", "network.ipv4"},
}

// SearchAttributes are the names, all of type Keyword, that a server must know
// before a session sets any of them.
func SearchAttributes() []string {
	names := []string{"RaeSerial", "SyncState"}
	for _, a := range searchAttributes {
		names = append(names, a.key)
	}
	return names
}

// show puts what people look for where they look: search attributes, which cost
// a visibility write and so are set on change only, and the status card.
func (s *session) show(ctx workflow.Context) {
	if card := s.card(); card != s.details {
		s.details = card
		workflow.SetCurrentDetails(ctx, card)
	}
	if !s.SearchAttributes {
		return
	}
	have := workflow.GetTypedSearchAttributes(ctx)
	var updates []temporal.SearchAttributeUpdate
	for name, value := range s.searchValues() {
		key := temporal.NewSearchAttributeKeyKeyword(name)
		switch old, ok := have.GetKeyword(key); {
		case value == "" && ok:
			updates = append(updates, key.ValueUnset())
		case value != "" && value != old:
			updates = append(updates, key.ValueSet(value))
		}
	}
	if len(updates) == 0 {
		return
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, updates...); err != nil {
		s.log.Error("set search attributes", "err", err)
	}
}

// searchValues yields the search attributes of a session, in a fixed order; an
// empty value is none.
func (s *session) searchValues() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		if !yield("RaeSerial", s.rae) || !yield("SyncState", string(s.Sync)) {
			return
		}
		for _, a := range searchAttributes {
			value := text(&s.State, a.attributes...)
			if a.key == keyTestState && s.TestState != nil {
				value = s.TestState.State
			}
			if !yield(a.key, value) {
				return
			}
		}
	}
}

// maxKeyword bounds a search attribute's value: PostgreSQL and SQLite keep a
// Keyword in 255 characters.
const maxKeyword = 255

// text is the value of the first of the attributes that is a string and not
// empty, or a list of strings; short enough to search for.
func text(state *device.State, attributes ...string) string {
	for _, name := range attributes {
		a, ok := state.Attributes[name]
		if !ok {
			continue
		}
		var one string
		var many []string
		if json.Unmarshal(a.Value, &one) != nil && json.Unmarshal(a.Value, &many) == nil {
			one = strings.Join(many, ", ")
		}
		if one == "" {
			continue
		}
		if r := []rune(one); len(r) > maxKeyword {
			return string(r[:maxKeyword])
		}
		return one
	}
	return ""
}

// card is the session at a glance, in markdown.
func (s *session) card() string {
	var b strings.Builder
	b.WriteString("**" + string(s.Sync) + "** · as of seq " + strconv.FormatInt(s.State.AsOf, 10) + " · " + plural(int64(len(s.State.Live())), "attribute") + "\n\n")
	row := func(name, value string) {
		if value != "" {
			b.WriteString("- " + name + ": " + value + "\n")
		}
	}
	row("RAE", code(s.rae))
	for _, a := range searchAttributes {
		value := code(text(&s.State, a.attributes...))
		if a.key == keyTestState && s.TestState != nil {
			value = s.TestState.line()
		}
		row(a.key, value)
	}
	for _, a := range cardAttributes {
		row(a.label, code(text(&s.State, a.attribute)))
	}
	if !s.State.Last.IsZero() {
		row("last observed", s.State.Last.UTC().Format(time.RFC3339))
	}
	if missing := s.State.Missing(); len(missing) > 0 {
		row("missing seq", missing.String()+", since "+s.SyncSince.UTC().Format(time.RFC3339))
	}
	if s.Repair.Overdue {
		row("snapshot overdue", "the newest came before "+s.LastSnapshotAt.UTC().Format(time.RFC3339))
	}
	row("snapshot", s.repairs())
	if c := s.Check; c != nil && len(c.Drift) > 0 {
		row("**drift**", fmt.Sprintf("at seq %d the edge's snapshot had other values of %s, though no event was missing", c.Seq, code(clip(strings.Join(c.Drift, ", ")))))
	}
	if s.CloseReason != "" && s.State.Closed == 0 && s.Level > 1 {
		row("to be closed", code(s.CloseReason)+", when nothing has come for it for "+s.CloseQuiet.String())
	}
	if s.State.Closed > 0 {
		row("closed", fmt.Sprintf("at seq %d: %s", s.State.Closed, code(s.State.Reason)))
	}
	c := s.Counters
	row("events", fmt.Sprintf("%d applied, %d duplicates, %d after close", c.Events, c.Duplicates, c.AfterClose))
	if s.Check != nil && len(s.Check.Repaired) > 0 {
		row("repaired", fmt.Sprintf("%s by the snapshot at seq %d", code(clip(strings.Join(s.Check.Repaired, ", "))), s.Check.Seq))
	}
	if c.Refused > 0 {
		row("refused batches", fmt.Sprintf("%d; the last: %s", c.Refused, code(s.RecentRefusals[len(s.RecentRefusals)-1].Detail)))
	}
	return b.String()
}

// code keeps outside text from being read as markdown.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.NewReplacer("`", "'", "\n", " ", "\r", " ").Replace(s) + "`"
}
