#!/bin/sh
# Prosody for benchmarks: host "localhost", account $XMPP_USER with $XMPP_PASSWORD, direct TLS on 5223.
set -eu
: "${XMPP_USER:=bench}" "${XMPP_PASSWORD:?set XMPP_PASSWORD}"
# With 1024 handles it answers not-authorized to every login once they run out.
ulimit -n "$(ulimit -Hn)"
make-tls /etc/prosody/tls
mkdir -p /run/prosody
chown -R prosody:prosody /etc/prosody/tls /run/prosody /var/lib/prosody
as_prosody() { setpriv --reuid=prosody --regid=prosody --init-groups "$@"; }
as_prosody prosodyctl register "$XMPP_USER" localhost "$XMPP_PASSWORD"
if [ -d /out ]; then touch /out/ready; fi
exec setpriv --reuid=prosody --regid=prosody --init-groups prosody -F
