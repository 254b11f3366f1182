#!/bin/sh
# Samba as an Active Directory domain controller for tests. Settings by environment:
#   SAMBA_REALM             (CORP.TEST)  the NetBIOS name is its first label
#   SAMBA_ADMIN_PASSWORD    (required)   of Administrator; must be complex even so
#   SAMBA_JOIN              (empty)      when set, join the existing domain as a further controller;
#                                        the DNS server of this container must then be the first one
#   SAMBA_LOCKOUT_THRESHOLD (5)          bad tries before an account locks for 30 minutes; 0 turns it off
# Needs a fixed hostname (dc1, dc2); no privilege: NT ACLs are kept in a tdb file, not in security.* attributes.
# Every /seed/*.ldif is loaded before the first start: changes when it has changetype lines, else plain entries.
set -eu
: "${SAMBA_REALM:=CORP.TEST}" "${SAMBA_JOIN:=}" "${SAMBA_LOCKOUT_THRESHOLD:=5}"
: "${SAMBA_ADMIN_PASSWORD:?set SAMBA_ADMIN_PASSWORD}"
dns_domain="$(printf '%s' "$SAMBA_REALM" | tr '[:upper:]' '[:lower:]')"
netbios="$(printf '%s' "$SAMBA_REALM" | cut -d. -f1)"
acl_store="vfs objects = dfs_samba4 acl_xattr xattr_tdb"

rm -f /etc/samba/smb.conf
printf '[libdefaults]\n default_realm = %s\n dns_lookup_kdc = true\n dns_lookup_realm = false\n' \
    "$SAMBA_REALM" > /etc/krb5.conf
if [ -n "$SAMBA_JOIN" ]; then
    samba-tool domain join "$dns_domain" DC -U "$netbios\\Administrator" --password="$SAMBA_ADMIN_PASSWORD" \
        --dns-backend=SAMBA_INTERNAL --option="$acl_store"
else
    samba-tool domain provision --realm="$SAMBA_REALM" --domain="$netbios" --server-role=dc \
        --dns-backend=SAMBA_INTERNAL --adminpass="$SAMBA_ADMIN_PASSWORD" --host-name="$(hostname)" \
        --option="$acl_store"
    # People of the tests have simple passwords and change them at once.
    samba-tool domain passwordsettings set --complexity=off --min-pwd-length=1 --min-pwd-age=0 \
        --history-length=0 --account-lockout-threshold="$SAMBA_LOCKOUT_THRESHOLD" \
        --account-lockout-duration=30 --reset-account-lockout-after=30
fi

make-tls /var/lib/samba/private/tls
# Given to provision as an option it is not kept, so it is written here. Simple binds on port 389 are wanted
# by the tests of plain and StartTLS connections.
sed -i "/\[global\]/a\\
\\tldap server require strong auth = no\\
\\ttls cafile = tls/ca.pem\\
\\ttls certfile = tls/cert.pem\\
\\ttls keyfile = tls/key.pem" /etc/samba/smb.conf

if [ -z "$SAMBA_JOIN" ]; then
    for seed in /seed/*.ldif; do
        [ -f "$seed" ] || continue
        if grep -qi '^changetype:' "$seed"; then load=ldbmodify; else load=ldbadd; fi
        "$load" -H /var/lib/samba/private/sam.ldb "$seed" >/dev/null
    done
fi
exec samba --foreground --no-process-group --debug-stdout
