#!/usr/bin/env bash
# Installs what the tests need beside Go: on Debian and its like, as root, with
# apt-get. Elsewhere it says what is missing and which tests will be skipped.
set -euo pipefail

# found COMMAND: in PATH, or where Debian keeps servers.
found() {
    command -v "$1" >/dev/null 2>&1 || compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null ||
        [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]
}

missing=()
# need COMMAND PACKAGE WHAT-IS-SKIPPED-WITHOUT-IT
need() {
    found "$1" && return
    missing+=("$2")
    printf '  %-12s (package %s): %s\n' "$1" "$2" "$3"
}

printf '== what the tests need beside Go\n'
need git git 'the test of make release fails'
need gcc gcc 'the race detector is off'
need postgres postgresql 'PostgreSQL is fetched instead, or store tests are skipped'
need pgbouncer pgbouncer 'the store is not tested through a connection pooler'
need mosquitto mosquitto 'bridge and uplink tests against a real broker are skipped'
need dnsmasq dnsmasq-base 'live discovery tests are skipped'
need ip iproute2 'live discovery tests are skipped'
need unshare util-linux 'live discovery tests are skipped'
need udhcpc udhcpc 'live discovery tests are skipped'
need ping iputils-ping 'live discovery tests are skipped'
need java default-jre-headless 'tests against Apache Kafka are skipped'
need mvn maven 'tests against Apache Kafka are skipped'
need kcat kcat 'tests with another Kafka client are skipped'
need promtool prometheus 'the alert rules are not tested'

if [ ${#missing[@]} -eq 0 ]; then
    printf '  all there\n'
elif [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    printf '  installing %s\n' "${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # RUNLEVEL=1: install the servers, do not start them.
    { apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" libc6-dev; } >/dev/null
else
    printf '  not root, or no apt-get: install them yourself (Debian: sudo apt-get install %s)\n' "${missing[*]}"
fi

# Apache Kafka comes from Maven Central.
if found java && found mvn && ! scripts/kafka.sh; then
    printf '  Apache Kafka could not be fetched: tests against it are skipped. scripts/kafka.sh tries again\n'
fi
