package command

import (
	"encoding/json"

	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// handler does what a command asks. To add one, write it here and name it in
// [handlers]; the action itself is an entry of device.Actions.
//
// Life cycle: Handler calls it for a command that has not expired, whose session
// is known and whose arguments agree with the action's entry. It runs inside the
// registry's transaction: what it changes through txn is written together with
// the reply and the memory of the command, or not at all. So it must not do what
// cannot be taken back, must not wait, and must not keep txn.
//
// The result is what encodes to the fields of the action's entry. After an error
// nothing has changed, and the command is given again: an error is for what may
// go by, such as a full outbox.
type handler func(txn *registry.CommandTxn, arguments json.RawMessage) (result any, err error)

// handlers are the actions that this edge does. A test fails unless they are
// those of device.Actions.
var handlers = map[device.Action]handler{
	device.ActionSnapshot: takeSnapshot,
	device.ActionPing:     echoPing,
}

func takeSnapshot(txn *registry.CommandTxn, _ json.RawMessage) (any, error) {
	seq, err := txn.Snapshot()
	return device.SnapshotResult{Seq: seq}, err
}

func echoPing(_ *registry.CommandTxn, arguments json.RawMessage) (any, error) {
	var text device.PingText
	if len(arguments) > 0 {
		if err := json.Unmarshal(arguments, &text); err != nil {
			return nil, err
		}
	}
	return text, nil
}
