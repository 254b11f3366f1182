#!/bin/sh
# squid, once for each way to ask who somebody is, each on its own port, and a Kerberos KDC for realm CAUSEWAY.TEST.
# The account is $PROXY_USER (a principal of the KDC too) with $PROXY_PASSWORD.
#   3128 anonymous   3129 Basic   3130 Digest   3131 NTLM (any password)   3132 Negotiate   3133 TLS, Basic inside
#   3134 NTLM that refuses every password   88 the KDC
# /out/access.log has one line a request: client address, port, status, user, method, target. /out/kdc.log is the KDC's.
set -eu
: "${PROXY_USER:=alice}" "${PROXY_PASSWORD:?set PROXY_PASSWORD}"
realm=CAUSEWAY.TEST
name=proxy.causeway.test
make-tls /etc/squid/tls
logs=/var/log/squid
if [ -d /out ]; then
    logs=/out
    # squid drops its rights and has to find its log in a folder of the engine's user.
    chmod 711 /out
fi
touch "$logs/access.log" "$logs/kdc.log"
chown proxy "$logs/access.log"

cat > /etc/krb5.conf <<END
[libdefaults]
    default_realm = $realm
    dns_lookup_kdc = false
    dns_lookup_realm = false
    rdns = false
[realms]
    $realm = {
        kdc = 127.0.0.1:88
    }
[logging]
    kdc = FILE:$logs/kdc.log
END
mkdir -p /etc/krb5kdc /var/lib/krb5kdc
cat > /etc/krb5kdc/kdc.conf <<END
[kdcdefaults]
    kdc_ports = 88
    kdc_tcp_ports = 88
[realms]
    $realm = {
        max_life = 10h
    }
END
kdb5_util create -s -r "$realm" -P "$(head -c 24 /dev/urandom | base64)" > /dev/null 2>&1
kadmin.local -q "addprinc +requires_preauth -pw $PROXY_PASSWORD $PROXY_USER" > /dev/null 2>&1
kadmin.local -q "addprinc -randkey HTTP/$name" > /dev/null 2>&1
kadmin.local -q "ktadd -k /etc/squid/HTTP.keytab HTTP/$name" > /dev/null 2>&1
chown proxy /etc/squid/HTTP.keytab
krb5kdc

htpasswd -bc /etc/squid/basic.pw "$PROXY_USER" "$PROXY_PASSWORD" 2> /dev/null
hash="$(printf '%s' "$PROXY_USER:causeway:$PROXY_PASSWORD" | md5sum | cut -d' ' -f1)"
echo "$PROXY_USER:causeway:$hash" > /etc/squid/digest.pw
chown -R proxy /etc/squid/tls /etc/squid/basic.pw /etc/squid/digest.pw

# squid wants auth_param before the first acl that uses it. proxy NAME PORT-LINE AUTH-LINES...
configure() {
    conf="/etc/squid/$1.conf"; port="$2"; shift 2
    echo "$port" > "$conf"
    for line in "$@"; do echo "$line" >> "$conf"; done
    cat >> "$conf" <<END
acl CONNECT method CONNECT
logformat causeway %>a %>lp %>Hs %un %rm %ru
access_log stdio:$logs/access.log logformat=causeway
cache_log /dev/null
cache deny all
pid_filename none
shutdown_lifetime 1 seconds
forward_timeout 10 seconds
connect_timeout 5 seconds
visible_hostname $name
END
    if [ $# -gt 0 ]; then
        echo 'acl known proxy_auth REQUIRED' >> "$conf"
        echo 'http_access allow CONNECT known' >> "$conf"
    else
        echo 'http_access allow CONNECT' >> "$conf"
    fi
    echo 'http_access deny all' >> "$conf"
}
basic='auth_param basic program /usr/lib/squid/basic_ncsa_auth /etc/squid/basic.pw'
configure anonymous 'http_port 3128'
configure basic 'http_port 3129' "$basic" 'auth_param basic children 2' 'auth_param basic realm causeway'
configure digest 'http_port 3130' 'auth_param digest program /usr/lib/squid/digest_file_auth -c /etc/squid/digest.pw' \
    'auth_param digest children 2' 'auth_param digest realm causeway' 'auth_param digest nonce_max_count 2'
configure ntlm 'http_port 3131' 'auth_param ntlm program /usr/lib/squid/ntlm_fake_auth' \
    'auth_param ntlm children 4' 'auth_param ntlm keep_alive on'
configure negotiate 'http_port 3132' \
    "auth_param negotiate program /usr/lib/squid/negotiate_kerberos_auth -k /etc/squid/HTTP.keytab -s HTTP/$name@$realm" \
    'auth_param negotiate children 4' 'auth_param negotiate keep_alive on'
configure tls 'https_port 3133 tls-cert=/etc/squid/tls/cert.pem tls-key=/etc/squid/tls/key.pem' \
    "$basic" 'auth_param basic children 2' 'auth_param basic realm causeway'
configure refusing 'http_port 3134' 'auth_param ntlm program /usr/local/bin/ntlm-refuses' \
    'auth_param ntlm children 4' 'auth_param ntlm keep_alive on'

for one in anonymous basic digest ntlm negotiate tls refusing; do squid -N -f "/etc/squid/$one.conf" & done
if [ -d /out ]; then touch /out/ready; fi
# One that ends is missed by its tests; the container goes when it is told to.
trap 'exit 0' TERM INT
while :; do sleep 3600 & wait $!; done
