package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"
)

// TestState says whether people may use the device, who uses it, and until when.
// It is the device's, not the session's: people set it, the database has it, and
// no event says it.
type TestState struct {
	State  string    `json:"state"`            // available, in_test, quarantined, maintenance
	Holder string    `json:"holder,omitempty"` // in test: who; else who set the state
	Until  time.Time `json:"until,omitzero"`   // in test: when the lease ends, and the device is available
}

// TestStateAvailable is that of a device of which nobody has said anything.
const TestStateAvailable = "available"

// over reports whether the lease has ended.
func (t *TestState) over(now time.Time) bool { return !t.Until.IsZero() && !now.Before(t.Until) }

// know takes over the test state that came with another answer, if it did.
func (s *session) know(t *TestState) {
	if t != nil && s.Level > 2 {
		s.TestState = t
	}
}

// retest reads the test state where it is not known, may have changed, or its
// lease has ended, and reports whether it did. Who changes it says only that: two
// such signals may come in any order, and what is read now is newer than both.
//
// It is no event: it does not keep the session from ending as idle.
func (s *session) retest(ctx workflow.Context) bool {
	if s.State.Closed > 0 {
		return false
	}
	if s.forgetTest() {
		s.raise(ctx)
	}
	if s.Level < 3 || s.TestState != nil && !s.TestState.over(workflow.Now(ctx)) {
		return false
	}
	var t TestState
	if err := s.execute(ActivityReadTestState, "read the device's test state", s.id, &t); err != nil {
		panic(fmt.Sprintf("session %s: reading a test state was refused: %v", s.id, err)) // it writes nothing that could be
	}
	if t.over(workflow.Now(ctx)) { // by this clock, which need not be the database's
		t = TestState{State: TestStateAvailable}
	}
	s.TestState = &t
	return true
}

// forgetTest takes the signals that say that the test state changed, and reports
// whether there were any. What was known is known no more: a run that ends before
// it has read the new one leaves that to the next.
func (s *session) forgetTest() (told bool) {
	for s.tests.ReceiveAsync(nil) {
		told, s.TestState = true, nil
	}
	return told
}

// line is the card's.
func (t *TestState) line() string {
	line := code(t.State)
	if t.Holder != "" {
		line += " by " + code(clip(t.Holder))
	}
	if !t.Until.IsZero() {
		line += " until " + t.Until.UTC().Format(time.RFC3339)
	}
	return line
}
