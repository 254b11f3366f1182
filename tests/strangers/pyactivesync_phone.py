"""pyactivesync as an unmodified phone: provisioned, reads and sends mail, waits, and learns that it is blocked or held.

usage: pyactivesync_phone.py HOST:PORT CA_FILE USER ADDRESS allowed|held
The password is in CAUSEWAY_PASSWORD. Prints one line a check and ends with 0 when all hold. In the mode `allowed` somebody
must block the phone (device id PYEAS1) while it waits with a heartbeat of 900 seconds.
"""
import os
import sys
from email.message import EmailMessage

server, ca_file, user, address, mode = sys.argv[1:6]
# What requests, under pyactivesync, trusts.
os.environ["REQUESTS_CA_BUNDLE"] = ca_file

from pyactivesync import Client  # noqa: E402
from pyactivesync.exceptions import StatusError  # noqa: E402

BLOCKED = "129"
CHANGES, FOLDERS_CHANGED = "2", "7"


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


def fetch(phone, folder, key="0"):
    """Everything there is in a folder, and the key after it."""
    items = []
    if key == "0":
        key = phone.sync_folder(folder).sync_key
    while True:
        page = phone.sync_folder(folder, key, window_size=2)
        items += page.added
        key = page.sync_key
        if not page.more_available:
            return items, key


def subjects(items):
    return [item.fields.get("Email.Subject", "") for item in items]


with Client(server, user, os.environ["CAUSEWAY_PASSWORD"], device_id="PYEAS1", user=address) as phone:
    key = phone.provision()
    check("policy key", key.isdigit() and key != "0", key)
    folders = {folder.name: folder for folder in phone.list_folders()}
    inbox = folders["Inbox"].id

    if mode == "held":
        check("inbox alone", list(folders) == ["Inbox"], list(folders))
        items, _ = fetch(phone, inbox)
        check("one notice", len(items) == 1 and "temporarily blocked" in subjects(items)[0], subjects(items))
        sys.exit(0)

    check("all folders", len(folders) == 8 and int(folders["Inbox"].type) == 2, sorted(folders))
    items, key = fetch(phone, inbox)
    check("mail in pages", len(items) == 3, subjects(items))
    check("nothing more", fetch(phone, inbox, key)[0] == [])
    fetched = phone.fetch_item(inbox, items[0].server_id)
    check("a whole message in HTML", "<html>" in str(fetched.body), fetched.body)

    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = address, address, "To myself"
    letter.set_content("Hello")
    phone.send_mail(letter)
    news = phone.ping(inbox, heartbeat=60)
    check("news", (news.status, news.changed_folder_ids) == (CHANGES, [inbox]), news)
    check("one is estimated", phone.get_item_estimate(inbox, key) == 1)
    items, key = fetch(phone, inbox, key)
    check("the letter", subjects(items) == ["To myself"], subjects(items))

    ended = phone.ping(inbox, heartbeat=900, timeout=60)
    check("waiting ends when the phone is blocked", ended.status == FOLDERS_CHANGED, ended)
    for what, ask in (("folders", phone.list_folders), ("mail", lambda: phone.sync_folder(inbox, key)), ("policy", phone.provision)):
        try:
            ask()
        except StatusError as error:
            check(f"blocked: {what}", error.code == BLOCKED, error)
        else:
            check(f"blocked: {what}", False, "answered")

try:
    with Client(server, user, "wrong", device_id="PYEAS1", user=address) as phone:
        phone.provision()
except Exception as error:
    check("wrong password", getattr(getattr(error, "response", None), "status_code", None) == 401, error)
else:
    check("wrong password", False, "let in")
