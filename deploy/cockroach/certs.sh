#!/bin/sh
# Makes a certificate authority, the node's certificate and the client's, each
# in a volume of its own, so that nobody who uses one can read another's key.
# Does nothing where they exist.
set -eu
ca=/ca node=/node client=/client
cockroach=/cockroach/cockroach

if [ ! -f "$client/client.rollcall.key" ]; then
    $cockroach cert create-ca --certs-dir="$node" --ca-key="$ca/ca.key" --overwrite
    $cockroach cert create-node cockroachdb localhost 127.0.0.1 --certs-dir="$node" --ca-key="$ca/ca.key" --overwrite
    $cockroach cert create-client root --certs-dir="$node" --ca-key="$ca/ca.key" --overwrite
    cp "$node/ca.crt" "$client/ca.crt"
    $cockroach cert create-client rollcall --certs-dir="$client" --ca-key="$ca/ca.key" --overwrite
fi
chown -R "${NODE_USER:?}" "$node" /cockroach/cockroach-data
chown -R "${CLIENT_USER:?}" "$client"
