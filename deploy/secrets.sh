#!/bin/sh
# Makes the passwords and the token that docker-compose.yml mounts as files, in
# deploy/secrets (which Git ignores), where they do not exist. Delete a file for a
# new one.
#
# Containers run as users of their own, so the files must be readable to all;
# the directory, which containers do not see, is readable to you alone.
set -eu
dir=${1:-$(dirname "$0")/secrets}
mkdir -p "$dir"
chmod 700 "$dir"
for name in admin_token temporal_db_password mqtt_bridge_password mqtt_edge_password; do
    [ -s "$dir/$name" ] && continue
    head -c 24 /dev/urandom | base64 | tr '+/' '-_' >"$dir/$name"
    chmod 444 "$dir/$name"
    echo "made $dir/$name"
done
