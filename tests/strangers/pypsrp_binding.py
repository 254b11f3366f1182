"""pypsrp where Extended Protection is required: NTLM must be bound to the TLS channel.

usage: pypsrp_binding.py HTTPS_URL CA_FILE USER
The password is in CAUSEWAY_PASSWORD. Prints one line a check and ends with 0 when all hold.
"""
import os
import sys
from urllib.parse import urlsplit

from pypsrp.exceptions import AuthenticationError
from pypsrp.powershell import RunspacePool
from pypsrp.wsman import WSMan

https_url, ca_file, user = sys.argv[1:4]


def opens(**more):
    url = urlsplit(https_url)
    wsman = WSMan(url.hostname, port=url.port, path="powershell", username=user, password=os.environ["CAUSEWAY_PASSWORD"],
                  cert_validation=ca_file, **more)
    try:
        with wsman, RunspacePool(wsman, configuration_name="Microsoft.Exchange"):
            return True
    except AuthenticationError:
        return False


for what, expected, more in (
    ("bound", True, {"auth": "negotiate"}),
    ("bound, bare NTLM", True, {"auth": "ntlm"}),
    ("not bound", False, {"auth": "negotiate", "negotiate_send_cbt": False}),
    ("Basic, which cannot be bound", True, {"auth": "basic"}),
):
    holds = opens(**more) == expected
    print(("ok   " if holds else "FAIL ") + what, flush=True)
    if not holds:
        sys.exit(1)
print("all hold")
