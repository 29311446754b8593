package verify

import (
	"context"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/request"
)

// RAEs is the Edge of a platform that runs: it asks over Kafka.
type RAEs struct{ Requester *request.Requester }

// Snapshot implements Edge.
func (r RAEs) Snapshot(ctx context.Context, s Session) (device.Reply, error) {
	command, err := request.NewCommand("verify", s.RAE, s.ID, device.ActionSnapshot, nil, time.Now(), CommandLife)
	if err != nil {
		return device.Reply{}, err
	}
	command.Reason = "verify"
	return r.Requester.Ask(ctx, command)
}
