"""What happens on the LAN, device by device: each function is one device's life.

Times are seconds after the recording started. A device does one thing after
the other; the devices live side by side.
"""

import clients
from lan import ROUTER, WAN

TAKEN = "192.168.77.150"  # the camera's own address, which the router believes is free


def living_room_tv(device, at, router):
    """Answers DIAL; gets another address because it asks for one."""
    def dial():
        return clients.ssdp_responder(device, "dial (ssdp.py)", dial_profile())

    at(0.2, "join")
    device.plug()
    dhcp = clients.Udhcpc(device, "living-room-tv", "Lumora TV 5.2")
    dhcp.start()
    before = device.wait_address()
    service = dial()
    at(13)
    surf(device)
    at(44, "address")
    service.stop()
    dhcp.release()
    dhcp.start(request="192.168.77.180")
    device.wait_address(other_than=before)
    dial()


def kitchen_display(device, at, router):
    """A Cast device; it is renamed, and so tells DHCP and mDNS another name."""
    at(1.2, "join")
    device.plug()
    dhcp = clients.Dhcpcd(device, "kitchen-display", "dhcpcd-9.4.1:Linux:armv7l:KDisp", duid=True)
    dhcp.start()
    device.wait_address()
    avahi = clients.Avahi(device, "kitchen-display", dbus=True, services=[{
        "instance": "Hearth-Display-6f2d0c51b7aa4e0f", "service": "_googlecast._tcp", "port": 8009,
        "txt": {"id": "6f2d0c51b7aa4e0f93d1", "md": "Hearth Display", "fn": "Kitchen display", "ve": "05", "ca": "199172"}}])
    avahi.start()
    at(50, "host-name")
    dhcp.rename("dining-display")
    avahi.rename("dining-display")


def airplay_speaker(device, at, router):
    """An AirPlay speaker whose owner never changed its host name."""
    at(2.4, "join")
    device.plug()
    clients.Dhclient(device, "speaker", "Tonwerk One/2.1").start()
    device.wait_address()
    clients.Avahi(device, "speaker", dbus=True, services=[{
        "instance": "Den", "service": "_airplay._tcp", "port": 7000,
        "txt": {"deviceid": device.mac.upper(), "model": "TonwerkOne2,1", "srcvers": "366.0", "features": "0x445F8A00"}}]).start()
    clients.shairport(device, "Den")


def attic_nas(device, at, router):
    """A UPnP media server whose DHCP client identifier is not its MAC."""
    at(3.6, "join")
    device.plug()
    clients.Networkd(device, "attic-nas", "systemd-networkd NAS", 0x4E415301,
                     bytes.fromhex("0000ab11f92ac27729f95c01")).start()
    device.wait_address()
    clients.minidlna(device, "Attic library", "4d696e69-444c-164e-9d41-001fd52033a4", "Attic Two-Bay")


def camera(device, at, router):
    """Has a fixed address and shows itself by ARP only. It does not answer a ping."""
    at(5, "join")
    device.call("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv4.icmp_echo_ignore_all=1")
    device.plug()
    device.uses("arping")
    fixed(device, TAKEN)
    device.call("arping", "-q", "-A", "-I", "eth0", "-c", "1", TAKEN)
    device.call("arping", "-q", "-U", "-I", "eth0", "-c", "2", TAKEN)
    device.note("announce")
    for second in (31, 59, 83):
        at(second)
        device.call("arping", "-q", "-I", "eth0", "-s", TAKEN, "-c", "1", ROUTER)


def hifi(device, at, router):
    """A UPnP media renderer."""
    at(6.2, "join")
    device.plug()
    clients.Dhclient(device, "hifi", "Klanghaus R3", client_id=b"\x00klanghaus-r3-00417").start()
    device.wait_address()
    clients.gmediarender(device, "Living room hi-fi", "5c1e0b9a-77f3-4b7e-9d55-d0c3a1004417")


def streaming_stick(device, at, router):
    """Answers searches for roku:ecp, and announces nothing unasked."""
    at(8, "join")
    device.plug()
    clients.Udhcpc(device, "streaming-stick", "Roku/DVP-14.0").start()
    device.wait_address()
    clients.ssdp_responder(device, "roku:ecp (ssdp.py)", roku_profile())


def printer(device, at, router):
    """Leaves as one should: goodbye by mDNS, then a release."""
    at(9.4, "join")
    device.plug()
    dhcp = clients.Dhclient(device, "office-printer", "Inkwell 4100 series")
    dhcp.start()
    device.wait_address()
    txt = {"ty": "Inkwell 4100", "product": "(Inkwell 4100)", "usb_MFG": "Inkwell", "usb_MDL": "4100", "rp": "ipp/print"}
    avahi = clients.Avahi(device, "office-printer", services=[
        {"instance": "Inkwell 4100 @ %h", "service": service, "port": port, "txt": txt}
        for service, port in (("_ipp._tcp", 631), ("_pdl-datastream._tcp", 9100))])
    avahi.start()
    at(62, "leave")
    avahi.stop()
    dhcp.release()
    device.gone()


def phone(device, at, router):
    """A controller with a random MAC: searches, reads descriptions, leaves, comes back."""
    def visit():
        device.plug()
        dhcp = clients.Dhcpcd(device, "Annas-Phone", "android-dhcp-14", rapid=True, probe=False)
        dhcp.start()
        device.wait_address()
        return dhcp

    at(10.6, "join")
    dhcp = visit()
    surf(device)
    at(16)
    search(device)
    device.uses("mquery")
    device.call("mquery", "-i", "eth0", "-w", "2", "_googlecast._tcp.local", check=False)
    at(38, "leave")
    dhcp.release()
    device.gone()
    at(64, "rejoin")
    device.offline = False
    visit()
    search(device)


def laptop(device, at, router):
    """A controller; renamed, and later moved by the router to a reserved address."""
    at(12, "join")
    device.plug()
    dhcp = clients.Dhclient(device, "debian")
    dhcp.start()
    before = device.wait_address()
    surf(device)
    at(30, "host-name")
    dhcp.restart("annas-laptop")
    at(33)
    avahi = clients.Avahi(device, "annas-laptop", dbus=True)
    avahi.start()
    for service in ("_airplay._tcp", "_spotify-connect._tcp", "_ipp._tcp"):
        device.call("avahi-browse", "-rpt", service)
    clients.gssdp_discover(device, "-n", "3")
    at(56, "address")
    router.reserve(device.mac, "192.168.77.60")
    dhcp.restart()
    device.wait_address(other_than=before)
    surf(device)


def bulb(device, at, router):
    """A UPnP light."""
    at(14, "join")
    device.plug()
    clients.Udhcpc(device, "hallway-bulb").start()
    device.wait_address()
    clients.network_light(device, "Hallway light")


def thermostat(device, at, router):
    """Tells its name in the FQDN option (81) instead of the host name option (12)."""
    at(17.5, "join")
    device.plug()
    clients.Udhcpc(device, fqdn="thermostat", vendor_class="Calor T2").start()
    device.wait_address()
    clients.mdnsd(device, {"instance": "thermostat", "service": "_hap._tcp", "port": 5556,
                           "txt": {"md": "Calor T2", "id": "3A:5C:77:10:9E:42", "ci": "9", "pv": "1.1"}})


def console(device, at, router):
    """Is offered the camera's address, declines it, gets another, and later vanishes."""
    router.reserve(device.mac, TAKEN)
    at(20, "join")
    device.plug()
    clients.Dhcpcd(device, "game-console", "NovaBox").start()
    device.wait_address(seconds=40)
    surf(device)
    at(71, "vanish")
    device.vanished = True
    device.unplug()


def music_box(device, at, router):
    """Tells DHCP no name at all."""
    at(22, "join")
    device.plug()
    clients.Udhcpc(device, vendor_class="Kastell MB").start()
    device.wait_address()
    clients.zeroconf(device, "kastell-mb-20c1", {
        "instance": "Kastell Music Box", "service": "_spotify-connect._tcp", "port": 4070,
        "txt": {"CPath": "/zc", "VERSION": "1.0", "Stack": "SP", "model": "KMB-2"}})


def archive(device, at, router):
    """A media server with a fixed address: its byebye is all the goodbye there is."""
    at(24, "join")
    device.plug()
    device.uses("static address")
    fixed(device, "192.168.77.30")
    server = clients.minidlna(device, "Film archive", "4d696e69-444c-164e-9d41-cc50e31df704", "Cellar One-Bay")
    at(67, "leave")
    server.stop()
    device.gone()


def patio_speaker(device, at, router):
    """Brings the same mDNS name as the speaker in the den, and has to take another."""
    at(26, "join")
    device.plug()
    clients.Udhcpc(device, vendor_class="Tonwerk One/2.1").start()
    device.wait_address()
    clients.Avahi(device, "speaker", services=[{
        "instance": "Patio", "service": "_airplay._tcp", "port": 7000,
        "txt": {"deviceid": device.mac.upper(), "model": "TonwerkOne2,1", "srcvers": "366.0", "features": "0x445F8A00"}}]).start()


def sensor(device, at, router):
    """Says nothing but DHCP, and vanishes."""
    at(28, "join")
    device.plug()
    clients.Udhcpc(device).start()
    device.wait_address()
    at(76, "vanish")
    device.vanished = True
    device.unplug()


# The first three octets are invented; 02 in the first one marks a random MAC.
DEVICES = [
    (living_room_tv, "4c:b1:17:20:11:01", "smart TV"),
    (kitchen_display, "4c:b1:17:9a:02:c4", "cast display"),
    (airplay_speaker, "90:e4:6a:31:5d:07", "AirPlay speaker"),
    (attic_nas, "00:1f:d5:20:33:a4", "media server"),
    (camera, "74:2a:8f:c0:1b:96", "IP camera"),
    (hifi, "d0:c3:a1:00:44:17", "media renderer"),
    (streaming_stick, "b8:3d:4e:77:e0:12", "streaming player"),
    (printer, "f4:81:39:5b:60:2e", "printer"),
    (phone, "5e:07:b4:e9:13:6a", "phone"),
    (laptop, "98:fa:9b:14:c7:d3", "laptop"),
    (bulb, "cc:50:e3:08:aa:71", "light bulb"),
    (thermostat, "64:16:66:92:0d:5f", "thermostat"),
    (console, "7c:bb:8a:46:91:e8", "game console"),
    (music_box, "24:6f:28:20:c1:3c", "music player"),
    (archive, "cc:50:e3:1d:f7:04", "media server"),
    (patio_speaker, "90:e4:6a:31:88:b2", "AirPlay speaker"),
    (sensor, "84:f3:eb:6c:05:19", "sensor"),
]

LENGTH = 90  # seconds


def fixed(device, ipv4):
    device.call("ip", "addr", "add", f"{ipv4}/24", "broadcast", "+", "dev", "eth0")
    device.call("ip", "route", "add", "default", "via", ROUTER)
    device.wait_address()


def surf(device):
    """Traffic with the world outside, which reaches the LAN with the router's MAC as its source."""
    device.call("curl", "-s", "-m", "3", "http://updates.example.net/", check=False)
    device.call("ping", "-q", "-c", "2", "-i", "0.2", WAN, check=False)
    device.call("ping", "-q", "-c", "1", "-s", "3000", WAN, check=False)  # fragments
    # An NTP request that nobody listens to: ICMP port unreachable, from outside.
    device.call("bash", "-c", f"(printf '\\x23'; head -c 47 /dev/zero) | dd bs=48 iflag=fullblock status=none >/dev/udp/{WAN}/123", check=False)


def search(device):
    """What a remote-control app does: search, and read the description of all that answer."""
    found = ""
    for target in ("urn:dial-multiscreen-org:service:dial:1", "roku:ecp", "upnp:rootdevice"):
        found += clients.gssdp_discover(device, "-n", "2", "-t", target)
    for location in sorted({line.split(": ", 1)[1].strip() for line in found.splitlines() if "Location: " in line}):
        device.call("curl", "-s", "-m", "2", location, check=False)


def dial_profile():
    udn = "uuid:8e1f4a52-0f0c-4c0e-a1d7-4cb117201101"
    st = "urn:dial-multiscreen-org:service:dial:1"
    about = {"friendly_name": "Living room TV", "manufacturer": "Lumora", "model": "LX55"}
    description = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0">
 <specVersion><major>1</major><minor>0</minor></specVersion>
 <device>
  <deviceType>urn:dial-multiscreen-org:device:dial:1</deviceType>
  <friendlyName>{about['friendly_name']}</friendlyName>
  <manufacturer>{about['manufacturer']}</manufacturer>
  <modelName>{about['model']}</modelName>
  <UDN>{udn}</UDN>
 </device>
</root>
"""
    return {**about, "udn": udn, "port": 8060, "path": "/dial/dd.xml", "max_age": 1800, "notify": True,
            "server": "Linux/5.4 UPnP/1.1 LumoraDIAL/2.2",
            "services": [{"st": nt, "usn": udn if nt == udn else f"{udn}::{nt}"} for nt in ("upnp:rootdevice", udn, st)],
            "documents": {"/dial/dd.xml": {"body": description, "headers": {
                "Application-URL": "http://living-room-tv.local:8060/apps/"}}}}


def roku_profile():
    about = {"friendly_name": "Bedroom stick", "manufacturer": "Roku-like", "model": "3810X"}
    info = f"""<?xml version="1.0" encoding="UTF-8" ?>
<device-info>
  <udn>2b6a0c13-9807-1045-80a2-b83d4e77e012</udn>
  <serial-number>X0040077E012</serial-number>
  <device-id>S00940077E012</device-id>
  <vendor-name>{about['manufacturer']}</vendor-name>
  <model-name>{about['friendly_name']}</model-name>
  <model-number>{about['model']}</model-number>
  <user-device-name>{about['friendly_name']}</user-device-name>
  <software-version>14.0.4</software-version>
</device-info>
"""
    return {**about, "udn": "uuid:roku:ecp:X0040077E012", "port": 8060, "path": "/", "max_age": 3600, "notify": False,
            "server": "Roku/14.0.4 UPnP/1.0 Roku/14.0.4",
            "services": [{"st": "roku:ecp", "usn": "uuid:roku:ecp:X0040077E012",
                          "headers": ["WAKEUP: MAC=b8:3d:4e:77:e0:12;Timeout=10"]}],
            "documents": {"/": {"body": info}, "/query/device-info": {"body": info}}}
