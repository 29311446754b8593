// Package bridge carries what the RAEs publish from MQTT into Kafka.
//
// The promise is in the acknowledgement: a PUBACK goes out only after Kafka has
// acknowledged the record with acks=all. One Forwarder does the work; it has two
// fronts, the Subscriber here, for any MQTT 5 broker, and the publish hook of an
// in-process broker.
//
// Delivery is at least once and in order by topic, except that a redelivery
// repeats a run of what was sent before (1 2 3 2 3): consumers order and dedupe
// by seq.
package bridge
