#!/usr/bin/env bash
# Runs the tests of both modules; arguments are packages of the root module, and
# then the other module is left out.
#
#   RACE=0              without the race detector (the default where gcc is absent)
#   ROLLCALL_TEST_NO_SKIP=1
#                       a test that is skipped because something is absent fails
#                       the run: what CI sets, so that green means that all ran
set -euo pipefail
cd "$(dirname "$0")/.."

gotestsum=${GOTESTSUM:-gotestsum}
results=$(mktemp -d)
stack=
trap '[ -z "$stack" ] || kill -9 "$stack" 2>/dev/null || true; rm -rf "$results"' EXIT

race=()
if [ "${RACE:-1}" = 1 ] && command -v "$(go env CC)" >/dev/null 2>&1; then
    race=(-race)
    export CGO_ENABLED=1
fi

failed=0
# run NAME DIRECTORY ARGUMENTS-OF-GO-TEST...
run() {
    local name=$1 directory=$2
    shift 2
    printf '== tests: %s\n' "$name"
    (cd "$directory" && "$gotestsum" --format pkgname --format-hide-empty-pkg --jsonfile "$results/$name.json" -- "$@") || failed=1
}

# The tests of workflows against a real server get that of the development
# stack, unless ROLLCALL_TEST_TEMPORAL_ADDRESS names another one.
start_temporal() {
    # Five ports, below those of internal/porttest, which are below the kernel's.
    local port=$((20000 + $$ % 400 * 5))
    printf '== a Temporal Server for the tests (the first build takes minutes)\n'
    (cd cmd/devstack && go build -o "$results/devstack" .)
    "$results/devstack" up --bare --plain --data-dir "$results/stack" --temporal-port $port --ui-port $((port + 1)) \
        --kafka-port $((port + 2)) --mqtt-port $((port + 3)) --admin-port $((port + 4)) >"$results/stack.log" 2>&1 &
    stack=$!
    disown
    # The admin listener comes last.
    for _ in $(seq 3000); do
        if (: <>"/dev/tcp/127.0.0.1/$((port + 4))") 2>/dev/null; then
            export ROLLCALL_TEST_TEMPORAL_ADDRESS=127.0.0.1:$port
            return
        fi
        kill -0 "$stack" 2>/dev/null || break
        sleep 0.1
    done
    printf 'The stack did not start; the tests that need its server are skipped:\n'
    cat "$results/stack.log"
}

if [ $# -gt 0 ]; then
    run root . "${race[@]}" "$@"
else
    [ -n "${ROLLCALL_TEST_TEMPORAL_ADDRESS:-}" ] || start_temporal
    run root . "${race[@]}" -timeout 20m ./...
    # Without -race: it would compile the Temporal Server a second time, for minutes.
    run devstack cmd/devstack -timeout 20m ./...
fi

if [ "${ROLLCALL_TEST_NO_SKIP:-}" = 1 ] && ! go run scripts/skips.go "$results"/*.json; then
    printf 'ROLLCALL_TEST_NO_SKIP is set: a skipped test fails the run.\n'
    failed=1
fi
exit "$failed"
