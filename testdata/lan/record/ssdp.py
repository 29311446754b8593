"""An SSDP responder with its documents: a DIAL television, or a Roku-like player.

usage: ssdp.py CONFIG.json

CONFIG: "address", "port", "path" (the LOCATION's), "server", "udn", "max_age",
"notify" (whether it also sends ssdp:alive and ssdp:byebye), "services": a list
of {"st", "usn", "headers"}, "documents": {path: {"body", "headers"}}.

Protocols: UPnP Device Architecture 1.1, section 1 (SSDP); DIAL 2.2.1, section 5;
Roku External Control Protocol, "Discovery".
"""

import http.server
import json
import signal
import socket
import struct
import sys
import threading
import time

GROUP = ("239.255.255.250", 1900)


class Responder:
    def __init__(self, conf):
        self.conf = conf
        self.location = f"http://{conf['address']}:{conf['port']}{conf['path']}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("", GROUP[1]))
        member = struct.pack("4s4s", socket.inet_aton(GROUP[0]), socket.inet_aton(conf["address"]))
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(conf["address"]))
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)

    def notify(self, nts):
        for service in self.conf["services"] if self.conf["notify"] else ():
            lines = ["NOTIFY * HTTP/1.1", f"HOST: {GROUP[0]}:{GROUP[1]}", f"NT: {service['st']}",
                     f"NTS: {nts}", f"USN: {service['usn']}"]
            if nts == "ssdp:alive":
                lines += self._about()
            self.socket.sendto(message(lines), GROUP)

    def _about(self):
        return [f"CACHE-CONTROL: max-age={self.conf['max_age']}", f"LOCATION: {self.location}",
                f"SERVER: {self.conf['server']}"]

    def answer(self):
        while True:
            request, sender = self.socket.recvfrom(2048)
            first, _, rest = request.decode("latin-1").partition("\r\n")
            headers = dict(line.split(":", 1) for line in rest.split("\r\n") if ":" in line)
            headers = {name.strip().upper(): value.strip() for name, value in headers.items()}
            if first.startswith("M-SEARCH ") and headers.get("MAN") == '"ssdp:discover"':
                self._reply(headers.get("ST"), sender)

    def _reply(self, st, sender):
        for service in self.conf["services"]:
            if st in ("ssdp:all", service["st"]):
                time.sleep(0.05)
                self.socket.sendto(message(["HTTP/1.1 200 OK", *self._about(), "EXT:", f"ST: {service['st']}",
                                            f"USN: {service['usn']}", *service.get("headers", [])]), sender)


def message(lines):
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def handler(documents):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            document = documents.get(self.path)
            if document is None:
                self.send_error(404)
                return
            body = document["body"].encode()
            self.send_response(200)
            for name, value in {"Content-Type": "text/xml; charset=utf-8", **document.get("headers", {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main():
    with open(sys.argv[1]) as file:
        conf = json.load(file)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    responder = Responder(conf)
    server = http.server.ThreadingHTTPServer(("", conf["port"]), handler(conf["documents"]))
    for work in (server.serve_forever, responder.answer):
        threading.Thread(target=work, daemon=True).start()
    for _ in range(2):  # UDP is lossy: twice, as the UPnP architecture asks
        responder.notify("ssdp:alive")
        time.sleep(0.2)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    responder.notify("ssdp:byebye")


if __name__ == "__main__":
    main()
