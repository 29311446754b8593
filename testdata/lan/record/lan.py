"""The LAN: a router, a wan behind it, and devices, each a network namespace.

Everything made here lives inside the namespaces that record.sh started this
program in, so nothing needs to be undone: it ends with the program.
"""

import os
import re
import signal
import subprocess
import threading
import time

LAN = "192.168.77.0/24"
ROUTER = "192.168.77.1"
ROUTER_MAC = "18:a9:4e:00:77:01"
ROUTER_V6 = "fd77:77:77::1"
WAN = "203.0.113.10"  # the whole internet; TEST-NET-3, RFC 5737
STEP = 0.05  # seconds between two looks at a condition


class Failed(Exception):
    """The recording did not go as planned; the message says what and where."""


def run(*command, check=True):
    """Run a command that ends at once, and return what it printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_for(what, condition, seconds=15):
    """Poll condition until it gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds} s in vain for {what}")
        time.sleep(STEP)


def no_offload(netns, interface):
    """Make the kernel compute checksums and segments itself, as a wire would carry them."""
    run("ip", "netns", "exec", netns, "ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off")


class Process:
    """A program that runs in the background, its output in a log file."""

    def __init__(self, command, log, env=None):
        self.command = command
        with open(log, "ab") as sink:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True, env={**os.environ, **(env or {})})

    def running(self):
        return self.child.poll() is None

    def send(self, number):
        if self.running():
            self.child.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=8):
        """Ask it to end, and wait until it has."""
        self.send(number)
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{' '.join(self.command)} did not end on signal {number}") from None

    def kill(self):
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


class Router:
    """The LAN's router: bridge, DHCP, DNS, router advertisements, and the way to the wan."""

    def __init__(self, work):
        self.work = work
        self.hosts = os.path.join(work, "dhcp-hosts")
        self.dnsmasq = self.tcpdump = None

    def start(self):
        os.mkdir("/run/netns")
        for netns in ("router", "wan"):
            run("ip", "netns", "add", netns)
            run("ip", "-n", netns, "link", "set", "lo", "up")
        run("ip", "-n", "router", "link", "add", "br-lan", "address", ROUTER_MAC,
            "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        no_offload("router", "br-lan")
        run("ip", "-n", "router", "link", "set", "br-lan", "up")
        run("ip", "-n", "router", "addr", "add", f"{ROUTER}/24", "broadcast", "+", "dev", "br-lan")
        run("ip", "-n", "router", "addr", "add", f"{ROUTER_V6}/64", "dev", "br-lan", "nodad")
        self._start_wan()
        self._start_dnsmasq()

    def _start_wan(self):
        run("ip", "-n", "router", "link", "add", "wan0", "address", "18:a9:4e:00:77:00",
            "type", "veth", "peer", "name", "eth0", "netns", "wan")
        for netns, interface, address in (("router", "wan0", "203.0.113.1/24"), ("wan", "eth0", f"{WAN}/24")):
            no_offload(netns, interface)
            run("ip", "-n", netns, "addr", "add", address, "dev", interface)
            run("ip", "-n", netns, "link", "set", interface, "up")
        run("ip", "-n", "wan", "route", "add", LAN, "via", "203.0.113.1")
        for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            run("ip", "netns", "exec", "router", "sysctl", "-qw", setting)
        page = os.path.join(self.work, "wan")
        os.mkdir(page)
        with open(os.path.join(page, "index.html"), "w") as file:
            file.write("<!doctype html><title>Up to date</title><p>Your firmware is up to date.\n")
        Process(["ip", "netns", "exec", "wan", "/usr/bin/python3", "-m", "http.server", "80", "--directory", page],
                os.path.join(self.work, "wan.log"))

    def _start_dnsmasq(self):
        open(self.hosts, "w").close()
        self.dnsmasq = Process(
            ["ip", "netns", "exec", "router", "dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground",
             "--user=root", "--pid-file", "--no-resolv", "--no-hosts", "--interface=br-lan", "--bind-interfaces",
             "--dhcp-authoritative", "--dhcp-rapid-commit", "--no-ping", "--log-dhcp", "--log-facility=-",
             "--domain=lan", "--dhcp-range=192.168.77.100,192.168.77.199,255.255.255.0,2m",
             "--dhcp-range=::,constructor:br-lan,ra-stateless,64,10m", "--enable-ra",
             f"--dhcp-hostsfile={self.hosts}", f"--dhcp-leasefile={self.work}/leases",
             f"--address=/example.net/{WAN}"],
            os.path.join(self.work, "dnsmasq.log"))

    def reserve(self, mac, ipv4):
        """Bind a MAC to an address from its next request on."""
        with open(self.hosts, "a") as file:
            file.write(f"{mac},{ipv4}\n")
        self.dnsmasq.send(signal.SIGHUP)

    def record(self, pcap):
        log = os.path.join(self.work, "tcpdump.log")
        self.tcpdump = Process(
            ["ip", "netns", "exec", "router", "tcpdump", "-i", "br-lan", "-s", "0", "-U", "-Z", "root", "-w", pcap], log)
        wait_for("tcpdump to listen", lambda: "listening on" in open(log).read())

    def stop_recording(self):
        self.tcpdump.stop(signal.SIGINT)


class Device:
    """One machine on the LAN, and the journal of what it did, kept by itself."""

    def __init__(self, work, name, mac, kind):
        self.name, self.mac, self.kind = name, mac, kind
        self.dir = os.path.join(work, name)
        self.tools = os.path.join(work, "tools")
        self.holder = self.watcher = None
        self.processes = []
        self.clients = []
        self.addresses = []  # {"ipv4", "from", "to"}, as the device's own kernel tells it
        self.host_names, self.events, self.ssdp, self.mdns = [], [], [], []
        self.dhcp = None
        self.offline = self.vanished = False

    # The machine.

    def boot(self, machine_id):
        """Make the namespaces; the device is not on the LAN yet."""
        os.mkdir(self.dir)
        for file, content in (
                ("resolv.conf", f"nameserver {ROUTER}\n"), ("machine-id", machine_id + "\n"),
                ("hosts", f"127.0.0.1 localhost {self.name}\n"), ("hostname", self.name + "\n")):
            self.write(file, content)
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        init = ["ip", "netns", "exec", self.name, "unshare", "--mount", "--uts",
                os.path.join(self.tools, "device-init.sh"), self.name, self.dir]
        self.holder = Process(init, self.log("init"))
        wait_for(f"{self.name} to boot", lambda: "ready" in open(self.log("init")).read())

    def plug(self):
        """Put the cable in."""
        run("ip", "-n", "router", "link", "add", self.name, "type", "veth",
            "peer", "name", "eth0", "address", self.mac, "netns", self.name)
        no_offload(self.name, "eth0")
        run("ip", "-n", "router", "link", "set", self.name, "master", "br-lan", "up")
        self.watcher = subprocess.Popen(
            self.inside("ip", "-o", "-4", "monitor", "address", "dev", "eth0"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
        threading.Thread(target=self._watch, args=(self.watcher,), daemon=True).start()
        run("ip", "-n", self.name, "link", "set", "eth0", "up")

    def unplug(self):
        """Pull the cable, so that nothing the device still does is seen."""
        self.watcher.kill()
        run("ip", "-n", "router", "link", "set", self.name, "down")
        for process in self.processes:
            process.kill()
        self.processes = []
        run("ip", "-n", "router", "link", "del", self.name)

    def gone(self):
        """The device said goodbye in every way it has, and is switched off."""
        now = time.time()
        self.unplug()
        self.offline = True
        for held in self.addresses:
            held["to"] = held["to"] or now

    def write(self, file, content):
        path = os.path.join(self.dir, file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as sink:
            sink.write(content)
        return path

    def log(self, program):
        return os.path.join(self.dir, program + ".log")

    def inside(self, *command):
        return ["nsenter", "--target", str(self.holder.child.pid), "--net", "--mount", "--uts", "--", *command]

    def spawn(self, *command, env=None):
        process = Process(self.inside(*command), self.log(os.path.basename(command[0])), env)
        self.processes.append(process)
        return process

    def call(self, *command, check=True):
        return run(*self.inside(*command), check=check)

    # The journal.

    def note(self, what):
        self.events.append({"at": time.time(), "what": what})

    def called(self, name, via):
        """Note the host name the device now tells, once per change."""
        known = [h["name"] for h in self.host_names if h["via"] == via]
        if not known or known[-1] != name:
            self.host_names.append({"name": name, "from": time.time(), "via": via})

    def uses(self, client):
        if client not in self.clients:
            self.clients.append(client)

    def address(self):
        return next((a["ipv4"] for a in reversed(self.addresses) if a["to"] is None), None)

    def wait_address(self, other_than=None, seconds=20):
        return wait_for(f"{self.name} to have an address",
                        lambda: self.address() not in (None, other_than) and self.address(), seconds)

    def _watch(self, watcher):
        """Follow the kernel's own account of the addresses of eth0."""
        for line in watcher.stdout:
            self._address_changed(line)

    def _address_changed(self, line):
        found = re.search(r"inet ([0-9.]+)/", line)
        if not found:
            return
        ipv4, now = found.group(1), time.time()
        held = next((a for a in self.addresses if a["ipv4"] == ipv4 and a["to"] is None), None)
        if line.startswith("Deleted"):
            if held:
                held["to"] = now
        elif not held:
            self.addresses.append({"ipv4": ipv4, "from": now, "to": None})
