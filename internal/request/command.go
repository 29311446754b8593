package request

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// NewCommand returns a command with a new ID, asked by the service at now. Life
// is how long it may wait for its RAE, at most device.MaxCommandLife; 0 is the
// action's deadline. It fails when the action is not in the table, or does not
// take the arguments.
func NewCommand(service, rae, session string, action device.Action, arguments json.RawMessage, now time.Time, life time.Duration) (device.Command, error) {
	spec, ok := device.SpecOfAction(action)
	if !ok {
		return device.Command{}, fmt.Errorf("there is no action %q", action)
	}
	if err := spec.CheckArguments(arguments); err != nil {
		return device.Command{}, fmt.Errorf("%s: %w", action, err)
	}
	if life == 0 {
		life = spec.Deadline
	}
	now = now.UTC().Truncate(time.Millisecond)
	return device.Command{
		ID: uuid.NewString(), Source: device.CommandSource(service), RAE: rae, Session: session,
		Action: action, Arguments: arguments, Time: now, Expires: now.Add(life),
	}, nil
}
