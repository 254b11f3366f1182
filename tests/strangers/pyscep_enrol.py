"""PyScep as an unmodified client of SCEP and NDES.

usage: pyscep_enrol.py SCEP_URL NDES_ADMIN_URL ADMIN_URL USER MODE
MODE is ca or ra. The password of USER is in CAUSEWAY_PASSWORD, the static challenge in CAUSEWAY_CHALLENGE. Prints one
line a check and ends with 0 when all hold.
"""
import os
import re
import sys

import requests
from requests_ntlm import HttpNtlmAuth

# oscrypto 1.3.0 takes "3.0.19" for no version of OpenSSL: it expects one digit. The package itself stays as it is.
search = re.search
re.search = lambda pattern, text, *more: search(
    pattern.replace(r"\d\.\d\.\d[a-z]", r"\d+\.\d+\.\d+[a-z]") if isinstance(pattern, str) else pattern, text, *more)
from scep.Client import message
from scep.Client.client import Client
from scep.Client.enums import CACaps, PKIStatus
from scep.Client.signingrequest import SigningRequest
re.search = search
# Nor does it know that answers without a certificate have no content (RFC 8894 section 3.3.2.2).
digest_for_data = message.digest_for_data
message.digest_for_data = lambda algorithm, data: digest_for_data(algorithm=algorithm, data=data or b"")

scep_url, ndes_url, admin_url, user, mode = sys.argv[1:6]
password, challenge = os.environ["CAUSEWAY_PASSWORD"], os.environ["CAUSEWAY_CHALLENGE"]
USAGE = {"digital_signature", "key_encipherment"}
client = Client(scep_url)


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


def why(status):
    """failInfo as its number (RFC 8894 section 3.2.1.4)."""
    return int(getattr(status.fail_info, "value", status.fail_info))


def admin(method, path, **body):
    answer = requests.request(method, admin_url + path, json=body)
    answer.raise_for_status()
    return answer.json()


def enrol(name, secret, identity=None):
    identity, key = identity or SigningRequest.generate_self_signed(name, USAGE)
    request, _ = SigningRequest.generate_csr(name, USAGE, secret, key)
    return client.enrol(request, identity, key), identity, key


def own(status, key):
    return next(c for c in status.certificates if c.public_key.to_der() == key.public_key.to_der())


capabilities = client.get_ca_capabilities()
check("it offers POST and SHA-256", capabilities.contains(CACaps.POSTPKIOperation) and capabilities.contains(CACaps.SHA256))
check("AES is offered as the product does", capabilities.contains(CACaps.AES) == (mode == "ca"))
authority = client.get_ca_certs()
check("the certificates fit together", (len(authority.certificates) == 1) == (mode == "ca"), len(authority.certificates))

status, identity, key = enrol("static-1", challenge)
check("a static challenge gets a certificate", status.status is PKIStatus.SUCCESS, getattr(status, "fail_info", ""))
first = own(status, key)
check("its subject is the one asked for", "static-1" in str(first.subject_dict), first.subject_dict)

status, *_ = enrol("wrong-1", "0000000000000000")
check("a wrong challenge is refused", status.status is PKIStatus.FAILURE and why(status) == 2)


def ndes(auth):
    page = requests.get(ndes_url, auth=auth)
    check("the page is there", page.status_code == 200, page.status_code)
    text = page.content.decode("utf-16-le")
    found = search(r"challenge password is: <B> (\S*) </B>", text)
    check("with a challenge of 16 digits", found and search("^[0-9A-F]{16}$", found.group(1)))
    return found.group(1)


dynamic = ndes((user.split("\\")[1], password))
status, _, dynamic_key = enrol("dynamic-1", dynamic)
check("a challenge of NDES gets a certificate", status.status is PKIStatus.SUCCESS, getattr(status, "fail_info", ""))
status, *_ = enrol("dynamic-2", dynamic)
check("and only one", status.status is PKIStatus.FAILURE and why(status) == 2)
status, *_ = enrol("dynamic-3", ndes(HttpNtlmAuth(user, password)))
check("the same over NTLM", status.status is PKIStatus.SUCCESS, getattr(status, "fail_info", ""))

request, new_key = SigningRequest.generate_csr("static-1", USAGE)
status = client.enrol(request, first, key)
check("a certificate renews itself without a challenge", status.status is PKIStatus.SUCCESS, getattr(status, "fail_info", ""))
check("for the new key", own(status, new_key).serial_number != first.serial_number)
request, new_key = SigningRequest.generate_csr("somebody-else", USAGE)
status = client.enrol(request, first, key)
check("not for another subject", status.status is PKIStatus.FAILURE and why(status) == 2)

rule = admin("POST", "/faults", on={"front": "scep", "operation": "PKIOperation"}, times=1,
             fault={"custom": {"word": "pending"}})
status, identity, key = enrol("slow-1", challenge)
check("a request that waits is pending", status.status is PKIStatus.PENDING)
transaction = status.transaction_id
subject = identity.to_asn1_certificate().subject
status = client.poll(identity, key, subject, transaction)
check("and stays so", status.status is PKIStatus.PENDING)
waiting = admin("GET", "/world/requests?state=pending")["requests"]
check("one request waits", len(waiting) == 1, waiting)
admin("POST", f"/world/requests/{waiting[0]['id']}/approve")
status = client.poll(identity, key, subject, transaction)
check("until somebody approves", status.status is PKIStatus.SUCCESS, getattr(status, "fail_info", ""))
slow = own(status, key)
status = client.poll(identity, key, subject, "0123")
check("an unknown transaction is none", status.status is PKIStatus.FAILURE and why(status) == 4)

status = client.get_cert(identity, key, slow.serial_number)
check("GetCert finds it", status.status is PKIStatus.SUCCESS and own(status, key).to_der() == slow.to_der())
admin("POST", f"/world/certificates/{slow.serial_number:x}/revoke", reason="key_compromise")
status = client.get_crl(identity, key, slow.serial_number)
check("GetCRL lists it when it is revoked", status.status is PKIStatus.SUCCESS and status.crl is not None)

if capabilities.is_rollover_supported():
    admin("POST", "/world/rollover", in_ms=86400000)
    # Client.rollover_certificate wraps certificates twice and fails; reading and verifying the message is what it gets right.
    answer = requests.get(scep_url, params={"operation": "GetNextCACert"})
    rollover = message.SCEPMessage.parse(raw=answer.content, signer_cert=authority.signer)
    check("GetNextCACert is signed by the present authority", len(rollover.certificates) > 0, len(rollover.certificates))
