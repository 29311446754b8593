#!/bin/sh
# Writes Mosquitto's password file from the secrets. One argument each:
# NAME=FILE, where FILE holds the password.
set -eu
umask 077
passwd=/mosquitto/data/passwd
rm -f "$passwd.new"
touch "$passwd.new"
for user in "$@"; do
    mosquitto_passwd -b "$passwd.new" "${user%%=*}" "$(cat "${user#*=}")"
done
mv "$passwd.new" "$passwd"
echo "wrote $# users"
