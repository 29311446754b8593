#!/usr/bin/env bash
# Looks both modules up in the Go vulnerability database. What it finds in code
# that is called is an error. Without a way to the database it says so and skips.
#
#   GOVULNCHECK   the tool (make lint builds it)
#   GOVULNDB      another database than https://vuln.go.dev; file:// works too
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for module in . cmd/devstack; do
    code=0
    (cd "$module" && "${GOVULNCHECK:-govulncheck}" -db "${GOVULNDB:-https://vuln.go.dev}" ./...) >"$log" 2>&1 || code=$?
    # 3: it found something. Any other code: it could not look.
    if [ "$code" -ne 0 ] && [ "$code" -ne 3 ] &&
        grep -Eq 'fetching vulnerabilities: .*(dial tcp|no such host|timeout|proxyconnect)' "$log"; then
        printf 'SKIPPED govulncheck: no way to %s. Run scripts/vulncheck.sh where there is one.\n' "${GOVULNDB:-https://vuln.go.dev}"
        exit 0
    fi
    if [ "$code" -ne 0 ]; then
        cat "$log"
        exit "$code"
    fi
    printf '%s: no known vulnerabilities are called\n' "$module"
done
