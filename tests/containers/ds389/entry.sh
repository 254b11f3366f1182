#!/bin/sh
# 389-ds for tests. Settings by environment:
#   DS_DM_PASSWORD   of cn=Directory Manager      (required)
#   DS_SUFFIX_NAME   suffix                       (dc=acme,dc=example)
# Every /seed/*.ldif is imported in the order of its name; without any, only the suffix
# entry exists. The server listens to the outside only once all of it is there.
set -eu
: "${DS_SUFFIX_NAME:=dc=acme,dc=example}"
: "${DS_DM_PASSWORD:?set DS_DM_PASSWORD}"
config=/etc/dirsrv/slapd-localhost
socket="ldapi://%2Fdata%2Frun%2Fslapd-localhost.socket"

make-tls /data/tls
openssl pkcs12 -export -inkey /data/tls/key.pem -in /data/tls/cert.pem -certfile /data/tls/ca.pem \
    -name Server-Cert -passout pass:transport -out /data/tls/server.p12
certutil -F -d "$config" -n Server-Cert -f "$config/pwdfile.txt" >/dev/null 2>&1 || true
pk12util -i /data/tls/server.p12 -d "$config" -k "$config/pwdfile.txt" -W transport >/dev/null
certutil -A -d "$config" -n "Tests CA" -t CT,, -a -i /data/tls/ca.pem -f "$config/pwdfile.txt"

# An LDIF line longer than 78 characters is folded; the hash of the password goes in on one line instead.
hash="$(pwdhash -D "$config" -s SSHA512 "$DS_DM_PASSWORD")"
awk -v hash="$hash" -v host="$(hostname)" '
    /^nsslapd-rootpw:/ { print "nsslapd-rootpw: " hash; skip = 1; next }
    /^nsslapd-localhost:/ { print "nsslapd-localhost: " host; skip = 1; next }
    skip && /^ / { next }
    { skip = 0; print }
    /^nsslapd-port:/ { print "nsslapd-listenhost: 127.0.0.1"; print "nsslapd-securelistenhost: 127.0.0.1" }
' "$config/dse.ldif" > "$config/dse.new"
mv "$config/dse.new" "$config/dse.ldif"

start_inside() {
    /usr/sbin/ns-slapd -D "$config" -i /data/run/slapd-localhost.pid
    tries=0
    until ldapsearch -Q -Y EXTERNAL -H "$socket" -b "" -s base namingContexts >/dev/null 2>&1; do
        tries=$((tries + 1)); [ "$tries" -lt 300 ] || { cat /data/logs/errors >&2; exit 1; }
        sleep 0.1
    done
}
stop_inside() {
    pid="$(cat /data/run/slapd-localhost.pid)"
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}

start_inside
ldapmodify -Q -Y EXTERNAL -H "$socket" >/dev/null <<LDIF
dn: cn=userroot,cn=ldbm database,cn=plugins,cn=config
changetype: add
objectClass: top
objectClass: extensibleObject
objectClass: nsBackendInstance
cn: userroot
nsslapd-suffix: $DS_SUFFIX_NAME

dn: cn="$DS_SUFFIX_NAME",cn=mapping tree,cn=config
changetype: add
objectClass: top
objectClass: extensibleObject
objectClass: nsMappingTree
cn: $DS_SUFFIX_NAME
nsslapd-state: backend
nsslapd-backend: userroot
LDIF
for index in entryuuid:eq member:eq memberOf:eq; do
    ldapmodify -Q -Y EXTERNAL -H "$socket" >/dev/null 2>&1 <<LDIF || true
dn: cn=${index%%:*},cn=index,cn=userroot,cn=ldbm database,cn=plugins,cn=config
changetype: add
objectClass: top
objectClass: nsIndex
cn: ${index%%:*}
nsSystemIndex: false
nsIndexType: ${index#*:}
LDIF
done

# Runs one task of the server to its end: name, parent, then the task's own lines.
run_task() {
    task="cn=$1,cn=$2,cn=tasks,cn=config"
    { printf 'dn: %s\nchangetype: add\nobjectClass: extensibleObject\ncn: %s\n' "$task" "$1"; cat; } \
        | ldapmodify -Q -Y EXTERNAL -H "$socket" >/dev/null
    tries=0
    while :; do
        code="$(ldapsearch -Q -LLL -Y EXTERNAL -H "$socket" -b "$task" -s base nsTaskExitCode 2>/dev/null \
            | sed -n 's/^nsTaskExitCode: //p')"
        [ "$code" = 0 ] && return 0
        [ -n "$code" ] && { echo "task $1 ended with $code" >&2; tail -20 /data/logs/errors >&2; exit 1; }
        tries=$((tries + 1)); [ "$tries" -lt 3000 ] || { echo "task $1 does not end" >&2; exit 1; }
        sleep 0.1
    done
}

files=""
for seed in /seed/*.ldif; do
    [ -f "$seed" ] && files="$files$(printf 'nsFilename: %s' "$seed")
"
done
if [ -z "$files" ]; then
    first="$(printf '%s' "$DS_SUFFIX_NAME" | cut -d, -f1)"
    case "$first" in
        dc=*) class=domain ;;
        o=*) class=organization ;;
        *) class=organizationalUnit ;;
    esac
    printf 'dn: %s\nobjectClass: top\nobjectClass: %s\n%s: %s\n' \
        "$DS_SUFFIX_NAME" "$class" "${first%%=*}" "${first#*=}" > /tmp/suffix.ldif
    files="nsFilename: /tmp/suffix.ldif
"
fi
printf '%snsInstance: userroot\n' "$files" | run_task seed import
# An import gives no entryUUID and no memberOf; the agent relies on both.
printf 'basedn: %s\nfilter: (objectClass=*)\n' "$DS_SUFFIX_NAME" | run_task uuids "entryuuid task"
printf 'basedn: %s\nfilter: (|(objectClass=inetOrgPerson)(objectClass=groupOfNames)(objectClass=inetuser)(objectClass=nsMemberOf))\n' \
    "$DS_SUFFIX_NAME" | run_task memberships "memberof task"
# Whoever signed in may read, as on the other servers; the seed need not carry access rules.
ldapmodify -Q -Y EXTERNAL -H "$socket" >/dev/null <<LDIF
dn: $DS_SUFFIX_NAME
changetype: modify
add: aci
aci: (targetattr != "userPassword")(version 3.0; acl "signed-in users read"; allow (read, search, compare) userdn = "ldap:///all";)
LDIF
stop_inside
sed -i '/^nsslapd-\(secure\)\{0,1\}listenhost:/d' "$config/dse.ldif"
exec /usr/sbin/ns-slapd -D "$config" -i /data/run/slapd-localhost.pid -d 0
