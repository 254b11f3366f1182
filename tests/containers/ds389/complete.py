"""Copies LDIF from standard input to standard output and adds what an import leaves out.

Every entry without an entryUUID gets a new one: letting the server add them afterwards writes every entry once more,
and once more into the changelog, which takes minutes for 100,000 people. The suffix entry, named by the argument,
gets the access rule that the other servers' configurations have: whoever signed in may read.
"""

import sys
import uuid

RULE = (
    '(targetattr != "userPassword")(version 3.0; acl "signed-in users read"; '
    'allow (read, search, compare) userdn = "ldap:///all";)'
)


def main(suffix):
    name, identified = None, False
    for line in sys.stdin:
        lowered = line[:10].lower()
        if lowered.startswith("dn:"):
            name, identified = line[3:].strip(), False
        elif lowered == "entryuuid:":
            identified = True
        elif name is not None and not line.strip():
            finish(name, identified, suffix)
            name = None
        sys.stdout.write(line)
    if name is not None:
        sys.stdout.write("" if line.endswith("\n") else "\n")
        finish(name, identified, suffix)


def finish(name, identified, suffix):
    if not identified:
        sys.stdout.write(f"entryUUID: {uuid.uuid4()}\n")
    if name.replace(" ", "").lower() == suffix.replace(" ", "").lower():
        sys.stdout.write(f"aci: {RULE}\n")


main(sys.argv[1])
