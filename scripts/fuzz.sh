#!/usr/bin/env bash
# Runs every fuzz target of both modules for the given time each.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}

for module in . cmd/devstack; do
    while IFS=: read -r file target; do
        package=./$(dirname "$file")
        printf '== %s %s\n' "$module/$package" "$target"
        (cd "$module" && go test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time")
    done < <(cd "$module" && git ls-files '*_test.go' | grep -v -e '^cmd/devstack/' |
        xargs -r grep -Ho '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')
done
