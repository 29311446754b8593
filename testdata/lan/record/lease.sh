#!/bin/sh
# What udhcpc and dhclient run when a lease comes or goes: sets the address, as
# their stock scripts do, and leaves the rest of the machine alone.
case ${1:-} in
  '') event=$reason address=${new_ip_address:-} mask=${new_subnet_mask:-} gateway=${new_routers:-} old=${old_ip_address:-} ;;
  *) event=$1 address=${ip:-} mask=${subnet:-} gateway=${router:-} old= ;;
esac
case $event in
  bound | renew | BOUND | RENEW | REBIND | REBOOT)
    [ -n "$old" ] && [ "$old" != "$address" ] && ip -4 addr flush dev eth0
    ip addr replace "$address/$mask" broadcast + dev eth0
    ip route replace default via "${gateway%% *}"
    ;;
  deconfig | EXPIRE | FAIL | RELEASE | STOP)
    ip -4 addr flush dev eth0
    ;;
esac
exit 0
