"""Records the LAN: builds it, lets the scenario run, writes the capture and the truth.

Started by record.sh, as the first process of namespaces of its own.
"""

import argparse
import datetime
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback

import lan
import scenario

PCAP_LIMIT = 1_500_000  # bytes


def arguments():
    parser = argparse.ArgumentParser(description="Use record.sh.")
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--keep-logs")
    return parser.parse_args()


def mount(work):
    """Private tmpfs for what the recording writes: it is gone with the namespaces."""
    lan.run("mount", "--make-rprivate", "/")
    for path in (work, "/run"):
        lan.run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", path)
    shutil.copytree(os.path.dirname(os.path.abspath(__file__)), os.path.join(work, "tools"))
    tools = os.path.join(work, "tools")
    lan.run("cc", "-shared", "-fPIC", "-o", os.path.join(tools, "uname.so"), os.path.join(tools, "uname.c"))


def clock(device, start):
    """The device's at(): waits for a second of the recording, and notes what happens then."""
    def at(second, what=None):
        delay = start + second - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        elif delay < -1:
            print(f"{device.name}: {-delay:.1f} s late for second {second}", file=sys.stderr)
        if what:
            device.note(what)
            print(f"{time.monotonic() - start:6.1f} s  {device.name}: {what}", flush=True)

    return at


def play(devices, router):
    """Run every device's life to its end; raise the first failure."""
    failures = []
    start = time.monotonic()

    def live(device, life):
        try:
            life(device, clock(device, start), router)
        except Exception:
            failures.append(f"{device.name}:\n{traceback.format_exc()}")

    threads = [threading.Thread(target=live, args=pair, daemon=True) for pair in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise lan.Failed("\n".join(failures))
    time.sleep(max(0, start + scenario.LENGTH - time.monotonic()))


def stamp(seconds):
    """RFC 3339, UTC, milliseconds."""
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def truth(device):
    """A device's entry in truth.json."""
    names = [h["name"] for h in device.host_names if h["via"] == "dhcp"] or [h["name"] for h in device.host_names]
    return {
        "mac": device.mac,
        "kind": device.kind,
        "clients": device.clients,
        "addresses": [{"ipv4": a["ipv4"], "from": stamp(a["from"]), "to": stamp(a["to"])} for a in device.addresses],
        "host_names": [{**h, "from": stamp(h["from"])} for h in device.host_names],
        "dhcp": device.dhcp,
        "ssdp": device.ssdp,
        "mdns": device.mdns,
        "events": [{**e, "at": stamp(e["at"])} for e in device.events],
        "vanished": device.vanished,
        "final": {"ipv4": device.address(), "host_name": names[-1] if names else None,
                  "status": "offline" if device.offline else "online"},
    }


def versions():
    """The Debian packages the devices are made of."""
    packages = ["avahi-daemon", "dhcpcd-base", "dnsmasq-base", "gmediarender", "gssdp-tools", "gupnp-tools",
                "isc-dhcp-client", "mdnsd", "minidlna", "python3-zeroconf", "shairport-sync", "systemd", "busybox"]
    lines = lan.run("dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages, check=False)
    return dict(sorted(line.split(" ", 1) for line in lines.splitlines()))


def record(work, out):
    router = lan.Router(work)
    router.start()
    devices = []
    for life, mac, kind in scenario.DEVICES:
        device = lan.Device(work, life.__name__.replace("_", "-")[:15], mac, kind)
        device.boot(hashlib.md5(mac.encode()).hexdigest())
        devices.append((device, life))

    pcap = os.path.join(work, "lan.pcap")
    router.record(pcap)
    started = time.time()
    play(devices, router)
    router.stop_recording()
    duration = time.time() - started

    if os.path.getsize(pcap) > PCAP_LIMIT:
        raise lan.Failed(f"the capture has {os.path.getsize(pcap)} bytes, more than {PCAP_LIMIT}")
    told = {
        "recorded_at": stamp(started),
        "duration_s": round(duration, 1),
        "router": {"mac": lan.ROUTER_MAC, "ipv4": lan.ROUTER, "lan": lan.LAN},
        "packages": versions(),
        "devices": [truth(device) for device, _ in devices],
    }
    with open(os.path.join(work, "truth.json"), "w") as file:
        json.dump(told, file, indent=1)
        file.write("\n")
    for name in ("lan.pcap", "truth.json"):
        shutil.copyfile(os.path.join(work, name), os.path.join(out, name + ".new"))
    for name in ("lan.pcap", "truth.json"):
        os.replace(os.path.join(out, name + ".new"), os.path.join(out, name))
    print(f"{len(devices)} devices, {duration:.1f} s, {os.path.getsize(pcap)} bytes in {out}")


def main():
    options = arguments()
    # A shell starts what runs in the background with SIGINT ignored; programs here are stopped by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        mount(options.work)
        record(options.work, options.out)
    except lan.Failed as failure:
        print(f"record.sh: {failure}", file=sys.stderr)
        return 1
    finally:
        if options.keep_logs:
            # No sockets, and no copies of the tools.
            shutil.copytree(options.work, options.keep_logs, dirs_exist_ok=True,
                            ignore=lambda folder, names: [n for n in names if n == "tools" or not (
                                os.path.isdir(os.path.join(folder, n)) or os.path.isfile(os.path.join(folder, n)))])
    return 0


if __name__ == "__main__":
    sys.exit(main())
