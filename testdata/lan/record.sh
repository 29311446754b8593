#!/usr/bin/env bash
# Records the demonstration LAN: see README.md beside this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'USAGE'
Usage: record.sh [--out DIR] [--keep-logs DIR] [--check-needs] [--help]

Builds a LAN out of network namespaces (a router with dnsmasq, a "wan" behind
it, and devices that run real DHCP, mDNS and UPnP software), lets the devices
join, change and leave for about 90 seconds, and records the router's LAN bridge.

Writes, only when the whole recording went as planned:
  DIR/lan.pcap     what the router saw
  DIR/truth.json   what the devices did, told by the devices, not by the capture

Options:
  --out DIR        where to write (default: the directory of this script)
  --keep-logs DIR  copy the log of every program into DIR, also after a failure
  --check-needs    only check that everything needed is installed
  --help           this text

Needs root (or CAP_SYS_ADMIN and CAP_NET_ADMIN) on Debian 12. Everything runs in
namespaces of its own, without a route to the outside; they and every process
in them end with this script, however it ends.
USAGE
}

# What is run, and the Debian package that has it.
needs=(
  "ip:iproute2" "ethtool:ethtool" "ping:iputils-ping" "arping:iputils-arping"
  "tcpdump:tcpdump" "dnsmasq:dnsmasq-base" "curl:curl" "/usr/bin/python3:python3"
  "udhcpc:udhcpc" "dhclient:isc-dhcp-client" "dhcpcd:dhcpcd-base"
  "/lib/systemd/systemd-networkd:systemd"
  "dbus-daemon:dbus" "avahi-daemon:avahi-daemon" "avahi-browse:avahi-utils"
  "shairport-sync:shairport-sync" "mdnsd:mdnsd"
  "minidlnad:minidlna" "gmediarender:gmediarender"
  "gupnp-network-light:gupnp-tools" "Xvfb:xvfb" "gssdp-discover:gssdp-tools"
  "cc:gcc" "nsenter:util-linux"
)

check_needs() {
  local need missing=()
  for need in "${needs[@]}"; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
  done
  /usr/bin/python3 -c 'import zeroconf' 2>/dev/null || missing+=(python3-zeroconf)
  # gmediarender's player; a plug-in, so no program tells.
  compgen -G '/usr/lib/*/gstreamer-1.0/libgstplayback.so' >/dev/null || missing+=(gstreamer1.0-plugins-base)
  [[ -e /usr/include/string.h ]] || missing+=(libc6-dev)
  if ((${#missing[@]})); then
    printf 'record.sh: programs are missing. Install them with:\n  apt-get install --no-install-recommends %s\n' \
      "$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')" >&2
    return 1
  fi
}

out=$here logs= only_check=
while (($#)); do
  case $1 in
    --out) out=${2:?--out needs a directory}; shift 2 ;;
    --keep-logs) logs=${2:?--keep-logs needs a directory}; shift 2 ;;
    --check-needs) only_check=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *) printf 'record.sh: unknown argument %s\n\n' "$1" >&2; usage >&2; exit 2 ;;
  esac
done

PATH=$PATH:/usr/sbin:/sbin
check_needs
[[ $only_check ]] && exit 0
if ((EUID != 0)); then
  echo 'record.sh: must be root, to make network namespaces' >&2
  exit 1
fi
mkdir -p "$out" ${logs:+"$logs"}

# The recording is process 1 of its own PID namespace: when it ends, or when
# unshare does, the kernel kills every process in it, and with the last process
# the network and mount namespaces are gone. setpriv ties unshare's life to this
# script's, so that this holds after a kill -9 as well.
work=$(mktemp -d -p /var/tmp rollcall-lan.XXXXXX)
recorder=
cleanup() {
  if [[ $recorder ]]; then
    kill -KILL "$recorder" 2>/dev/null || true
    wait "$recorder" 2>/dev/null || true
  fi
  rmdir "$work" 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

setpriv --pdeathsig KILL \
  unshare --mount --net --uts --ipc --pid --fork --kill-child=KILL --mount-proc \
  /usr/bin/python3 -B "$here/record/main.py" --work "$work" --out "$out" ${logs:+--keep-logs "$logs"} &
recorder=$!
wait "$recorder"
