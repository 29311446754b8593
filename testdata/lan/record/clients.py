"""The programs the devices run, each with the configuration it gets.

Every function starts a real implementation on a device and notes in the
device's journal what it was configured to say: truth.json is made of that.
"""

import glob
import json
import os
import re
import signal
import xml.etree.ElementTree as ET

from lan import run, wait_for


# See uname.c: these programs tell the kernel release, and should tell this one.
KERNEL = "5.10.0-rollcall"


def preloaded(device):
    """The environment of a program that tells the kernel release."""
    return {"LD_PRELOAD": os.path.join(device.tools, "uname.so")}


def hexed(data):
    """Bytes as a client identifier is usually written: 01:4c:b1:…"""
    return ":".join(f"{b:02x}" for b in data)


def mac_client_id(mac):
    """The default client identifier, RFC 2132 9.14: hardware type 1 and the MAC."""
    return "01:" + mac


class DHCP:
    """What the DHCP clients share: the journal, and the wait for an address."""

    name = ""

    def __init__(self, device, host_name=None, vendor_class=None, client_id=None):
        self.device, self.host_name, self.process = device, host_name, None
        device.uses(self.name)
        device.dhcp = {"vendor_class": vendor_class, "client_id": client_id}

    def _started(self, process):
        self.process = process
        if self.host_name:
            self.device.called(self.host_name, "dhcp")

    def _unleased(self):
        wait_for(f"{self.device.name} to give up its address", lambda: self.device.address() is None)


class Udhcpc(DHCP):
    """busybox udhcpc. host_name goes out as option 12, fqdn as option 81 instead."""

    name = "udhcpc"

    def __init__(self, device, host_name=None, vendor_class="udhcp 1.35.0", fqdn=None):
        super().__init__(device, host_name or fqdn, vendor_class, mac_client_id(device.mac))
        self.options = ["-V", vendor_class]
        self.options += ["-F", fqdn] if fqdn else ["-x", f"hostname:{host_name}"] if host_name else []

    def start(self, request=None):
        wanted = ["-r", request] if request else []
        self._started(self.device.spawn(
            "udhcpc", "-f", "-i", "eth0", "-s", os.path.join(self.device.tools, "lease.sh"),
            "-t", "5", "-T", "1", "-A", "1", *self.options, *wanted))

    def release(self):
        self.process.send(signal.SIGUSR2)
        self._unleased()
        self.process.stop()


class Dhclient(DHCP):
    """ISC dhclient. It keeps its lease file over a restart, and asks for that address again."""

    name = "dhclient"

    def __init__(self, device, host_name=None, vendor_class=None, client_id=None):
        super().__init__(device, host_name, vendor_class, hexed(client_id) if client_id else None)
        self.vendor_class, self.client_id = vendor_class, client_id

    def _command(self, *more):
        conf = "timeout 10;\nrequest subnet-mask, broadcast-address, routers, domain-name-servers, ntp-servers;\n"
        for option, value in (("host-name", self.host_name), ("vendor-class-identifier", self.vendor_class)):
            conf += f'send {option} "{value}";\n' if value else ""
        conf += f"send dhcp-client-identifier {hexed(self.client_id)};\n" if self.client_id else ""
        return ("dhclient", "-4", "-d", "-cf", self.device.write("dhclient.conf", conf),
                "-sf", os.path.join(self.device.tools, "lease.sh"), "-lf", "/var/lib/dhcp/leases", *more, "eth0")

    def start(self):
        self._started(self.device.spawn(*self._command()))

    def restart(self, host_name=None):
        """As after a reboot: no release, a new process, the old lease file (INIT-REBOOT)."""
        self.process.stop(signal.SIGKILL)
        self.host_name = host_name or self.host_name
        self.start()

    def release(self):
        self.process.stop(signal.SIGKILL)
        self.device.call(*self._command("-r"))
        self._unleased()


class Dhcpcd(DHCP):
    """dhcpcd. It probes an address with ARP before it takes it, and declines one that is in use."""

    name = "dhcpcd"

    def __init__(self, device, host_name=None, vendor_class=None, duid=False, rapid=False, probe=True):
        mac = device.mac
        # duid ll: DUID-LL (RFC 8415 11.4) behind the interface's last four octets (RFC 4361).
        client_id = f"ff:{mac[6:]}:00:03:00:01:{mac}" if duid else mac_client_id(mac)
        super().__init__(device, host_name, vendor_class, client_id)
        self.lines = ["nodev", 'script ""', "noipv4ll", "option routers, domain_name_servers",
                      "duid ll" if duid else "clientid",
                      f"vendorclassid {vendor_class}" if vendor_class else "vendorclassid",
                      *(["option rapid_commit"] if rapid else []), *([] if probe else ["noarp"])]

    def _configure(self):
        name = f"hostname {self.host_name}" if self.host_name else "nohook hostname"
        return self.device.write("dhcpcd.conf", "\n".join([name, *self.lines, ""]))

    def start(self):
        self._started(self.device.spawn("dhcpcd", "-B", "-f", self._configure(), "eth0", env=preloaded(self.device)))

    def rename(self, host_name):
        """Re-read the configuration and rebind, so that the server hears the new name."""
        self.host_name = host_name
        self.device.call("hostname", host_name)
        self.device.call("dhcpcd", "-n", "-f", self._configure(), "eth0")
        self.device.called(host_name, "dhcp")

    def release(self):
        self.device.call("dhcpcd", "-k", "-f", self._configure(), "eth0")
        self._unleased()


class Networkd(DHCP):
    """systemd-networkd, with a client identifier made of IAID and DUID (RFC 4361)."""

    name = "systemd-networkd"

    def __init__(self, device, host_name, vendor_class, iaid, duid):
        # DUIDType=vendor is type 2: DUID-EN.
        client_id = hexed(b"\xff" + iaid.to_bytes(4, "big") + b"\x00\x02" + duid)
        super().__init__(device, host_name, vendor_class, client_id)
        device.write("network/eth0.network", f"""[Match]
Name=eth0
[Network]
DHCP=ipv4
[DHCPv4]
Hostname={host_name}
VendorClassIdentifier={vendor_class}
ClientIdentifier=duid
IAID={iaid}
DUIDType=vendor
DUIDRawData={hexed(duid)}
UseDNS=no
""")

    def start(self):
        self.device.call("cp", "-r", os.path.join(self.device.dir, "network"), "/etc/systemd")
        self._started(self.device.spawn("/lib/systemd/systemd-networkd"))


# mDNS.

class Avahi:
    """avahi-daemon, with a D-Bus of its own where something needs to talk to it."""

    def __init__(self, device, host_name, services=(), dbus=False):
        self.device, self.host_name, self.services, self.dbus = device, host_name, services, dbus
        device.uses("avahi-daemon")

    def start(self):
        device = self.device
        if self.dbus and not device.call("sh", "-c", "test -S /run/dbus/system_bus_socket && echo yes", check=False):
            device.spawn("dbus-daemon", "--system", "--nofork", "--nopidfile")
            device.call("sh", "-c", "until test -S /run/dbus/system_bus_socket; do sleep 0.05; done")
        for number, service in enumerate(self.services):
            device.write(f"services/{number}.service", service_file(service))
        device.call("sh", "-c", f"rm -rf /etc/avahi/services; cp -r {device.dir}/services /etc/avahi/ 2>/dev/null",
                    check=False)
        conf = device.write("avahi.conf", f"""[server]
host-name={self.host_name}
use-ipv6=yes
allow-interfaces=eth0
enable-dbus={"yes" if self.dbus else "no"}
[publish]
publish-workstation=no
publish-hinfo=no
[rlimits]
""")
        said = len(self._names())
        self.process = device.spawn("avahi-daemon", "-f", conf, "--no-drop-root", "--no-chroot", "--no-rlimits")
        self._established(said)

    def _names(self):
        return re.findall(r"Host name is (\S+)\.local", open(self.device.log("avahi-daemon")).read()) \
            if os.path.exists(self.device.log("avahi-daemon")) else []

    def _established(self, said):
        """Note the name that avahi settled on: after a conflict it is not the one it was given."""
        names = wait_for(f"avahi on {self.device.name}", lambda: len(self._names()) > said and self._names())
        self.device.called(names[-1], "mdns")
        self.device.mdns = [dict(s, instance=s["instance"].replace("%h", names[-1])) for s in self.services]
        self.device.note("announce")

    def rename(self, host_name):
        said = len(self._names())
        self.device.call("avahi-set-host-name", host_name)
        self._established(said)

    def stop(self):
        self.process.stop()


def service_file(service):
    """One service as avahi's static service files have it."""
    group = ET.Element("service-group")
    ET.SubElement(group, "name", {"replace-wildcards": "yes"}).text = service["instance"]
    inner = ET.SubElement(group, "service")
    ET.SubElement(inner, "type").text = service["service"]
    ET.SubElement(inner, "port").text = str(service["port"])
    for key, value in service["txt"].items():
        ET.SubElement(inner, "txt-record").text = f"{key}={value}"
    return ET.tostring(group, encoding="unicode", xml_declaration=True)


def shairport(device, name):
    """Shairport Sync, an AirPlay speaker; it announces itself through the device's avahi."""
    device.uses("shairport-sync")
    conf = device.write("shairport.conf", f"""general = {{
  name = "{name}"; output_backend = "dummy"; mdns_backend = "avahi"; port = 5000;
}};
""")
    process = device.spawn("shairport-sync", "-c", conf)
    found = wait_for("shairport-sync to announce itself", lambda: [
        line for line in device.call("avahi-browse", "-rptk", "_raop._tcp").splitlines()
        if line.startswith("=;eth0;IPv4;")])
    fields = found[0].split(";")
    instance = re.sub(r"\\(\d{3})", lambda m: chr(int(m.group(1))), fields[3])
    txt = dict(pair.split("=", 1) for pair in re.findall(r'"([^"]*)"', fields[9]) if "=" in pair)
    device.mdns.append({"instance": instance, "service": "_raop._tcp", "port": int(fields[8]), "txt": txt})
    device.note("announce")
    return process


def mdnsd(device, service):
    """Troglobit's mdnsd, which also calls the host by the name of its service."""
    device.uses("mdnsd")
    lines = [f"name {service['instance']}", f"type {service['service']}", f"port {service['port']}"]
    lines += [f"txt {key}={value}" for key, value in service["txt"].items()]
    device.write("mdns.d/service.service", "\n".join([*lines, ""]))
    process = device.spawn("mdnsd", "-n", "-i", "eth0", os.path.join(device.dir, "mdns.d"))
    device.called(service["instance"], "mdns")
    device.mdns = [service]
    device.note("announce")
    return process


def zeroconf(device, host_name, service):
    """python-zeroconf, as many home automation gadgets use it."""
    device.uses("python-zeroconf")
    conf = device.write("zeroconf.json", json.dumps({"host": host_name, "address": device.address(), **service}))
    process = device.spawn("/usr/bin/python3", "-B", os.path.join(device.tools, "announce.py"), conf)
    device.called(host_name, "mdns")
    device.mdns = [service]
    device.note("announce")
    return process


# SSDP and UPnP.

def described(device, url):
    """A UPnP device's own description, asked of it from inside its own namespace."""
    head = wait_for(f"the description at {url}", lambda: device.call("curl", "-sfi", "-m", "2", url, check=False))
    header, _, body = head.replace("\r\n", "\n").partition("\n\n")
    ns = {"d": "urn:schemas-upnp-org:device-1-0"}
    root = ET.fromstring(body).find("d:device", ns)
    text = lambda path: root.findtext(path, default="", namespaces=ns)
    server = re.search(r"(?im)^server: *(.*)$", header)
    types = [e.text for tag in ("deviceType", "serviceType") for e in root.iter(f"{{{ns['d']}}}{tag}")]
    return {"udn": text("d:UDN"), "types": types, "server": server.group(1) if server else None,
            "friendly_name": text("d:friendlyName"), "manufacturer": text("d:manufacturer"),
            "model": text("d:modelName"), "location": url}


def announced(device, client, port, path):
    device.uses(client)
    device.ssdp = [described(device, f"http://{device.address()}:{port}{path}")]
    device.note("announce")


def gssdp_discover(device, *options):
    """One search by libgssdp's command line tool; returns what it printed."""
    device.uses("gssdp-discover")
    return device.call("env", *(f"{k}={v}" for k, v in preloaded(device).items()),
                       "gssdp-discover", "-i", "eth0", *options)


def minidlna(device, name, uuid, model):
    for folder in ("media", "db"):
        os.mkdir(os.path.join(device.dir, folder))
    conf = device.write("minidlna.conf", f"""network_interface=eth0
port=8200
friendly_name={name}
uuid={uuid}
media_dir={device.dir}/media
db_dir={device.dir}/db
log_dir={device.dir}/db
inotify=no
notify_interval=20
model_name={model}
""")
    process = device.spawn("minidlnad", "-S", "-f", conf, "-P", "/run/minidlna.pid")
    announced(device, "minidlna", 8200, "/rootDesc.xml")
    return process


def gmediarender(device, name, uuid):
    process = device.spawn("gmediarender", "-I", "eth0", "-p", "49494", "-u", uuid, "-f", name,
                           "--gstout-audiosink=fakesink", env={"XDG_CACHE_HOME": device.dir, **preloaded(device)})
    announced(device, "gmediarender", 49494, "/description.xml")
    return process


def network_light(device, name):
    """GUPnP's example light. It is a GTK program, so it gets an X server of its own."""
    env = {"DISPLAY": ":77", "HOME": device.dir, "XDG_RUNTIME_DIR": device.dir, "TMPDIR": device.dir,
           "GSETTINGS_BACKEND": "memory", "NO_AT_BRIDGE": "1", "GIO_USE_VFS": "local", **preloaded(device)}
    device.spawn("Xvfb", ":77", "-screen", "0", "64x64x8", "-nolisten", "tcp")
    device.call("sh", "-c", "until test -S /tmp/.X11-unix/X77; do sleep 0.05; done")
    process = device.spawn("gupnp-network-light", "-p", "49160", "-i", "eth0", "-n", name, "--no-v6", env=env)
    # It invents a UDN, and names its description after it.
    prefix = "gupnp-network-light-"
    files = wait_for("the light's description", lambda: glob.glob(os.path.join(device.dir, prefix + "*.xml")))
    announced(device, "gupnp", 49160, "/" + os.path.basename(files[0]).removeprefix(prefix))
    # Its web server does not name itself, its SSDP side does.
    version = run("dpkg-query", "-W", "-f", "${Version}", "libgupnp-1.6-0").split("-")[0]
    device.ssdp[0]["server"] = f"Linux/{KERNEL} UPnP/1.0 GUPnP/{version}"
    return process


def ssdp_responder(device, client, profile):
    """Our own DIAL or ECP responder; see ssdp.py for what a profile is."""
    device.uses(client)
    conf = device.write("ssdp.json", json.dumps({**profile, "address": device.address()}))
    process = device.spawn("/usr/bin/python3", "-B", os.path.join(device.tools, "ssdp.py"), conf)
    base = f"http://{device.address()}:{profile['port']}"
    wait_for(f"{client} to serve {base}", lambda: device.call("curl", "-sf", "-m", "2", base + profile["path"], check=False))
    device.ssdp = [{"udn": profile["udn"], "types": [s["st"] for s in profile["services"]],
                    "server": profile["server"], "friendly_name": profile["friendly_name"],
                    "manufacturer": profile["manufacturer"], "model": profile["model"],
                    "location": base + profile["path"]}]
    device.note("announce")
    return process
