// Package uplink publishes the outbox to an MQTT 5 broker, at QoS 1 and in
// order, and removes what the broker has acknowledged.
//
// It is go-back-N: a window of events is in flight, sent in the order of their
// keys; what is acknowledged is removed from the front of the outbox only. When
// an event is refused (PUBACK with a reason of 0x80 or more, or with 0x10, by
// which the broker says that no one was subscribed) nothing further is sent. When
// all answers are in, the uplink waits a jittered time and starts again at the
// oldest event without an acknowledgement, with a window of one until that is
// taken. After a lost connection it continues the MQTT session where the broker
// kept it (MQTT 5 section 4.4), else it starts at that event as well.
//
// So the broker may get an event twice, and an earlier one again behind it, but
// never a session's event before its predecessor for the first time. There is one
// exception: where the broker refused the predecessor and took what was in flight
// behind it, both follow once more, in order.
//
// An event that is refused for ever holds up what is behind it: nothing is ever
// given up. Ready and the metrics say so.
//
// With Options.Commands it subscribes, too, to the commands for this RAE, and
// acknowledges one when it has been dealt with.
//
// autopaho's own queue is not used: it forgets a message before its PUBACK.
package uplink
