"""MSAL and requests as an unmodified application of Exchange Online: a token for a certificate, cmdlets over the admin REST.

usage: msal_online.py TOKEN_URL REST_URL ADMIN_URL CA_FILE CLIENT_ID DOMAIN PARTNERSHIPS
Makes a key and a certificate of its own. Prints one line a check and ends with 0 when all hold.
"""
import base64
import datetime
import json
import os
import sys
import time
import urllib.parse

import msal
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

token_url, rest_url, admin_url, ca_file, client_id, domain, partnerships = sys.argv[1:8]
partnerships = int(partnerships)
host = urllib.parse.urlsplit(token_url)
tenant = host.path.split("/")[1]
login = f"{host.scheme}://{host.netloc}"
SCOPES = ["https://outlook.office365.com/.default"]
# What the machine says here goes before what a session is told.
os.environ["REQUESTS_CA_BUNDLE"] = ca_file


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


def admin(method, path, **body):
    answer = requests.request(method, admin_url + path, json=body)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def identity():
    """A key, its certificate, and the certificate's SHA-1 thumbprint."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stranger")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256()))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return private.decode(), public.decode(), certificate.fingerprint(hashes.SHA1()).hex()


def application(credential, authority=f"{login}/{tenant}", instance_discovery=False, **more):
    return msal.ConfidentialClientApplication(
        client_id, authority=authority, client_credential=credential, verify=ca_file,
        instance_discovery=instance_discovery, **more)


def refused(answer, code):
    """Whether a token was refused with this number of the service's sign-in errors."""
    return "access_token" not in answer and answer.get("error_codes") == [code]


private, public, thumbprint = identity()
modern = {"private_key": private, "public_certificate": public}
legacy = {"private_key": private, "thumbprint": thumbprint}

answer = application(modern).acquire_token_for_client(SCOPES)
check("an unregistered certificate gets no token", refused(answer, 700027), answer.get("error_description"))
admin("POST", "/world/app/certificates", pem=public)

app = application(modern)
granted = app.acquire_token_for_client(SCOPES)
check("a token for PS256 and the certificate's SHA-256", granted.get("token_type") == "Bearer" and granted["token_source"] == "identity_provider",
      granted.get("error_description", ""))
check("it lives an hour", 3590 <= granted["expires_in"] <= 3600, granted["expires_in"])
again = app.acquire_token_for_client(SCOPES)
check("MSAL keeps it", again["token_source"] == "cache" and again["access_token"] == granted["access_token"])
answer = application(legacy).acquire_token_for_client(SCOPES)
check("a token for RS256 and the SHA-1", "access_token" in answer, answer.get("error_description", ""))
answer = application(modern, authority=f"{login}/{domain}").acquire_token_for_client(SCOPES)
check("the tenant by its domain", "access_token" in answer, answer.get("error_description", ""))
answer = application(modern, instance_discovery=f"{login}/common/discovery/instance").acquire_token_for_client(SCOPES)
check("with instance discovery", "access_token" in answer, answer.get("error_description", ""))
try:
    application(modern, authority="https://login.elsewhere.example/common",
                instance_discovery=f"{login}/common/discovery/instance")
    check("an instance of somebody else's is unknown", False)
except ValueError as error:
    check("an instance of somebody else's is unknown", "invalid_instance" in str(error))
try:
    application(modern, authority=f"{login}/nobody.example")
    check("an unknown tenant is unknown", False)
except ValueError as error:
    check("an unknown tenant is unknown", "Unable to get authority configuration" in str(error))

other_private, other_public, _ = identity()
answer = application({"private_key": other_private, "thumbprint": thumbprint}).acquire_token_for_client(SCOPES)
check("another key is refused", refused(answer, 700027), answer.get("error_description"))
answer = application(modern, client_claims={"aud": "https://login.elsewhere.example/token"}).acquire_token_for_client(SCOPES)
check("an assertion for another endpoint is refused", refused(answer, 700023), answer.get("error_description"))
answer = application(modern, client_claims={"exp": int(time.time()) - 3600, "iat": int(time.time()) - 4000}).acquire_token_for_client(SCOPES)
check("an expired assertion is refused", refused(answer, 700024), answer.get("error_description"))
answer = application("a-secret").acquire_token_for_client(SCOPES)
check("a secret is refused", refused(answer, 7000215), answer.get("error_description"))
answer = application(modern).acquire_token_for_client(["https://nobody.example/.default"])
check("a resource nobody has is refused", refused(answer, 500011), answer.get("error_description"))
answer = application(modern).acquire_token_for_client(["https://outlook.office365.com/Mail.Read"])
check("a single permission cannot be asked for", refused(answer, 1002012), answer.get("error_description"))

session = requests.Session()
session.verify = ca_file


def invoke(cmdlet, token=None, url=None, page=1000, session=session, **parameters):
    body = {"CmdletInput": {"CmdletName": cmdlet, "Parameters": parameters}}
    return session.post(
        url or f"{rest_url.rstrip('/')}/{tenant}/InvokeCommand", data=json.dumps(body),
        headers={"Authorization": f"Bearer {token or granted['access_token']}",
                 "Content-Type": "application/json; charset=utf-8", "Prefer": f"odata.maxpagesize={page}",
                 "X-CmdletName": cmdlet})


answer = invoke("Get-MobileDevice", ResultSize="Unlimited").json()
check("all phones in one page", len(answer["value"]) == partnerships and "@odata.nextLink" not in answer)
whole = [phone["Guid"] for phone in answer["value"]]
paged, sizes, url = [], [], None
while True:
    answer = invoke("Get-MobileDevice", url=url, page=7, ResultSize="Unlimited").json()
    sizes.append(len(answer["value"]))
    paged += [phone["Guid"] for phone in answer["value"]]
    url = answer.get("@odata.nextLink")
    if url is None:
        break
check("the same in pages", paged == whole and len(set(paged)) == partnerships and max(sizes) == 7, sizes)
answer = invoke("Get-MobileDevice", url=f"{rest_url.rstrip('/')}/{tenant}/InvokeCommand?$select=DeviceId,DeviceModel", ResultSize="1").json()
named = {name.split("@")[0] for name in answer["value"][0]} - {"", "data"}
check("only what was selected", named == {"DeviceId", "DeviceModel"}, sorted(answer["value"][0]))
answer = invoke("Get-MobileDevice", Identity="nobody-has-this")
check("nobody's phone is not found", answer.status_code == 404 and "couldn't be found" in answer.json()["error"]["details"][0]["message"],
      answer.json())
answer = invoke("Get-Everything")
check("an unknown cmdlet is refused", answer.status_code in (400, 403) and "Get-Everything" in answer.text, answer.status_code)

rule = admin("POST", "/faults", on={"front": "rest", "operation": "Get-OrganizationConfig"}, times=1,
             fault={"status": {"code": "429", "message": "1"}})
answer = invoke("Get-OrganizationConfig")
check("429 says when to come back", answer.status_code == 429 and answer.headers["Retry-After"] == "1", dict(answer.headers))
admin("POST", "/faults", on={"front": "rest", "operation": "Get-OrganizationConfig"}, times=1,
      fault={"status": {"code": "429", "message": "1"}})
patient = requests.Session()
patient.verify = ca_file
patient.mount("https://", HTTPAdapter(max_retries=Retry(
    total=2, status_forcelist=[429, 503], allowed_methods={"POST"}, respect_retry_after_header=True, backoff_factor=0)))
began = time.monotonic()
answer = invoke("Get-OrganizationConfig", session=patient)
check("urllib3 comes back then", answer.status_code == 200 and time.monotonic() - began >= 1, round(time.monotonic() - began, 2))

policy = admin("GET", "/world/throttling")
admin("PUT", "/world/throttling", **{**policy, "rest_requests_per_minute": 2})
answers = [invoke("Get-OrganizationConfig") for _ in range(4)]
last = answers[-1]
check("a budget that is used up is told the same way", last.status_code == 429 and 1 <= int(last.headers["Retry-After"]) <= 60,
      [answer.status_code for answer in answers])
admin("POST", "/clock/advance", ms=int(last.headers["Retry-After"]) * 1000)
check("and good again when it says so", invoke("Get-OrganizationConfig").status_code == 200)
admin("PUT", "/world/throttling", **policy)

graph = application(modern).acquire_token_for_client(["https://graph.microsoft.com/.default"])
claims = graph["access_token"].split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
check("there are tokens for other services", claims["aud"] == "https://graph.microsoft.com", claims["aud"])
answer = invoke("Get-OrganizationConfig", token=graph["access_token"])
check("which Exchange does not take", answer.status_code == 401 and "Bearer" in answer.headers["WWW-Authenticate"], answer.status_code)
answer = invoke("Get-OrganizationConfig", url=f"{rest_url.rstrip('/')}/11111111-2222-3333-4444-555555555555/InvokeCommand")
check("nor one for another organisation", answer.status_code == 403, answer.status_code)

admin("POST", "/clock/advance", ms=granted["expires_in"] * 1000 + 1000)
answer = invoke("Get-OrganizationConfig")
check("an expired token is turned away", answer.status_code == 401 and 'error="invalid_token"' in answer.headers["WWW-Authenticate"],
      answer.headers.get("WWW-Authenticate"))
app.remove_tokens_for_client()
granted = app.acquire_token_for_client(SCOPES)
check("and a new one is given", granted["token_source"] == "identity_provider", granted.get("error_description", ""))
check("which is good", invoke("Get-OrganizationConfig").status_code == 200)
