#!/bin/sh
# Creates the platform's topics where they are absent. It changes none: more
# partitions would move keys, and with them the order of a session.
set -eu

create() {
    topic=$1 partitions=$2 retention_days=$3
    /opt/kafka/bin/kafka-topics.sh --bootstrap-server "${BOOTSTRAP:?}" \
        --create --if-not-exists --topic "$topic" \
        --partitions "$partitions" --replication-factor "${REPLICATION:-1}" \
        --config "retention.ms=$((retention_days * 86400000))" \
        --config min.insync.replicas="${MIN_ISR:-1}" \
        --config max.message.bytes=1048588
}

create rollcall.device-events 24 7
create rollcall.device-events.dlq 6 30
create rollcall.device-commands 24 1
create rollcall.device-replies 24 1
