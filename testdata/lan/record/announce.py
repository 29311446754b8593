"""Announces one DNS-SD service with python-zeroconf until it is told to stop.

usage: announce.py CONFIG.json   {"host", "address", "instance", "service", "port", "txt"}
"""

import json
import signal
import socket
import sys

from zeroconf import IPVersion, ServiceInfo, Zeroconf

with open(sys.argv[1]) as file:
    conf = json.load(file)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
kind = conf["service"] + ".local."
info = ServiceInfo(kind, f"{conf['instance']}.{kind}", port=conf["port"], properties=conf["txt"],
                   server=conf["host"] + ".local.", addresses=[socket.inet_aton(conf["address"])])
daemon = Zeroconf(interfaces=[conf["address"]], ip_version=IPVersion.V4Only)
daemon.register_service(info)
signal.sigwait([signal.SIGTERM, signal.SIGINT])
daemon.unregister_service(info)
daemon.close()
