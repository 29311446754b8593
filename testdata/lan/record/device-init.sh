#!/bin/sh
# The first process of a device, in its own network, mount and UTS namespaces:
# gives the device private copies of what programs expect of a machine of their
# own, says so, and then only holds the namespaces open.
#   device-init.sh HOSTNAME DIR      DIR: the device's private directory
set -eu
name=$1 dir=$2

mount --make-rprivate /
for private in /run /tmp /var/lib/dhcp /var/lib/dhcpcd /var/lib/NetworkManager /etc/avahi /etc/systemd/network; do
  [ -d "$private" ] && mount -t tmpfs -o mode=0755 tmpfs "$private"
done
chmod 1777 /tmp
mkdir -p /run/dbus /run/dhcpcd /run/systemd/netif /etc/avahi/services
chown systemd-network: /run/systemd/netif

# A file cannot be mounted over a symbolic link: mount over what it points to.
for file in resolv.conf hosts hostname machine-id; do
  mount --bind "$dir/$file" "$(readlink -f /etc/$file)"
done
# dhcpcd tells the maker of the processor; this one has none.
mount --bind /dev/null /proc/cpuinfo
# Read-only /sys is how systemd-networkd knows not to wait for a udev.
mount -o remount,bind,ro /sys
hostname "$name"

echo ready
exec sleep infinity
