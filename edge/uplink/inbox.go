package uplink

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

const (
	// receiveMaximum is how many commands the broker may have sent without an
	// acknowledgement. Two of them fit the inbox: what an earlier connection
	// brought may still be in it.
	receiveMaximum = 128
	// maxCommandPacket is the largest command with room for its topic and
	// properties. The broker sends nothing larger.
	maxCommandPacket = 2 * device.MaxCommandBytes

	subscribeTimeout = 10 * time.Second
)

// inbox takes the commands for this RAE from the broker and gives them, one
// after the other, to Options.Commands. A command is acknowledged when that has
// returned nil, so that what a crash interrupts comes again: the broker keeps
// it in the MQTT session.
//
// What finds the inbox full is left without an acknowledgement, and when the
// inbox is empty the connection is dropped once: the broker then sends it again.
type inbox struct {
	u         *Uplink
	filter    string
	queue     chan delivery
	overflown atomic.Bool
}

type delivery struct {
	client *paho.Client // of the connection that brought it
	packet *paho.Publish
}

func newInbox(u *Uplink) *inbox {
	return &inbox{u: u, filter: "rollcall/v1/" + u.o.RAE + "/sessions/+/" + device.KindCommands, queue: make(chan delivery, 2*receiveMaximum)}
}

// receive is called by paho, which reads nothing while it runs.
func (in *inbox) receive(p paho.PublishReceived) (bool, error) {
	in.u.metrics.received.Inc()
	select {
	case in.queue <- delivery{p.Client, p.Packet}:
	default:
		in.overflown.Store(true)
	}
	return true, nil
}

// run handles commands until ctx is done.
func (in *inbox) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-in.queue:
			if !in.handle(ctx, d.packet) {
				return
			}
			_ = d.client.Ack(d.packet) // it fails only where the connection is gone
		}
		if len(in.queue) == 0 && in.overflown.Swap(false) {
			in.u.o.Logger.Warn("more commands came than could be taken; asking the broker for the rest again")
			in.u.reconnect()
		}
	}
}

// handle reports whether the message is dealt with; if not, ctx is done.
func (in *inbox) handle(ctx context.Context, m *paho.Publish) bool {
	for n := 2; ; n++ {
		err := in.u.o.Commands(ctx, m.Topic, m.Payload)
		if err == nil {
			return true
		}
		if n == 2 && ctx.Err() == nil {
			in.u.o.Logger.Warn("command could not be answered; trying again", "topic", m.Topic, "err", err)
		}
		if retry.Sleep(ctx, in.u.backoff(n)) != nil {
			return false
		}
	}
}

// subscribe asks for this RAE's commands, again and again until the broker
// grants it or ctx is done. It asks on each connection: a broker that lost the
// MQTT session has lost the subscription, and to others it changes nothing.
func (in *inbox) subscribe(ctx context.Context, cm *autopaho.ConnectionManager) {
	for attempt := 1; ctx.Err() == nil; attempt++ {
		try, cancel := context.WithTimeout(ctx, subscribeTimeout)
		// 2: nothing retained is sent at subscribing.
		ack, err := cm.Subscribe(try, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: in.filter, QoS: 1, RetainHandling: 2}}})
		cancel()
		if err == nil && ack != nil && len(ack.Reasons) == 1 && ack.Reasons[0] != 1 {
			err = fmt.Errorf("granted with reason 0x%02x, not with QoS 1", ack.Reasons[0])
		}
		if err == nil {
			in.u.metrics.subscribed.Set(1)
			in.u.o.Logger.Debug("subscribed to commands", "topic", in.filter)
			return
		}
		if attempt == 1 && ctx.Err() == nil {
			in.u.o.Logger.Warn("broker does not let this RAE subscribe to its commands; events flow all the same, trying again", "topic", in.filter, "err", err)
		}
		_ = retry.Sleep(ctx, in.u.backoff(attempt+2)) // the loop looks at ctx
	}
}

// correlation is the MQTT 5 correlation data of a reply, the command's ID; nil
// of everything else. The payload says it, too: not every broker passes
// properties on.
func correlation(topic string, payload []byte) []byte {
	if !strings.HasSuffix(topic, "/"+device.KindReplies) {
		return nil
	}
	reply, err := device.DecodeReply(topic, payload)
	if err != nil {
		return nil
	}
	return []byte(reply.Command)
}
