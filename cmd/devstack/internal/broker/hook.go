package broker

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// hook is what this broker adds to mochi: who may do what, and where events go.
//
// Two habits of mochi shape it. An error of OnPublish that is not a packets.Code
// is logged and the message acknowledged as if nothing were wrong; so refusals
// are Codes. And some packets are dropped without an answer, which leaves a
// client waiting for ever; so OnPacketRead ends the connection for those.
type hook struct {
	mqtt.HookBase
	options *Options
	server  *mqtt.Server
	ctx     context.Context // ends with the broker, and with it every Forward

	forwarded, refused, denied atomic.Int64
}

// notStored is the answer to a publish that Kafka does not have.
var notStored = packets.Code{Code: packets.ErrImplementationSpecificError.Code, Reason: "not stored; keep it and send it again"}

// ID names the hook in mochi's log.
func (h *hook) ID() string { return "rollcall" }

// Provides tells mochi which methods to call.
func (h *hook) Provides(b byte) bool {
	return bytes.IndexByte([]byte{mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPacketRead, mqtt.OnPublish}, b) >= 0
}

// OnConnect refuses what mochi would let through: a client identifier that
// belongs to another user's session, which a connection takes over with all its
// subscriptions, and a will that the ACL would not allow as a publish, or that
// would reach the events' topic around the forwarder.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	code := packets.CodeSuccess
	if other, ok := h.server.Clients.Get(cl.ID); ok && !bytes.Equal(other.Properties.Username, cl.Properties.Username) {
		code = packets.ErrClientIdentifierNotValid
	}
	if will := cl.Properties.Will; will.Flag == 1 && (!allowed(cl, will.TopicName) || isForwarded(will.TopicName)) {
		code = packets.ErrNotAuthorized
	}
	if code == packets.CodeSuccess {
		return nil
	}
	h.deny(cl, "connect", pk.Connect.WillTopic, code)
	_ = h.server.SendConnack(cl, code, false, nil)
	return code
}

// OnConnectAuthenticate checks the user name and its password.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	user := string(pk.Connect.Username)
	if device.CheckRAE(user) == nil {
		if h.options.AllowAnyOnLoopback && isLoopback(cl.Net.Remote) {
			return true
		}
		want, known := h.options.Passwords[user]
		if subtle.ConstantTimeCompare([]byte(want), pk.Connect.Password) == 1 && known {
			return true
		}
	}
	h.deny(cl, "connect", "", packets.ErrBadUsernameOrPassword)
	return false
}

// OnACLCheck is asked for every publish, subscription and delivery.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	if allowed(cl, topic) {
		return true
	}
	action := "subscribe"
	if write {
		action = "publish"
	}
	h.deny(cl, action, topic, packets.ErrNotAuthorized)
	return false
}

// OnPacketRead ends the connection of a client whose publish mochi would leave
// unanswered or answer in another quality of service.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if pk.FixedHeader.Type != packets.Publish {
		return pk, nil
	}
	code := packets.CodeSuccess
	switch {
	case pk.FixedHeader.Qos > 1:
		code = packets.ErrQosNotSupported
	case strings.HasPrefix(pk.TopicName, "$"):
		code = packets.ErrTopicNameInvalid
	}
	if code == packets.CodeSuccess {
		return pk, nil
	}
	h.deny(cl, "publish", pk.TopicName, code)
	_ = h.server.DisconnectClient(cl, code)
	return pk, packets.ErrRejectPacket
}

// OnPublish forwards a session's events and replies and returns when they are
// durable; mochi sends the PUBACK after it. Only a RAE's presence is retained:
// everything else would stay in memory for ever.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	if presence, err := device.PresenceTopic(string(cl.Properties.Username)); pk.FixedHeader.Retain && (err != nil || pk.TopicName != presence) {
		h.deny(cl, "retain", pk.TopicName, packets.ErrNotAuthorized)
		return h.refuse(pk, packets.ErrNotAuthorized)
	}
	if !isForwarded(pk.TopicName) {
		return pk, nil
	}
	ctx, cancel := context.WithTimeout(h.ctx, h.options.ForwardTimeout)
	defer cancel()
	if err := h.options.Forwarder.Forward(ctx, pk.TopicName, pk.Payload); err != nil {
		h.refused.Add(1)
		h.options.Logger.Warn("publish not forwarded; the edge keeps it", "rae", string(cl.Properties.Username), "topic", pk.TopicName, "err", err)
		return h.refuse(pk, notStored)
	}
	h.forwarded.Add(1)
	return pk, nil
}

// refuse answers with the code where an answer is expected. At QoS 0 there is
// none, and the message is dropped, as the sender chose.
func (h *hook) refuse(pk packets.Packet, code packets.Code) (packets.Packet, error) {
	if pk.FixedHeader.Qos == 0 {
		return pk, packets.ErrRejectPacket
	}
	return pk, code
}

func (h *hook) deny(cl *mqtt.Client, action, topic string, code packets.Code) {
	h.denied.Add(1)
	h.options.Logger.Warn("refused an MQTT client", "action", action, "rae", clip(string(cl.Properties.Username)), "topic", clip(topic), "remote", cl.Net.Remote, "err", fmt.Sprintf("%#x %s", code.Code, code.Reason))
}

// allowed reports whether topic, a name or a filter, lies under the client's own
// root. The user name was checked when it connected and holds no wildcard.
func allowed(cl *mqtt.Client, topic string) bool {
	user := string(cl.Properties.Username)
	return user != "" && strings.HasPrefix(topic, "rollcall/v1/"+user+"/")
}

// isForwarded reports whether topic is rollcall/v1/+/sessions/+/events or
// …/replies. Whether the session's name is one is for the consumers of Kafka to
// say, where there is a dead-letter topic.
func isForwarded(topic string) bool {
	p := strings.Split(topic, "/")
	return len(p) == 6 && p[3] == "sessions" && (p[5] == device.KindEvents || p[5] == device.KindReplies)
}

func isLoopback(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	return err == nil && net.ParseIP(host).IsLoopback()
}

// clip shortens what a client sent for the log.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
