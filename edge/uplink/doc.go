// Package uplink publishes the outbox to an MQTT 5 broker, at QoS 1 and in
// order, and removes what the broker has acknowledged.
//
// It is go-back-N: a window of events is in flight, sent in the order of their
// keys; what is acknowledged is removed from the front of the outbox only. When
// an event is refused (PUBACK with a reason of 0x80 or more, or with 0x10, by
// which the broker says that no one was subscribed) nothing further is sent; when all answers are in, it waits a jittered time and starts again at
// the oldest event without an acknowledgement, with a window of one until that
// is taken. A lost connection is
// continued where the broker kept the session (MQTT 5 section 4.4), else it
// starts there as well. So the broker may get an event twice, and an earlier
// one again behind it, but never a session's event before its predecessor for
// the first time, unless it refused the predecessor and took what was in flight
// behind it; then both follow once more, in order.
//
// An event that is refused for ever holds up what is behind it: nothing is ever
// given up. Ready and the metrics say so.
//
// With Options.Commands it subscribes, too, to the commands for this RAE, and
// acknowledges one when it has been dealt with.
//
// autopaho's own queue is not used: it forgets a message before its PUBACK.
package uplink
