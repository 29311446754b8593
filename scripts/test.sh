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
trap 'rm -rf "$results"' EXIT

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

if [ $# -gt 0 ]; then
    run root . "${race[@]}" "$@"
else
    run root . "${race[@]}" ./...
    # Without -race: it would compile the Temporal Server a second time, for minutes.
    run devstack cmd/devstack -timeout 15m ./...
fi

if [ "${ROLLCALL_TEST_NO_SKIP:-}" = 1 ] && ! go run scripts/skips.go "$results"/*.json; then
    printf 'ROLLCALL_TEST_NO_SKIP is set: a skipped test fails the run.\n'
    failed=1
fi
exit "$failed"
