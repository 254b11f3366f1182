#!/bin/sh
# ejabberd for tests and benchmarks: host "localhost", accounts $XMPP_USER and "peer" with $XMPP_PASSWORD, direct TLS on
# 5223. /out/client.pem is a certificate for $XMPP_USER with its key, for SASL EXTERNAL. A restart keeps all of it.
set -eu
: "${XMPP_USER:=bench}" "${XMPP_PASSWORD:?set XMPP_PASSWORD}"
ulimit -n "$(ulimit -Hn)"
tls=/etc/ejabberd/tls
# The JID goes into the subject's alternative names as id-on-xmppAddr (RFC 6120 section 13.7.1.4).
make_client() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
        -subj "/CN=Causeway test client CA" -keyout "$tls/client-ca.key" -out "$tls/client-ca.pem" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -subj "/CN=$XMPP_USER" -keyout "$tls/client.key" -out "$tls/client.csr" 2>/dev/null
    printf '%s\n' "subjectAltName=otherName:1.3.6.1.5.5.7.8.5;UTF8:$XMPP_USER@localhost" \
        "extendedKeyUsage=clientAuth" "basicConstraints=CA:FALSE" > "$tls/client.extensions"
    openssl x509 -req -days 825 -in "$tls/client.csr" -CA "$tls/client-ca.pem" -CAkey "$tls/client-ca.key" \
        -CAcreateserial -extfile "$tls/client.extensions" -out "$tls/client.crt" 2>/dev/null
    if [ -d /out ]; then cat "$tls/client.crt" "$tls/client.key" > /out/client.pem; chmod 644 /out/client.pem; fi
    rm -f "$tls/client-ca.key" "$tls/client.key" "$tls/client.csr" "$tls/client.extensions" "$tls/client.crt"
}
if [ ! -f "$tls/server.pem" ]; then
    make-tls "$tls"
    make_client
    cat "$tls/cert.pem" "$tls/key.pem" > "$tls/server.pem"
fi
mkdir -p /run/ejabberd
chown -R ejabberd:ejabberd /etc/ejabberd /run/ejabberd /var/lib/ejabberd /var/log/ejabberd
register() { ejabberdctl register "$1" localhost "$XMPP_PASSWORD" >/dev/null 2>&1; }
(
    # Bounded: ejabberdctl gives up by itself when the node never starts.
    ejabberdctl started >/dev/null 2>&1 || true
    tries=0
    until [ -f /var/lib/ejabberd/registered ] || register "$XMPP_USER"; do
        tries=$((tries + 1)); [ "$tries" -lt 120 ] || exit 1
        sleep 0.5
    done
    [ -f /var/lib/ejabberd/registered ] || register peer
    touch /var/lib/ejabberd/registered
    # Login works from here on; the start of the listener alone does not mean that.
    if [ -d /out ]; then touch /out/ready; fi
) &
exec ejabberdctl foreground
