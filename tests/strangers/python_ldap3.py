"""python ldap3 as an unmodified client of a directory server.

usage: python_ldap3.py LDAP_URL LDAPS_URL CA_FILE BASE ADMIN_DN SOME_LOGIN PERSONALITY
The administrator's password is in CAUSEWAY_PASSWORD. Prints one line a check and ends with 0 when all hold.
"""
import os
import ssl
import sys

from ldap3 import ALL, MODIFY_REPLACE, SUBTREE, Connection, Server, Tls
from ldap3.utils.conv import escape_filter_chars

ldap_url, ldaps_url, ca_file, base, admin, login, personality = sys.argv[1:8]
password = os.environ["CAUSEWAY_PASSWORD"]
active_directory = personality == "active_directory"
tls = Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=ca_file)
login_attribute = "sAMAccountName" if active_directory else "uid"


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


# The schema is parsed by the client (get_info=ALL): a malformed one raises here.
server = Server(ldaps_url, use_ssl=True, tls=tls, get_info=ALL, connect_timeout=10)
connection = Connection(server, admin, password, auto_bind=True, receive_timeout=20)
check("simple bind over ldaps", connection.bound)
check("the rootDSE names the base", base.lower() in [c.lower() for c in server.info.naming_contexts], server.info.naming_contexts)
check("the schema is readable", "person" in server.schema.object_classes and "cn" in server.schema.attribute_types)

plain = Connection(Server(ldap_url, tls=tls, connect_timeout=10), admin, password, receive_timeout=20)
plain.open()
check("StartTLS", plain.start_tls())
check("bind after StartTLS", plain.bind())

found = connection.extend.standard.paged_search(
    base, "(objectClass=person)", SUBTREE, attributes=[login_attribute], paged_size=17, generator=True)
entries = [entry for entry in found if entry["type"] == "searchResEntry"]
check("paged search in pages of 17", len(entries) > 34, len(entries))
check("no entry twice", len({entry["dn"] for entry in entries}) == len(entries))

connection.search(base, f"({login_attribute}={escape_filter_chars(login)})", attributes=["mail", "cn"])
check("one person by login", len(connection.entries) == 1)
person = connection.entries[0].entry_dn
check("modify", connection.modify(person, {"title": [(MODIFY_REPLACE, ["Head of Interop"])]}), connection.result["description"])
check("compare", connection.compare(person, "title", "head of interop"))

parent = person.split(",", 1)[1]
new = f"cn=Interop Probe,{parent}" if active_directory else f"uid=interop-probe,{parent}"
attributes = {"sn": "Probe", "cn": "Interop Probe", login_attribute: "interop-probe"}
classes = ["top", "person", "organizationalPerson", "user" if active_directory else "inetOrgPerson"]
check("add", connection.add(new, classes, attributes), connection.result["description"])
renamed = "cn=Interop Renamed" if active_directory else "uid=interop-renamed"
check("rename", connection.modify_dn(new, renamed), connection.result["description"])
check("delete", connection.delete(f"{renamed},{parent}"), connection.result["description"])
check("delete again is noSuchObject", not connection.delete(f"{renamed},{parent}") and connection.result["result"] == 32)

if active_directory:
    # MD4 is gone from OpenSSL 3; ldap3 then looks for the package by its older name.
    import Cryptodome.Hash.MD4
    from ldap3 import NTLM

    sys.modules.update({"Crypto": Cryptodome, "Crypto.Hash": Cryptodome.Hash})
    sync = connection.extend.microsoft.dir_sync(base, attributes=["name", login_attribute, "mail"], object_security=False, max_length=1 << 20)
    first = sync.loop()
    while sync.more_results:
        first += sync.loop()
    people = [entry for entry in first if entry["attributes"].get(login_attribute)]
    check("DirSync from the beginning", len(people) > 34, len(people))
    connection.modify(person, {"mail": [(MODIFY_REPLACE, ["interop@acme.example"])]})
    delta = [entry for entry in sync.loop() if entry["type"] == "searchResEntry"]
    # This client asks for extended names (MS-ADTS 3.1.1.3.4.1.5): <GUID=...>;<SID=...>;DN
    changed = [entry["dn"].rsplit(";", 1) for entry in delta]
    check("DirSync reports the one change", [name[-1] for name in changed] == [person], changed)
    check("by an extended name", changed[0][0].startswith("<GUID=") and "<SID=S-1-5-21-" in changed[0][0])

    domain_user = os.environ["CAUSEWAY_DOMAIN_USER"]
    ntlm = Connection(server, domain_user, password, authentication=NTLM, receive_timeout=20)
    check("NTLM (Sicily) bind", ntlm.bind(), ntlm.result["description"])
    wrong = Connection(server, domain_user, password + "x", authentication=NTLM, receive_timeout=20)
    check("NTLM with a wrong password is refused", not wrong.bind() and wrong.result["result"] == 49)
print("all hold")
