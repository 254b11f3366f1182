#!/bin/sh
# 389-ds for tests. Settings by environment:
#   DS_DM_PASSWORD   of cn=Directory Manager      (required)
#   DS_SUFFIX_NAME   suffix                       (dc=acme,dc=example)
#   DS_LOAD          online: memberOf is worked out for the seed; offline: not; 10,000 entries take half a minute
# Every /seed/*.ldif is imported in the order of its name; without any, only the suffix
# entry exists. The server listens to the outside only once all of it is there.
set -eu
: "${DS_SUFFIX_NAME:=dc=acme,dc=example}" "${DS_LOAD:=online}"
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

completed() { python3 /usr/local/share/ds389/complete.py "$DS_SUFFIX_NAME" > "/data/ldif/$1"; }

files=""
for seed in /seed/*.ldif; do
    [ -f "$seed" ] || continue
    name="$(basename "$seed" | tr -c 'A-Za-z0-9.\n-' _)"
    completed "$name" < "$seed"
    files="$files $name"
done
if [ -z "$files" ]; then
    first="$(printf '%s' "$DS_SUFFIX_NAME" | cut -d, -f1)"
    case "$first" in
        dc=*) class=domain ;;
        o=*) class=organization ;;
        *) class=organizationalUnit ;;
    esac
    printf 'dn: %s\nobjectClass: top\nobjectClass: %s\n%s: %s\n' \
        "$DS_SUFFIX_NAME" "$class" "${first%%=*}" "${first#*=}" | completed suffix.ldif
    files="suffix.ldif"
fi
if [ "$DS_LOAD" = online ]; then
    for file in $files; do printf 'nsFilename: /data/ldif/%s\n' "$file"; done > /tmp/import
    printf 'nsInstance: userroot\n' >> /tmp/import
    run_task seed import < /tmp/import
    # An import runs no plugins, so it gives no memberOf.
    people="(|(objectClass=inetOrgPerson)(objectClass=groupOfNames)(objectClass=inetuser)(objectClass=nsMemberOf))"
    printf 'basedn: %s\nfilter: %s\n' "$DS_SUFFIX_NAME" "$people" | run_task memberships "memberof task"
    stop_inside
else
    # With the server stopped the import takes what memory it wants. It still goes at 400 entries a second, limited
    # by its own pauses and not by the processor.
    stop_inside
    set --
    for file in $files; do set -- "$@" -i "/data/ldif/$file"; done
    /usr/sbin/ns-slapd ldif2db -D "$config" -n userroot "$@" >/dev/null 2>&1 \
        || { echo "import failed" >&2; tail -20 /data/logs/errors >&2; exit 1; }
fi
sed -i '/^nsslapd-\(secure\)\{0,1\}listenhost:/d' "$config/dse.ldif"
exec /usr/sbin/ns-slapd -D "$config" -i /data/run/slapd-localhost.pid -d 0
