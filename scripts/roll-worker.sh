#!/usr/bin/env bash
# Rolls the session workers on this machine to a new version, under load: starts
# a worker of the new version, moves the sessions, prints the receipt, and stops
# the old worker only when nothing needs it any more. An example to start from.
#
#   scripts/roll-worker.sh DEPLOYMENT NEW-BUILD-ID [PID-OF-THE-OLD-WORKER] [-- flags of deployment roll]
#
#   ROLLCALL      the binary of the new version (default bin/rollcall)
#   RECEIPT       file for the receipt (default: stdout alone)
#   WORKER_LOG    file for the new worker's log (default worker-BUILD.log)
#
# Temporal, Kafka and database are found as by every command: TEMPORAL_ADDRESS,
# ROLLCALL_KAFKA_BROKERS, ROLLCALL_DATABASE_URL, …
set -euo pipefail

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
deployment=$1 build=$2
shift 2
old=
if [ $# -gt 0 ] && [ "$1" != -- ]; then
    old=$1
    shift
fi
[ "${1:-}" != -- ] || shift
rollcall=${ROLLCALL:-bin/rollcall}
log=${WORKER_LOG:-worker-$build.log}

if [ -n "$old" ] && ! kill -0 "$old"; then
    printf 'no process %s: the old worker must run until its sessions have moved\n' "$old" >&2
    exit 2
fi

"$rollcall" worker --deployment "$deployment" --build-id "$build" --admin-addr 127.0.0.1:0 >>"$log" 2>&1 &
new=$!
printf 'worker %s:%s is process %s, its log is %s\n' "$deployment" "$build" "$new" "$log" >&2

if "$rollcall" deployment roll --deployment "$deployment" --build-id "$build" "$@" | tee "${RECEIPT:-/dev/null}"; then
    if [ -n "$old" ]; then
        kill "$old"
        printf 'worker %s is told to stop: its version is drained\n' "$old" >&2
    fi
else
    printf 'the roll is not complete: both workers go on; the receipt above says why\n' >&2
    exit 1
fi
