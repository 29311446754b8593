// Package bridge carries what the RAEs publish from MQTT into Kafka, and what the
// cloud commands from Kafka to MQTT.
//
// The promise is in the acknowledgement: a PUBACK goes out only after Kafka has
// acknowledged the record with acks=all. One Forwarder does the work; it has two
// fronts, the Subscriber here, for any MQTT 5 broker, and the publish hook of an
// in-process broker.
//
// Delivery is at least once and in order by topic, except that a redelivery
// repeats a run of what was sent before (1 2 3 2 3), and that where Kafka refuses
// a message for another reason than an outage or its size (an authorization that
// was taken away), what was on its way behind it may come first (2 3 1 2 3):
// consumers order and dedupe by seq.
//
// The way down is the mirror of it: a Downlink commits a command's Kafka offset
// only after the MQTT broker's PUBACK, or when the command has expired.
package bridge
