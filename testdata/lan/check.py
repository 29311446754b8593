#!/usr/bin/env python3
"""Compares a capture with its truth, by tshark: a decoder this project did not write.

usage: check.py [DIR]      DIR holds lan.pcap and truth.json; default: beside this file

Says what of the truth is not in the capture, and what is in the capture that
belongs to no device. Exits 1 if there is any. Needs: apt-get install tshark
"""

import collections
import json
import os
import subprocess
import sys


def fields(pcap, display_filter, *names):
    """One row of strings per frame; several values in one field are separated by a NUL."""
    command = ["tshark", "-n", "-r", pcap, "-Y", display_filter, "-T", "fields", "-E", "aggregator=\x01"]
    for name in names:
        command += ["-e", name]
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    for line in out.decode("utf-8", "replace").split("\n"):
        if line:
            yield [cell.split("\x01") if cell else [] for cell in line.split("\t")]


def gather(pcap):
    """What each source MAC said, by kind of fact."""
    said = collections.defaultdict(lambda: collections.defaultdict(set))
    for (mac,), ip, arp in fields(pcap, "eth", "eth.src", "ip.src", "arp.src.proto_ipv4"):
        said[mac]["ipv4"].update(arp, ip[:1])
    for (mac,), *rest in fields(pcap, "dhcp.type == 1", "eth.src", "dhcp.option.hostname", "dhcp.fqdn.name",
                                "dhcp.option.vendor_class_id", "dhcp.option.value"):
        for kind, values in zip(("dhcp", "dhcp", "vendor_class", "option"), rest):
            said[mac][kind].update(values)
    for (mac,), *rest in fields(pcap, "mdns && dns.flags.response == 1", "eth.src", "dns.resp.name", "dns.txt",
                                "dns.ptr.domain_name"):
        for kind, values in zip(("mdns", "txt", "instance"), rest):
            said[mac][kind].update(values)
    for (mac,), (payload,) in fields(pcap, "ip && udp.payload && !mdns && !dhcp", "eth.src", "udp.payload"):
        said[mac]["udp"].add(bytes.fromhex(payload).decode("latin-1"))
    return said


def absent(device, said):
    """What the truth says of a device and the capture does not show."""
    def need(kind, value, *where):
        if not any(value in said[place] for place in where):
            yield f"{device['mac']} ({device['kind']}): {kind} {value!r}"

    for address in device["addresses"]:
        yield from need("address", address["ipv4"], "ipv4")
    for name in device["host_names"]:
        if name["via"] == "dhcp":
            yield from need("DHCP host name", name["name"], "dhcp")
        else:
            yield from need("mDNS host name", name["name"] + ".local", "mdns")
    dhcp = device["dhcp"] or {}
    if dhcp.get("vendor_class"):
        yield from need("vendor class", dhcp["vendor_class"], "vendor_class")
    if dhcp.get("client_id"):
        yield from need("client identifier", dhcp["client_id"].replace(":", ""), "option")
    for service in device["mdns"]:
        yield from need("instance", f"{service['instance']}.{service['service']}.local", "instance", "mdns")
        for key, value in service["txt"].items():
            yield from need("TXT", f"{key}={value}", "txt")
    # By content, not by port: some stacks answer a search from a port of their own.
    heard = "".join(message for message in said["udp"] if "HTTP/1.1" in message)
    for root in device["ssdp"]:
        for value in (root["udn"], root["server"], root["location"], *root["types"]):
            if value not in heard:
                yield f"{device['mac']} ({device['kind']}): SSDP {value!r}"


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "truth.json")) as file:
        truth = json.load(file)
    said = gather(os.path.join(folder, "lan.pcap"))
    wrong = [f"not in the capture: {what}" for device in truth["devices"] for what in absent(device, said[device["mac"]])]
    known = {truth["router"]["mac"], *(device["mac"] for device in truth["devices"])}
    wrong += [f"in the capture, not in the truth: {mac}" for mac in said if mac not in known]
    for device in truth["devices"]:
        own = {"0.0.0.0", *(a["ipv4"] for a in device["addresses"])}
        wrong += [f"{device['mac']} ({device['kind']}) also sent from {ip}" for ip in said[device["mac"]]["ipv4"] - own]
    print("\n".join(wrong) if wrong else f"{len(truth['devices'])} devices: all of the truth is in the capture")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
