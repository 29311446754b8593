package uplink

import (
	"context"
	"encoding/json"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

// Status of the RAE in its presence message.
const (
	statusOnline  = "online"
	statusOffline = "offline"
)

// greetTimeout bounds one attempt to publish a presence message.
const greetTimeout = 10 * time.Second

// presence is the retained message on the RAE's presence topic. The will has
// no time: it is written long before.
type presence struct {
	Status string    `json:"status"`
	RAE    string    `json:"rae"`
	At     time.Time `json:"at,omitzero"`
}

func presencePayload(rae, status string, at time.Time) []byte {
	b, err := json.Marshal(presence{Status: status, RAE: rae, At: at})
	if err != nil {
		return []byte(`{"status":"` + status + `"}`) // cannot be: strings and a time
	}
	return b
}

// greet publishes the birth message, again and again until the broker takes it
// or ctx is done: with the connection or the uplink.
func (u *Uplink) greet(ctx context.Context, cm *autopaho.ConnectionManager) {
	for attempt := 1; ctx.Err() == nil; attempt++ {
		try, cancel := context.WithTimeout(ctx, greetTimeout)
		err := u.announce(try, cm, statusOnline)
		cancel()
		if err == nil {
			return
		}
		u.o.Logger.Debug("birth message was not published", "topic", u.presence, "err", err)
		_ = retry.Sleep(ctx, u.backoff(attempt+2)) // the loop looks at ctx
	}
}

func (u *Uplink) announce(ctx context.Context, cm *autopaho.ConnectionManager, status string) error {
	_, err := cm.Publish(ctx, &paho.Publish{
		Topic: u.presence, QoS: 1, Retain: true, Payload: presencePayload(u.o.RAE, status, u.o.Now().UTC().Truncate(time.Millisecond)),
		Properties: &paho.PublishProperties{ContentType: "application/json"},
	})
	return err
}
