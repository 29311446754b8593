package poller

import "github.com/rollcall-platform/rollcall/internal/device"

// The workflow's names, until package workflows is there to import.
const (
	workflowName = "DeviceSession"
	taskQueue    = "rollcall-sessions"
)

type workflowInput struct{ RAE, Session string }

func input(b device.Batch) workflowInput {
	return workflowInput{RAE: b.Fold.RAE, Session: b.Fold.Session}
}
