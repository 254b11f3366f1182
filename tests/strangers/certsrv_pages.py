"""certsrv: the web enrolment pages as a client of their own reads them.

usage: certsrv_pages.py HTTPS_URL ADMIN_URL TLS_CA_FILE USER UPN
The password is in CAUSEWAY_PASSWORD. Prints one line a check and ends with 0 when all hold.
"""
import os
import sys
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import certsrv
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

# requests prefers these to the file its session names.
for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(name, None)

url, admin, ca_file, user, upn = sys.argv[1:6]
server = urlsplit(url).netloc
password = os.environ["CAUSEWAY_PASSWORD"]


def check(what, holds):
    print(("ok   " if holds else "FAIL ") + what, flush=True)
    if not holds:
        sys.exit(1)


def client(method, secret=password, name=user):
    return certsrv.Certsrv(server, name, secret, auth_method=method, cafile=ca_file)


def request():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "certsrv stranger")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return key, csr.public_bytes(serialization.Encoding.PEM).decode()


def public(of):
    return of.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


for method, name in (("basic", user), ("basic", upn), ("ntlm", user)):
    pages = client(method, name=name)
    check(method + " signs in", pages.check_credentials())
    key, csr = request()
    pem = x509.load_pem_x509_certificate(pages.get_cert(csr, "MobileDevice"))
    check(method + " gets a certificate for its key", public(pem) == public(key))
    _, csr = request()
    x509.load_der_x509_certificate(pages.get_cert(csr, "MobileDevice", encoding="bin"))
    issuer = x509.load_pem_x509_certificate(pages.get_ca_cert())
    pem.verify_directly_issued_by(issuer)
    chain = pkcs7.load_der_pkcs7_certificates(pages.get_chain())
    check(method + " reads the authority and its chain", issuer in chain and len(chain) == 2)

check("basic refuses a wrong password", not client("basic", "wrong").check_credentials())
check("ntlm refuses a wrong password", not client("ntlm", "wrong").check_credentials())

pages = client("ntlm")
try:
    pages.get_cert(request()[1], "NoSuchTemplate")
    check("an unknown template is refused", False)
except certsrv.RequestDeniedException as denied:
    check("an unknown template is refused", "0x80094800" in str(denied))

key, csr = request()
try:
    pages.get_cert(csr, "ApprovedDevice")
    check("a request waits for approval", False)
except certsrv.CertificatePendingException as pending:
    number = pending.req_id
check("a request waits for approval", True)
try:
    pages.get_existing_cert(number)
    check("and has no certificate before", False)
except certsrv.CouldNotRetrieveCertificateException as waiting:
    check("and has no certificate before", "Taken Under Submission" in str(waiting))
urlopen(Request(admin + "/world/requests/" + number + "/approve", method="POST")).read()
issued = x509.load_pem_x509_certificate(pages.get_existing_cert(number))
check("and has one afterwards", public(issued) == public(key))
try:
    pages.get_existing_cert("4000000")
    check("a number nobody has gives no certificate", False)
except certsrv.CouldNotRetrieveCertificateException:
    check("a number nobody has gives no certificate", True)
print("all hold")
