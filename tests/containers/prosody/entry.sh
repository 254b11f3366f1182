#!/bin/sh
# Prosody for tests and benchmarks: host "localhost", accounts $XMPP_USER and "peer" with $XMPP_PASSWORD, direct TLS on
# 5223. A restart keeps certificate and accounts.
set -eu
: "${XMPP_USER:=bench}" "${XMPP_PASSWORD:?set XMPP_PASSWORD}"
# With 1024 handles it answers not-authorized to every login once they run out.
ulimit -n "$(ulimit -Hn)"
as_prosody() { setpriv --reuid=prosody --regid=prosody --init-groups "$@"; }
mkdir -p /run/prosody
if [ ! -f /etc/prosody/tls/key.pem ]; then
    make-tls /etc/prosody/tls
    chown -R prosody:prosody /etc/prosody/tls /run/prosody /var/lib/prosody
    as_prosody prosodyctl register "$XMPP_USER" localhost "$XMPP_PASSWORD"
    as_prosody prosodyctl register peer localhost "$XMPP_PASSWORD"
fi
rm -f /run/prosody/prosody.pid
if [ -d /out ]; then touch /out/ready; fi
exec setpriv --reuid=prosody --regid=prosody --init-groups prosody -F
