"""pywinrm as an unmodified client of Exchange's remote PowerShell: as far as a client of command shells comes there.

usage: pywinrm_shell.py HTTPS_URL HTTP_URL CA_FILE USER
The password is in CAUSEWAY_PASSWORD. Prints one line a check and ends with 0 when all hold.
"""
import os
import sys
import uuid

import requests
import winrm
from winrm.exceptions import InvalidCredentialsError, WinRMTransportError, WSManFaultError

https_url, http_url, ca_file, user = sys.argv[1:5]
password = os.environ["CAUSEWAY_PASSWORD"]
IDENTIFY = """<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" \
xmlns:wsmid="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"><s:Header/><s:Body><wsmid:Identify/></s:Body></s:Envelope>"""


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


def protocol(url, transport, password=password):
    return winrm.Protocol(url, transport=transport, username=user, password=password, ca_trust_path=ca_file)


for name, url, transport in (
    ("Basic over TLS", https_url, "basic"),
    ("NTLM sealed over http", http_url, "ntlm"),
    ("NTLM bound to TLS", https_url, "ntlm"),
):
    client = protocol(url, transport)
    answer = client.send_message(IDENTIFY)
    check(f"{name}: Identify", b"IdentifyResponse" in answer and b"Microsoft Corporation" in answer, len(answer))
    try:
        client.open_shell()
        check(f"{name}: there are no command shells", False)
    except WSManFaultError as fault:
        check(f"{name}: there are no command shells", fault.wsman_fault_code == 2150858811, fault.wsman_fault_code)
    shell = str(uuid.uuid4()).upper()
    for what, attempt in (
        ("Command", lambda: client.run_command(shell, "ipconfig")),
        ("Receive", lambda: client.get_command_output_raw(shell, str(uuid.uuid4()))),
        ("Delete", lambda: client.close_shell(shell, close_session=False)),
    ):
        try:
            attempt()
            check(f"{name}: {what} to a command shell", False)
        except WSManFaultError as fault:
            check(f"{name}: {what} to a command shell", fault.wsman_fault_code == 2150858811, fault.wsman_fault_code)

for url, transport in ((https_url, "basic"), (http_url, "ntlm")):
    try:
        protocol(url, transport, password + "x").open_shell()
        check(f"{transport}: a wrong password is refused", False)
    except (InvalidCredentialsError, WinRMTransportError) as error:
        check(f"{transport}: a wrong password is refused", True, error)

for path in ("/wsman", "/", "/powershell/x"):
    base = https_url.rsplit("/powershell", 1)[0]
    answer = requests.post(base + path, data=IDENTIFY, verify=ca_file, auth=(user, password), timeout=20)
    check(f"{path} is not there", answer.status_code == 404, answer.status_code)
answer = requests.post(https_url.replace("powershell", "PowerShell") + "/", data=IDENTIFY, verify=ca_file, timeout=20,
                       headers={"WSMANIDENTIFY": "unauthenticated", "Content-Type": "application/soap+xml;charset=UTF-8"})
check("Identify without credentials, whatever the path's case", answer.status_code == 200 and "OS: 0.0.0" in answer.text, answer.status_code)
print("all hold")
