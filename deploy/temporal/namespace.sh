#!/bin/sh
# Creates the namespace and the search attributes of the sessions' workflows.
set -eu

for attempt in $(seq 30); do
    temporal operator cluster health >/dev/null 2>&1 && break
    echo "waiting for the Temporal server ($attempt of 30)"
    sleep 2
done

temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention 7d

# The namespace reaches the frontend's cache a few seconds after it is made.
attempt=0
until temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE" >/tmp/attributes 2>/dev/null; do
    attempt=$((attempt + 1))
    test "$attempt" -le 30
    sleep 1
done

for name in RaeSerial DeviceModel Esn ConnectionStatus TestState SyncState; do
    grep -qw "$name" /tmp/attributes ||
        temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$name" --type Keyword
done
