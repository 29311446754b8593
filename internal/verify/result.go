package verify

import (
	"bytes"
	"fmt"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Verdict is what the comparison of a session came to.
type Verdict string

// Verdicts. A difference that was found goes before a side that was not asked.
const (
	Equal       Verdict = "equal"
	Drift       Verdict = "drift"
	Unreachable Verdict = "unreachable" // a side could not be asked: nobody knows
)

// Side is one of the places where a record is.
type Side string

// Sides, from the source on.
const (
	AtEdge     Side = "edge"
	InWorkflow Side = "workflow"
	InDatabase Side = "database"
)

// Sides in the order of the path.
var Sides = []Side{AtEdge, InWorkflow, InDatabase}

// Result is what was found out about one session.
type Result struct {
	Session string  `json:"session_id"`
	RAE     string  `json:"rae"`
	Verdict Verdict `json:"verdict"`
	// Compared are the hashes that were compared, each set of them at one seq.
	Compared []Comparison `json:"compared,omitempty"`
	// Differences are the attributes that differ.
	Differences []Difference `json:"differences,omitempty"`
	// Corrected are those that differed in the workflow until the snapshot
	// that this verification asked for corrected them.
	Corrected []Difference `json:"corrected,omitempty"`
	// Findings are differences in something else than an attribute.
	Findings []string `json:"findings,omitempty"`
	// Unreachable says which side could not be asked, and why.
	Unreachable []string `json:"unreachable,omitempty"`
	Notes       []string `json:"notes,omitempty"`
	// Repair is what was done about the session, which differed; the rest says
	// what it is since. Nil: nothing was done.
	Repair *Repair `json:"repair,omitempty"`
}

// Comparison is the hashes that sides have at the same seq.
type Comparison struct {
	Seq    int64           `json:"seq"`
	Hashes map[Side]string `json:"hashes"`
	// Before says that the workflow's is the hash of what it had before it
	// applied the edge's snapshot of this seq.
	Before bool `json:"before_snapshot,omitempty"`
}

// Equal reports whether all hashes are the same.
func (c Comparison) Equal() bool {
	var first *string
	for _, h := range c.Hashes {
		if first != nil && *first != h {
			return false
		}
		first = &h
	}
	return true
}

// Difference is an attribute and what each side has under its name: nil where
// it has no value. A side whose value is not known is left out.
type Difference struct {
	Attribute string                     `json:"attribute"`
	Values    map[Side]*device.Attribute `json:"values"`
}

func (r *Result) find(format string, args ...any) {
	r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
}

func (r *Result) cannotAsk(format string, args ...any) {
	r.Unreachable = append(r.Unreachable, fmt.Sprintf(format, args...))
}

func (r *Result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *Result) conclude() {
	r.Verdict = Equal
	if len(r.Unreachable) > 0 {
		r.Verdict = Unreachable
	}
	differs := len(r.Differences)+len(r.Corrected)+len(r.Findings) > 0
	for _, c := range r.Compared {
		differs = differs || !c.Equal()
	}
	if differs {
		r.Verdict = Drift
	}
}

// answer is what became of the question to the edge.
type answer struct {
	seq     int64  // of the snapshot; 0: there is none
	unknown bool   // the RAE has no such session
	noReply string // why there is no answer
}

// sample is what workflow and database had when they were read.
type sample struct {
	workflow *State // nil: there is none
	database device.State
	absent   bool   // the database has no such session
	failed   string // why nothing could be read
}

// same reports whether workflow and database have applied the same events.
func (m sample) same() bool {
	w, d := m.workflow, m.database
	return w.AsOf == d.AsOf && w.Snapshot == d.Snapshot && w.Closed == d.Closed && w.Missing.String() == d.Missing().String()
}

// compare returns the result of a session. before is the workflow's state before
// the edge was asked, if there was one. With again, one more snapshot could tell
// more: the device changed while this one was applied.
func compare(s Session, before State, a answer, m sample) (r Result, again bool) {
	r = Result{Session: s.ID, RAE: s.RAE}
	if a.noReply != "" {
		r.cannotAsk("edge: %s", a.noReply)
	}
	switch {
	case m.failed != "":
		r.cannotAsk("%s", m.failed)
	case m.absent:
		r.find("the database has no such session")
	case m.workflow == nil:
		r.withoutWorkflow(a, m.database)
	default:
		r.compareCloud(m)
		again = a.seq > 0 && r.compareEdge(before, *m.workflow, m.database)
	}
	if a.unknown && !m.absent && m.database.Closed == 0 {
		r.find("the RAE has no such session; here it is open")
	}
	if s.Closed {
		r.note("it is closed: the RAE was not asked")
	}
	r.conclude()
	return r, again
}

// withoutWorkflow compares the edge's hash, which came with its snapshot, with
// the rows.
func (r *Result) withoutWorkflow(a answer, d device.State) {
	if a.seq == 0 || d.AsOf != d.Snapshot {
		r.cannotAsk("workflow: %v", ErrGone)
		return
	}
	r.Compared = append(r.Compared, Comparison{Seq: d.AsOf, Hashes: map[Side]string{AtEdge: d.Hash, InDatabase: device.Hash(d.Attributes)}})
	r.note("without the workflow: %v", ErrGone)
}

// compareCloud compares workflow and database.
func (r *Result) compareCloud(m sample) {
	w, d := m.workflow, m.database
	if m.same() {
		r.Compared = append(r.Compared, Comparison{Seq: w.AsOf, Hashes: map[Side]string{
			InWorkflow: device.Hash(w.Attributes), InDatabase: device.Hash(d.Attributes),
		}})
	} else {
		r.find("the workflow has applied %s, the database has %s", applied(w.AsOf, w.Snapshot, w.Closed, w.Missing), applied(d.AsOf, d.Snapshot, d.Closed, d.Missing()))
	}
	for _, name := range differing(w.Attributes, d.Attributes) {
		r.Differences = append(r.Differences, Difference{name, map[Side]*device.Attribute{
			InWorkflow: live(w.Attributes, name), InDatabase: live(d.Attributes, name),
		}})
	}
}

func applied(asOf, snapshot, closed int64, missing device.SeqSet) string {
	text := fmt.Sprintf("up to seq %d, snapshot %d", asOf, snapshot)
	if len(missing) > 0 {
		text += ", without " + missing.String()
	}
	if closed > 0 {
		text += fmt.Sprintf(", closed at %d", closed)
	}
	return text
}

// compareEdge compares the edge with the workflow at the newest snapshot that
// it applied, and with both where they have applied nothing after it.
func (r *Result) compareEdge(before, w State, d device.State) (again bool) {
	seq, edge := w.Snapshot, d.Hash
	check := w.Check
	if check != nil && check.Seq != seq {
		check = nil
	}
	if check != nil {
		edge = check.Edge
	}
	now := w.AsOf == seq && d.AsOf == seq
	right := w.AsOf == seq && device.Hash(w.Attributes) == edge
	if now && len(r.Compared) > 0 {
		r.Compared[0].Hashes[AtEdge] = edge
		r.fillEdge(edge, w, d)
	}
	switch {
	case check != nil && check.Cloud != "":
		if check.Cloud != edge || !now {
			r.atSnapshot(seq, edge, check.Cloud)
		}
		if check.Cloud != edge {
			r.correct(before, w, check.Drift, right)
		}
	case len(before.Missing)+len(w.Missing) > 0:
		if len(before.Missing) > 0 {
			r.find("seq %s were missing in the workflow when this snapshot came", before.Missing)
		}
		if len(w.Missing) > 0 {
			r.find("seq %s are missing in the workflow", w.Missing)
		}
		var healed []string
		for _, name := range differing(before.Attributes, w.Attributes) {
			if a, ok := w.Attributes[name]; !ok || before.Missing.Has(a.Seq) {
				healed = append(healed, name)
			}
		}
		r.correct(before, w, healed, right)
	case !now:
		return true
	case before.AsOf == seq-1: // nothing but the snapshot came since
		r.correct(before, w, differing(before.Attributes, w.Attributes), right)
	}
	return false
}

func (r *Result) atSnapshot(seq int64, edge, workflow string) {
	at := Comparison{Seq: seq, Before: true, Hashes: map[Side]string{AtEdge: edge, InWorkflow: workflow}}
	r.Compared = append([]Comparison{at}, r.Compared...)
}

// fillEdge adds the edge's values to the differences: those of the side that
// has the edge's hash are the edge's.
func (r *Result) fillEdge(edge string, w State, d device.State) {
	side := InWorkflow
	switch edge {
	case device.Hash(w.Attributes):
	case device.Hash(d.Attributes):
		side = InDatabase
	default:
		return
	}
	for _, difference := range r.Differences {
		difference.Values[AtEdge] = difference.Values[side]
	}
}

// correct names the attributes that the workflow had otherwise than the edge.
// One that it has now as it had it is still so, unless the workflow is known to
// be right now: then it was a run before that had it, which began with other
// rows.
func (r *Result) correct(before, w State, names []string, right bool) {
	named := map[string]bool{}
	for _, d := range r.Differences {
		named[d.Attribute] = true
	}
	for _, name := range names {
		was, is := live(before.Attributes, name), live(w.Attributes, name)
		switch {
		case !equal(was, is):
			r.Corrected = append(r.Corrected, Difference{name, map[Side]*device.Attribute{AtEdge: is, InWorkflow: was}})
		case right:
			r.Corrected = append(r.Corrected, Difference{name, map[Side]*device.Attribute{AtEdge: is}})
		case !named[name]:
			r.Differences = append(r.Differences, Difference{name, map[Side]*device.Attribute{InWorkflow: is}})
		}
	}
}

// live is the attribute's value, or nil.
func live(attributes map[string]device.Attribute, name string) *device.Attribute {
	if a, ok := attributes[name]; ok && !a.Removed() {
		return &a
	}
	return nil
}

// differing are the names under which a and b have something else, sorted. As in
// device.Hash, the time of an attribute does not count.
func differing(a, b map[string]device.Attribute) []string {
	var names []string
	for _, name := range sortedNames(a, b) {
		if !equal(live(a, name), live(b, name)) {
			names = append(names, name)
		}
	}
	return names
}

func equal(a, b *device.Attribute) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Seq == b.Seq && bytes.Equal(a.Value, b.Value)
}
