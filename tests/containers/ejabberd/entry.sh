#!/bin/sh
# ejabberd for benchmarks: host "localhost", account $XMPP_USER with $XMPP_PASSWORD, direct TLS on 5223.
set -eu
: "${XMPP_USER:=bench}" "${XMPP_PASSWORD:?set XMPP_PASSWORD}"
ulimit -n "$(ulimit -Hn)"
make-tls /etc/ejabberd/tls
cat /etc/ejabberd/tls/cert.pem /etc/ejabberd/tls/key.pem > /etc/ejabberd/tls/server.pem
mkdir -p /run/ejabberd
chown -R ejabberd:ejabberd /etc/ejabberd /run/ejabberd /var/lib/ejabberd /var/log/ejabberd
(
    # Bounded: ejabberdctl gives up by itself when the node never starts.
    ejabberdctl started >/dev/null 2>&1 || true
    tries=0
    until ejabberdctl register "$XMPP_USER" localhost "$XMPP_PASSWORD" >/dev/null 2>&1; do
        tries=$((tries + 1)); [ "$tries" -lt 120 ] || exit 1
        sleep 0.5
    done
    # Login works from here on; the start of the listener alone does not mean that.
    if [ -d /out ]; then touch /out/ready; fi
) &
exec ejabberdctl foreground
