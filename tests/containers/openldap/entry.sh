#!/bin/sh
# OpenLDAP for tests. Settings by environment:
#   LDAP_BASE_DN         suffix                         (dc=acme,dc=example)
#   LDAP_ADMIN_PASSWORD  of cn=admin,<suffix>            (required)
#   LDAP_LOAD            offline: slapadd, 100,000 entries in seconds, but overlays do not run, so memberOf is
#                        only what the files say; online: ldapadd, slower, memberOf is kept by the server
# Every /seed/*.ldif is loaded in the order of its name; without any, only the suffix entry exists.
set -eu
: "${LDAP_BASE_DN:=dc=acme,dc=example}" "${LDAP_LOAD:=offline}"
: "${LDAP_ADMIN_PASSWORD:?set LDAP_ADMIN_PASSWORD}"
admin_dn="cn=admin,$LDAP_BASE_DN"

make-tls /etc/ldap/tls
mkdir -p /run/slapd /var/lib/ldap
hash="$(slappasswd -n -h '{SSHA}' -s "$LDAP_ADMIN_PASSWORD")"
sed -e "s|@BASE_DN@|$LDAP_BASE_DN|g" -e "s|@ADMIN_DN@|$admin_dn|" -e "s|@ADMIN_PASSWORD@|$hash|" \
    /etc/ldap/slapd.conf.in > /etc/ldap/slapd.conf
chmod 600 /etc/ldap/slapd.conf

files=/tmp/load
mkdir -p "$files"
found=no
for seed in /seed/*.ldif; do
    [ -f "$seed" ] || continue
    found=yes
    ln -s "$seed" "$files/50-$(basename "$seed")"
done
if [ "$found" = no ]; then
    first="$(printf '%s' "$LDAP_BASE_DN" | cut -d, -f1)"
    case "$first" in
        dc=*) classes="objectClass: dcObject
objectClass: organization
o: ${first#dc=}" ;;
        o=*) classes="objectClass: organization" ;;
        *) classes="objectClass: organizationalUnit" ;;
    esac
    printf 'dn: %s\nobjectClass: top\n%s\n%s: %s\n' "$LDAP_BASE_DN" "$classes" "${first%%=*}" "${first#*=}" \
        > "$files/00-suffix.ldif"
fi
# The lockout that the tests of account states need: five bad tries, half an hour.
cat > "$files/99-policy.ldif" <<LDIF
dn: ou=policies,$LDAP_BASE_DN
objectClass: organizationalUnit
ou: policies

dn: cn=default,ou=policies,$LDAP_BASE_DN
objectClass: device
objectClass: pwdPolicy
cn: default
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: 5
pwdLockoutDuration: 1800
pwdFailureCountInterval: 600
pwdMustChange: TRUE
LDIF

if [ "$LDAP_LOAD" = offline ]; then
    for file in "$files"/*.ldif; do
        slapadd -q -f /etc/ldap/slapd.conf -b "$LDAP_BASE_DN" -l "$file"
    done
else
    # Loaded over a socket nobody outside can reach, so that readiness still means "all is there".
    slapd -f /etc/ldap/slapd.conf -h ldapi:///
    tries=0
    until ldapsearch -x -H ldapi:/// -b "" -s base namingContexts >/dev/null 2>&1; do
        tries=$((tries + 1)); [ "$tries" -lt 300 ] || { echo "slapd did not start" >&2; exit 1; }
        sleep 0.1
    done
    for file in "$files"/*.ldif; do
        ldapadd -x -H ldapi:/// -D "$admin_dn" -w "$LDAP_ADMIN_PASSWORD" -f "$file" >/dev/null
    done
    pid="$(cat /run/slapd/slapd.pid)"
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
fi
exec slapd -f /etc/ldap/slapd.conf -h "ldap://0.0.0.0:389 ldaps://0.0.0.0:636" -d 0
