package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"
)

// TestState says whether people may use the device, who uses it, and until when.
// It is the device's, not the session's: people set it, the database keeps it, and
// no event changes it.
type TestState struct {
	State  string    `json:"state"`            // available, in_test, quarantined, maintenance
	Holder string    `json:"holder,omitempty"` // of in_test: who reserved it; otherwise who set the state
	Until  time.Time `json:"until,omitzero"`   // of in_test: when the lease ends, and the device is available
	// Claims are the contested claims of the device or to it, each a line of the
	// status card. They are read with the state.
	Claims []string `json:"claims,omitempty"`
}

// TestStateAvailable is the State of a device for which nobody has set one.
const TestStateAvailable = "available"

func (t *TestState) leaseEnded(now time.Time) bool { return !t.Until.IsZero() && !now.Before(t.Until) }

// setTestState takes over the test state that came with an activity's answer; nil:
// none came.
func (s *session) setTestState(t *TestState) {
	if t != nil {
		s.TestState = t
	}
}

// refreshTestState reads the test state from the database where it is not known,
// may have changed, or its lease has ended. It reports whether it did.
//
// The signal test-state carries no state, so several may come in any order: what is
// read after them is newer than all of them. It is no event, and does not keep the
// session from its idle timeout.
func (s *session) refreshTestState(ctx workflow.Context) bool {
	if s.State.Closed > 0 {
		return false
	}
	s.receiveTestStateSignals()
	if s.TestState != nil && !s.TestState.leaseEnded(workflow.Now(ctx)) {
		return false
	}
	var t TestState
	if err := s.executeActivity(ActivityReadTestState, "read the device's test state", s.id, &t); err != nil {
		panic(fmt.Sprintf("session %s: reading a test state was refused: %v", s.id, err)) // it writes nothing that could be refused
	}
	if t.leaseEnded(workflow.Now(ctx)) { // by this clock; the database's may be behind
		t = TestState{State: TestStateAvailable, Claims: t.Claims}
	}
	s.TestState = &t
	return true
}

// receiveTestStateSignals takes the signals that the test state changed, without
// blocking, and forgets what was known. A run that ends before it has read the new
// state leaves that to the next run.
func (s *session) receiveTestStateSignals() {
	for s.testStateSignals.ReceiveAsync(nil) {
		s.TestState = nil
	}
}

// cardText is the status card's line.
func (t *TestState) cardText() string {
	text := code(t.State)
	if t.Holder != "" {
		text += " by " + code(clip(t.Holder))
	}
	if !t.Until.IsZero() {
		text += " until " + t.Until.UTC().Format(time.RFC3339)
	}
	return text
}
