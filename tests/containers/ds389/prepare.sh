#!/bin/sh
# Makes the instance "localhost" under /data with the plugins the tests need. Runs while the image is built.
# dscontainer and not dscreate: the latter wants systemctl and exits 1 without it.
set -eu
mkdir -p /data/config /data/ssca
ln -s /data/config /etc/dirsrv/slapd-localhost
ln -s /data/ssca /etc/dirsrv/ssca
DS_DM_PASSWORD="$(openssl rand -hex 16)" /usr/libexec/dirsrv/dscontainer -r > /tmp/dscontainer.log 2>&1 &
runner=$!
tries=0
until /usr/libexec/dirsrv/dscontainer -H >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 240 ] || { cat /tmp/dscontainer.log >&2; exit 1; }
    sleep 0.5
done
socket="ldapi://%2Fdata%2Frun%2Fslapd-localhost.socket"
ldapmodify -Q -Y EXTERNAL -H "$socket" -f /usr/local/share/ds389/plugins.ldif >/dev/null
kill "$(cat /data/run/slapd-localhost.pid)"
wait "$runner" || true
tries=0
while pgrep -x ns-slapd >/dev/null 2>&1 || [ -e "/proc/$(cat /data/run/slapd-localhost.pid 2>/dev/null || echo none)" ]; do
    tries=$((tries + 1)); [ "$tries" -lt 100 ] || { echo "ns-slapd does not stop" >&2; exit 1; }
    sleep 0.2
done
rm -rf /data/logs/* /data/run/*.pid /data/run/*.socket /data/run/lock/*
