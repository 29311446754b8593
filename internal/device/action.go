package device

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Action is what a command asks for.
type Action string

// Actions.
const (
	ActionSnapshot Action = "snapshot"
	ActionPing     Action = "ping"
)

// ActionSpec is one entry of the table of actions: what both sides know of it.
type ActionSpec struct {
	Name  Action
	About string // one line, for people
	// Arguments are what a command may say; an argument that is not listed is
	// refused, so that a misspelt one is not passed over.
	Arguments []Field
	// Result is what a reply with the outcome done says. Fields that are not
	// listed are ignored: a newer edge may say more.
	Result []Field
	// Deadline is how long a command waits for the edge unless the asker says
	// otherwise; at most MaxCommandLife.
	Deadline time.Duration
}

// Field is one member of an action's arguments or result.
type Field struct {
	Name     string
	Type     ValueType
	Required bool
	About    string // one line, for people
}

// Actions is the one table of actions. When adding an action: a constant and an
// entry here, and its handler in package edge/command; a test of that package
// fails while there is none.
var Actions = []ActionSpec{
	{
		Name: ActionSnapshot, About: "sends a snapshot of the session now; changes nothing but the session's seq",
		Result:   []Field{{Name: "seq", Type: IntegerValue, Required: true, About: "seq of the snapshot"}},
		Deadline: time.Minute,
	},
	{
		Name: ActionPing, About: "answers with the text it was sent; changes nothing: shows that the way to the RAE and back is open",
		Arguments: []Field{{Name: "text", Type: TextValue, About: "to be sent back"}},
		Result:    []Field{{Name: "text", Type: TextValue, About: "as it was sent"}},
		Deadline:  10 * time.Second,
	},
}

// SnapshotResult is the result of ActionSnapshot.
type SnapshotResult struct {
	Seq int64 `json:"seq"`
}

// SnapshotSeq is the seq of the snapshot that the reply tells of; 0: of none.
func (r Reply) SnapshotSeq() int64 {
	var result SnapshotResult
	if r.Action == ActionSnapshot && r.Outcome == Done {
		_ = json.Unmarshal(r.Result, &result) // a reply is checked when it is read
	}
	return result.Seq
}

// PingText is the arguments and the result of ActionPing.
type PingText struct {
	Text string `json:"text,omitempty"`
}

// SpecOfAction returns the table's entry; ok is false where it has none.
func SpecOfAction(name Action) (spec ActionSpec, ok bool) {
	i := slices.IndexFunc(Actions, func(a ActionSpec) bool { return a.Name == name })
	if i < 0 {
		return ActionSpec{}, false
	}
	return Actions[i], true
}

// CheckArguments reports why arguments are not the action's, or nil.
func (s ActionSpec) CheckArguments(arguments json.RawMessage) error {
	return checkFields("argument", s.Arguments, arguments, false)
}

// CheckResult reports why result is not the action's, or nil.
func (s ActionSpec) CheckResult(result json.RawMessage) error {
	return checkFields("result field", s.Result, result, true)
}

// checkFields holds a JSON object against fields. No object is an empty one.
func checkFields(what string, fields []Field, object json.RawMessage, allowMore bool) error {
	have := map[string]json.RawMessage{}
	if len(object) > 0 {
		if err := json.Unmarshal(object, &have); err != nil || have == nil {
			return fmt.Errorf("%ss are not a JSON object: %s", what, clip(string(object)))
		}
	}
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
		value, ok := have[f.Name]
		switch {
		case !ok && f.Required:
			return fmt.Errorf("%s %s is missing", what, f.Name)
		case !ok:
			continue
		}
		if err := f.Type.Check(value); err != nil {
			return fmt.Errorf("%s %s: %w", what, f.Name, err)
		}
	}
	if allowMore {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !slices.Contains(names, name) {
			known := "there are none"
			if len(names) > 0 {
				known = "there are " + strings.Join(names, ", ")
			}
			return fmt.Errorf("unknown %s %q: %s", what, clip(name), known)
		}
	}
	return nil
}

// maxActionBytes bounds an action's name.
const maxActionBytes = 64

// wellFormed reports whether a may name an action, known here or not: a-z, 0-9
// and '-'.
func (a Action) wellFormed() bool {
	if a == "" || len(a) > maxActionBytes {
		return false
	}
	for _, c := range []byte(a) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
