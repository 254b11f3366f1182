"""slixmpp with an agent's certificate: SASL EXTERNAL over direct TLS (RFC 6120 6.3.4, XEP-0178).

usage: slixmpp_external.py HOST PORT DOMAIN CA_FILE JID CERTIFICATE_FILE KEY_FILE
Logs in, binds, pings, and resumes after its connection was cut.
"""
import asyncio
import ssl
import sys

import slixmpp

host, port, domain, ca_file, jid, certificate, key = sys.argv[1:8]


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


async def main():
    client = slixmpp.ClientXMPP(jid, None, sasl_mech="EXTERNAL")
    client.certfile, client.keyfile, client.ca_certs = certificate, key, ca_file
    client.enable_direct_tls = True
    client.enable_starttls = False
    client.enable_plaintext = False
    client.ssl_context = ssl.create_default_context(cafile=ca_file)
    client.ssl_context.load_cert_chain(certificate, key)
    client.ssl_context.set_alpn_protocols(["xmpp-client"])
    for plugin in ("xep_0030", "xep_0198", "xep_0199"):
        client.register_plugin(plugin)
    client["feature_mechanisms"].use_mech = "EXTERNAL"
    refused = asyncio.ensure_future(client.wait_until("failed_all_auth", timeout=20))
    online = asyncio.ensure_future(client.wait_until("session_start", timeout=20))
    client.connect(host, int(port))
    done, _ = await asyncio.wait([online, refused], return_when=asyncio.FIRST_COMPLETED)
    check("EXTERNAL login and bind", online in done)
    check("the JID is the certificate's", client.boundjid.bare == jid, client.boundjid.full)
    check("ping", await client["xep_0199"].ping(jid=domain, timeout=10) < 10)
    await client.disconnect(wait=1)
    print("all hold")


asyncio.run(asyncio.wait_for(main(), 60))
