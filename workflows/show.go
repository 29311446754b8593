package workflows

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// summary is what the Web UI shows for an apply: "apply seq 120–184 (65 events,
// 4 attributes)", and for one that reopens the session what had closed it.
func (s *session) summary(p *plannedApply) string {
	seqs := device.Range{From: p.fold.Seqs.First(), To: p.fold.Seqs.Last()}
	reopens := ""
	if p.change.Reopened {
		reopens = fmt.Sprintf("reopen (closed after seq %d: %s), ", s.State.Closed, s.State.Reason)
	}
	return clip(reopens + "apply seq " + seqs.String() + " (" + plural(p.fold.Events(), "event") + ", " + plural(int64(len(p.change.Write)), "attribute") + ")")
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

// Search attributes of a session, all of type Keyword, that do not show an attribute
// of the device.
const (
	searchRAE       = "RaeSerial"
	searchSync      = "SyncState"
	searchTestState = "TestState" // unset until the session has read its device's test state
)

// searchedAttributes are the search attributes that show an attribute of the device,
// in the order of the vocabulary: each shows the first of its attributes that has a
// value.
var searchedAttributes = newSearchedAttributes()

type searchedAttribute struct {
	search     string
	attributes []string
}

func newSearchedAttributes() []searchedAttribute {
	var all []searchedAttribute
	for _, spec := range device.Vocabulary {
		switch {
		case spec.Search == "":
		case spec.Search != device.SearchModel:
			all = append(all, searchedAttribute{spec.Search, []string{spec.Name}})
		case spec.Name == device.ModelAttributes[0]: // the others of the list come with it
			all = append(all, searchedAttribute{spec.Search, device.ModelAttributes})
		}
	}
	return all
}

// SearchAttributes are the names, all of type Keyword, that a server must know
// before a session sets any of them.
func SearchAttributes() []string {
	names := []string{searchRAE, searchSync}
	for _, a := range searchedAttributes {
		names = append(names, a.search)
	}
	return append(names, searchTestState)
}

// show updates the status card and the search attributes where they have changed. A
// change of a search attribute costs the server a visibility write.
func (s *session) show(ctx workflow.Context) {
	if card := s.card(); card != s.shownCard {
		s.shownCard = card
		workflow.SetCurrentDetails(ctx, card)
	}
	if !s.SearchAttributes {
		return
	}
	have := workflow.GetTypedSearchAttributes(ctx)
	var updates []temporal.SearchAttributeUpdate
	for _, a := range s.searchValues() {
		key := temporal.NewSearchAttributeKeyKeyword(a.name)
		switch old, ok := have.GetKeyword(key); {
		case a.value == "" && ok:
			updates = append(updates, key.ValueUnset())
		case a.value != "" && a.value != old:
			updates = append(updates, key.ValueSet(a.value))
		}
	}
	if len(updates) == 0 {
		return
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, updates...); err != nil {
		s.log.Error("set search attributes", "err", err)
	}
}

type searchValue struct{ name, value string }

// searchValues are the session's search attributes, in the order of
// SearchAttributes; an empty value is none.
func (s *session) searchValues() []searchValue {
	values := []searchValue{{searchRAE, s.rae}, {searchSync, string(s.Sync)}}
	for _, a := range searchedAttributes {
		values = append(values, searchValue{a.search, attributeText(&s.State, a.attributes...)})
	}
	testState := ""
	if s.TestState != nil {
		testState = s.TestState.State
	}
	return append(values, searchValue{searchTestState, testState})
}

// maxKeyword bounds a search attribute's value: PostgreSQL and SQLite keep a
// Keyword in 255 characters.
const maxKeyword = 255

// attributeText is the value of the first of the attributes that has text: a string,
// or a list of strings, joined. It is at most maxKeyword characters.
func attributeText(state *device.State, attributes ...string) string {
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

// card is the status card: the session at a glance, in markdown.
func (s *session) card() string {
	var card strings.Builder
	card.WriteString("**" + string(s.Sync) + "** · as of seq " + strconv.FormatInt(s.State.AsOf, 10) + " · " + plural(int64(len(s.State.Live())), "attribute") + "\n\n")
	row := func(name, value string) {
		if value != "" {
			card.WriteString("- " + name + ": " + value + "\n")
		}
	}
	s.addDeviceRows(row)
	s.addSyncRows(row)
	s.addCountRows(row)
	return card.String()
}

// addDeviceRows adds what is known of the device. row ignores an empty value.
func (s *session) addDeviceRows(row func(name, value string)) {
	row("RAE", code(s.rae))
	for _, a := range searchedAttributes {
		row(a.search, code(attributeText(&s.State, a.attributes...)))
	}
	if s.TestState != nil {
		row(searchTestState, s.TestState.cardText())
		for _, claim := range s.TestState.Claims {
			row("**contested claim**", code(clip(claim)))
		}
	}
	for _, spec := range device.Vocabulary {
		if spec.Card != "" {
			row(spec.Card, code(attributeText(&s.State, spec.Name)))
		}
	}
	if !s.State.Last.IsZero() {
		row("last observed", s.State.Last.UTC().Format(time.RFC3339))
	}
}

// addSyncRows adds how the record relates to the edge's, and how the session ends.
func (s *session) addSyncRows(row func(name, value string)) {
	if missing := s.missing(); len(missing) > 0 {
		row("missing seq", missing.String()+", since "+s.SyncSince.UTC().Format(time.RFC3339))
	}
	if s.Repair.Overdue {
		row("snapshot overdue", "the newest came before "+s.LastSnapshotAt.UTC().Format(time.RFC3339))
	}
	row("snapshot", s.repairText())
	if c := s.Check; c != nil && len(c.Drift) > 0 {
		row("**drift**", fmt.Sprintf("at seq %d the edge's snapshot had other values of %s, though no event was missing", c.Seq, code(clip(strings.Join(c.Drift, ", ")))))
	}
	if s.Mismatch != nil {
		row("**database**", s.Mismatch.text())
	}
	if s.CloseReason != "" && s.State.Closed == 0 {
		row("will be closed", code(s.CloseReason)+", when no batch has come for it for "+s.CloseQuiet.String())
	}
	if s.State.Closed > 0 {
		until := ""
		if s.State.Provisional {
			until = "; no edge said so, and an event past it reopens the session"
		}
		row("closed", fmt.Sprintf("at seq %d: %s%s", s.State.Closed, code(s.State.Reason), until))
	}
	if n := s.Counters.Reopened; n > 0 {
		row("reopened", plural(n, "time")+", by an event past a close that no edge had sent")
	}
}

// addCountRows adds what became of the events and batches.
func (s *session) addCountRows(row func(name, value string)) {
	c := s.Counters
	row("events", fmt.Sprintf("%d applied, %d duplicates, %d after close", c.Events, c.Duplicates, c.AfterClose))
	if s.Check != nil && len(s.Check.Repaired) > 0 {
		row("repaired", fmt.Sprintf("%s by the snapshot at seq %d", code(clip(strings.Join(s.Check.Repaired, ", "))), s.Check.Seq))
	}
	if c.Refused > 0 {
		row("refused batches", fmt.Sprintf("%d; the last: %s", c.Refused, code(s.RecentRefusals[len(s.RecentRefusals)-1].Detail)))
	}
}

// code quotes text from outside, so that it is not read as markdown.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.NewReplacer("`", "'", "\n", " ", "\r", " ").Replace(s) + "`"
}
